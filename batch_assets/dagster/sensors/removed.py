"""Pipelines that the ledger knows and the code location does not: they were renamed or removed.

Their answers are paid for, so they are collected without a YAML file: results depend on the submission and the
response store alone. No run can be requested for an asset that does not exist, so a thread of the code server
collects.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator

from batch_assets.core.errors import BatchAssetsError
from batch_assets.core.ledger import Transaction
from batch_assets.core.ledger.deadlines import ending_soon
from batch_assets.core.open_root import open_root
from batch_assets.core.planning.next_step import next_step, round_of
from batch_assets.core.planning.snapshot import Snapshot
from batch_assets.core.planning.steps import Collect, Join, Send
from batch_assets.core.results.run import collect_results
from batch_assets.core.settings import Settings
from batch_assets.core.text import count, duration

# Another code location with the same root may have the pipeline, and collects within minutes.
PATIENCE_SECONDS = 900.0

_log = logging.getLogger("batch_assets")
_collecting = threading.Lock()

Place = tuple[str, str]
"""Pipeline and partition."""


def describe(tx: Transaction, snapshots: Iterable[Snapshot]) -> Iterator[str]:
    """Yield sentences that name removed pipelines with something left, and results that are soon lost."""
    by_pipeline: dict[str, list[Snapshot]] = {}
    for snapshot in snapshots:
        by_pipeline.setdefault(snapshot.submission.pipeline, []).append(snapshot)
    for pipeline, of_it in by_pipeline.items():
        uncollected = {batch.id for one in of_it for batch in (*one.uncollected, *one.left_behind)}
        files = {file.id for one in of_it for file in one.files if file.state.in_flight}
        if not uncollected and not files:
            continue
        left = count(len(uncollected), "batch is", "batches are") if uncollected else ""
        left = left or count(len(files), "request file is", "request files are")
        yield (
            f"{pipeline}: {left} left, and no pipeline of this code location has this name. Answers are collected "
            f"all the same; nothing more is sent. If it was renamed: batch-assets rename {pipeline} NEW"
        )
        for batch, seconds in ending_soon(tx, pipeline):
            yield f"{pipeline}: the results of {batch.id} are lost in {duration(seconds)}"


def due(snapshots: Iterable[Snapshot]) -> list[Place]:
    """Return where removed pipelines have answers to collect, or a table to write from them."""
    places = []
    for one in snapshots:
        waits_since = min((batch.next_download_at for batch in one.ended), default=None)
        step = round_of(next_step(one, put_off=[Send]))
        is_old = waits_since is None or one.now - waits_since >= PATIENCE_SECONDS
        if isinstance(step, Collect | Join) and is_old:
            places.append((one.submission.pipeline, one.submission.partition))
    return places


def collect(settings: Settings, places: list[Place]) -> threading.Thread | None:
    """Collect in a thread of its own, unless one is at work. A killed one is continued by a later tick.

    Returns:
        The thread; `None` if there is nothing to do or another one is at work.
    """
    if not places or not _collecting.acquire(blocking=False):
        return None
    thread = threading.Thread(target=_collect, args=(settings, places), name="removed pipelines", daemon=True)
    thread.start()
    return thread


def _collect(settings: Settings, places: list[Place]) -> None:
    try:
        with open_root(settings) as root:
            for pipeline, partition in places:
                try:
                    done = collect_results(root, pipeline, partition, due_only=True)
                except BatchAssetsError as error:
                    _log.warning("%s: %s", pipeline, error)
                else:
                    for problem in done.problems:
                        _log.warning("%s: %s", pipeline, problem)
    finally:
        _collecting.release()
