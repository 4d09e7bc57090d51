"""Pipelines and partitions that the ledger knows and the code location does not: they were renamed or removed.

Their answers are paid for, so they are collected without a YAML file: results depend on the submission and the
response store alone. No run can be requested for an asset or a partition that does not exist, so a thread of the
code server collects.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator

from batch_assets.core.batches.reconcile import reconcile
from batch_assets.core.erase.later import collect_and_erase
from batch_assets.core.errors import BatchAssetsError
from batch_assets.core.ledger import Transaction
from batch_assets.core.ledger.deadlines import ending_soon
from batch_assets.core.open_root import open_root
from batch_assets.core.planning.next_step import next_step, round_of
from batch_assets.core.planning.snapshot import Snapshot
from batch_assets.core.planning.steps import Collect, Join, Send
from batch_assets.core.quoting import shell_quoted
from batch_assets.core.settings import Settings
from batch_assets.core.text import count, duration

# Another code location with the same root may have the pipeline, and collects within minutes.
PATIENCE_SECONDS = 900.0

_log = logging.getLogger("batch_assets")
_collecting = threading.Lock()

Partition = tuple[str, str]
"""The name of a pipeline and a partition key; "" without partitions."""


def describe(tx: Transaction, snapshots: Iterable[Snapshot]) -> Iterator[str]:
    """Yield sentences that name removed pipelines with something left, and results that are soon lost."""
    by_pipeline: dict[str, list[Snapshot]] = {}
    for snapshot in snapshots:
        by_pipeline.setdefault(snapshot.submission.pipeline, []).append(snapshot)
    for pipeline, of_pipeline in by_pipeline.items():
        uncollected = {
            batch.id for snapshot in of_pipeline for batch in (*snapshot.uncollected, *snapshot.left_behind)
        }
        files = {file.id for snapshot in of_pipeline for file in snapshot.files if file.state.in_flight}
        if not uncollected and not files:
            continue
        text = count(len(uncollected), "batch is", "batches are") if uncollected else ""
        text = text or count(len(files), "request file is", "request files are")
        yield (
            f"{pipeline}: {text} left, and no pipeline of this code location has this name. Answers are collected "
            "all the same; nothing more is sent. If it was renamed: "
            f"batch-assets rename {shell_quoted(pipeline)} NEW"
        )
        for batch, seconds in ending_soon(tx, pipeline):
            yield f"{pipeline}: the results of {batch.id} are lost in {duration(seconds)}"


def due(snapshots: Iterable[Snapshot]) -> list[Partition]:
    """Return the partitions of submissions with files in doubt, answers to collect, or a table to write."""
    partitions = []
    for snapshot in snapshots:
        waits_since = min((batch.next_download_at for batch in snapshot.ended), default=None)
        step = round_of(next_step(snapshot, put_off=[Send]))
        is_old = waits_since is None or snapshot.now - waits_since >= PATIENCE_SECONDS
        in_doubt = any(file.state.in_doubt for file in snapshot.files)
        if in_doubt or (isinstance(step, Collect | Join) and is_old):
            partitions.append((snapshot.submission.pipeline, snapshot.submission.partition))
    return partitions


def collect(settings: Settings, partitions: list[Partition]) -> threading.Thread | None:
    """Reconcile and collect in a thread of its own, unless one is at work. A later tick continues a killed one.

    Returns:
        The thread; `None` if there is nothing to do or another one is at work.
    """
    if not partitions or not _collecting.acquire(blocking=False):
        return None
    thread = threading.Thread(target=_collect, args=(settings, partitions), name="removed pipelines", daemon=True)
    thread.start()
    return thread


def _collect(settings: Settings, partitions: list[Partition]) -> None:
    try:
        with open_root(settings) as root:
            reconcile(root)
            for pipeline, partition in partitions:
                try:
                    done = collect_and_erase(root, pipeline, partition, partitions=[partition], due_only=True)
                except BatchAssetsError as error:
                    _log.warning("%s: %s", pipeline, error)
                else:
                    for problem in done.problems:
                        _log.warning("%s: %s", pipeline, problem)
    finally:
        _collecting.release()
