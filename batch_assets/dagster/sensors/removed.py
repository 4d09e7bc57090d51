"""Pipelines and partitions that the ledger knows and the code location does not: renamed, removed or broken.

Their answers are paid for, so they are collected without a YAML file: results depend on the submission and the
response store alone. No run can be requested for an asset or a partition that does not exist, so a thread of the
code server collects.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Container, Iterable, Iterator
from typing import Any

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
from batch_assets.core.results.run import CollectedResults, collect_results
from batch_assets.core.root import Root
from batch_assets.core.settings import Settings
from batch_assets.core.text import count, duration

# Another code location with the same root may have the pipeline, and collects within minutes.
PATIENCE_SECONDS = 900.0

_log = logging.getLogger("batch_assets")
_collecting = threading.Lock()

Partition = tuple[str, str]
"""The name of a pipeline and a partition key; "" without partitions."""


def describe(tx: Transaction, snapshots: Iterable[Snapshot], broken: Container[str]) -> Iterator[str]:
    """Yield sentences that name removed pipelines with something left, and results that are soon lost.

    Args:
        tx: A transaction.
        snapshots: The submissions of such pipelines.
        broken: The names of pipelines whose file is broken.
    """
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
        if pipeline in broken:
            yield f"{pipeline}: {text} left"
        else:
            yield (
                f"{pipeline}: {text} left, and no pipeline of this code location has this name. Answers are "
                "collected all the same; nothing more is sent. If it was renamed: "
                f"batch-assets rename {shell_quoted(pipeline)} NEW"
            )
        for batch, seconds in ending_soon(tx, pipeline):
            yield f"{pipeline}: the results of {batch.id} are lost in {duration(seconds)}"


def due(snapshots: Iterable[Snapshot], broken: Container[str]) -> list[Partition]:
    """Return the partitions of submissions with files in doubt, answers to collect, or a table to write.

    Args:
        snapshots: The submissions of removed pipelines.
        broken: The names of pipelines whose file is broken. No other code location collects for them, and their
            tables wait for the file, which may have functions that make columns of answers.
    """
    partitions = []
    for snapshot in snapshots:
        waits_since = min((batch.next_download_at for batch in snapshot.ended), default=None)
        step = round_of(next_step(snapshot, put_off=[Send]))
        is_old = waits_since is None or snapshot.now - waits_since >= PATIENCE_SECONDS
        in_doubt = any(file.state.in_doubt for file in snapshot.files)
        is_broken = snapshot.submission.pipeline in broken
        is_due = isinstance(step, Collect) if is_broken else isinstance(step, Collect | Join) and is_old
        if in_doubt or is_due:
            partitions.append((snapshot.submission.pipeline, snapshot.submission.partition))
    return partitions


def collect(settings: Settings, partitions: list[Partition], broken: Container[str]) -> threading.Thread | None:
    """Reconcile and collect in a thread of its own, unless one is at work. A later tick continues a killed one.

    Args:
        settings: The settings of the root.
        partitions: What is due.
        broken: The names of pipelines whose file is broken.

    Returns:
        The thread; `None` if there is nothing to do or another one is at work.
    """
    if not partitions or not _collecting.acquire(blocking=False):
        return None
    thread = threading.Thread(
        target=_collect, args=(settings, partitions, broken), name="removed pipelines", daemon=True
    )
    thread.start()
    return thread


def _collect_answers(root: Root, pipeline: str, partition: str, **options: Any) -> CollectedResults:
    """Collect and store answers, and leave the table as it is. See `collect_results`."""
    return collect_results(root, pipeline, partition, joins=False, **options)


def _collect(settings: Settings, partitions: list[Partition], broken: Container[str]) -> None:
    try:
        with open_root(settings) as root:
            reconcile(root)
            for pipeline, partition in partitions:
                try:
                    collects = _collect_answers if pipeline in broken else collect_and_erase
                    done = collects(root, pipeline, partition, partitions=[partition], due_only=True)
                except BatchAssetsError as error:
                    _log.warning("%s: %s", pipeline, error)
                else:
                    for problem in done.problems:
                        _log.warning("%s: %s", pipeline, problem)
    finally:
        _collecting.release()
