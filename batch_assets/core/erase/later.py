"""Finish erasures that had to wait: rows whose request was in flight, and batches that could not be deleted.

The record has hashes of the waiting keys only. The rows leave the indexes last, so these still have the keys.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from batch_assets.core.erase.found_rows import find_rows, keys_on_record, manifests_of
from batch_assets.core.erase.held_files import find_files
from batch_assets.core.erase.report import EraseReport
from batch_assets.core.erase.run import erase, key_column
from batch_assets.core.errors import BatchAssetsError, BusyError
from batch_assets.core.ledger import batches, submissions
from batch_assets.core.ledger.states import EntityKind
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.results.run import CollectedResults, collect_results
from batch_assets.core.root import Root
from batch_assets.core.store.erased import ErasedRecord
from batch_assets.core.text import count

# A batch that could not be deleted is tried again after this long.
_AGAIN_SECONDS = 3600.0
# What the history calls a pipeline whose waiting rows were erased.
_ERASED = "rows erased"

_log = logging.getLogger("batch_assets")


def collect_and_erase(
    root: Root, name: str, partition: str = "", *, pipeline: Pipeline | None = None, **options: Any
) -> CollectedResults:
    """Collect results, and then erase the rows that waited for it.

    Args:
        root: The root.
        name: The name of the pipeline.
        partition: The partition key; "" without partitions.
        pipeline: The pipeline, for its sink; `None` if the project no longer has it.
        **options: See `collect_results`.
    """
    collected = collect_results(root, name, partition, **options)
    problems: list[str] = []
    if not _finish(root, name, pipeline, problems.append):
        return replace(collected, problems=[*collected.problems, *problems])
    again = collect_results(root, name, partition, **options)
    return replace(
        again,
        collected=[*collected.collected, *again.collected],
        problems=[*dict.fromkeys([*collected.problems, *again.problems, *problems])],
    )


def _finish(root: Root, name: str, pipeline: Pipeline | None, tell: Callable[[str], None]) -> bool:
    """Erase what no longer has to wait.

    Args:
        root: The root.
        name: The name of the pipeline.
        pipeline: The pipeline; `None` if the project no longer has it.
        tell: Called with each problem, as text.

    Returns:
        Whether tables may have changed.
    """
    try:
        record = ErasedRecord.read(root.storage, name)
        if record is None or not (record.waiting or record.batches):
            return False
        keys = _ready_keys(root, name, pipeline, record)
        if not keys and not _due_batches(root, record):
            return False
        report = erase(root, name, keys, pipeline, is_later=True)
    except BusyError:
        return False  # the next run does it
    except BatchAssetsError as error:
        tell(f"erasing rows that waited: {error}")
        return False
    _note(root, name, keys, report)
    for text in report.open_ends():
        tell(f"erasing rows that waited: {text}")
    return bool(keys)


def _ready_keys(root: Root, name: str, pipeline: Pipeline | None, record: ErasedRecord) -> list[str]:
    """Return the waiting keys whose requests are no longer in flight."""
    if not record.waiting:
        return []
    manifests, _ = manifests_of(root.storage, name)
    if not manifests:
        return []
    key = key_column(manifests, pipeline)
    keys = keys_on_record(root.storage, manifests, key, record)
    blocked = find_files(root, name, find_rows(root.storage, manifests, key, keys)).blocked
    return [text for at, text in enumerate(keys) if at not in blocked]


def _due_batches(root: Root, record: ErasedRecord) -> bool:
    with root.ledger.read() as tx:
        known = [batch for id_ in record.batches if (batch := batches.by_id(tx, id_)) is not None]
        return any(batch.state.stored and batch.next_delete_at <= tx.now for batch in known)


def _note(root: Root, name: str, keys: list[str], report: EraseReport) -> None:
    """Record in the history what was erased, and when what is left is tried again."""
    done = [*report.done()]
    with root.ledger.write(name) as tx:
        for batch_id in report.kept:
            batches.delete_later(tx, batch_id, tx.now + _AGAIN_SECONDS)
        in_force = submissions.all_newest(tx, name)
        if keys and in_force:
            reason = f"{count(len(keys), 'row')} that had waited: {'; '.join(done)}"
            tx.record(EntityKind.SUBMISSION, in_force[-1].id, in_force[-1].state, _ERASED, reason)
    if done:
        _log.warning(f"Rows of {name} that had waited were erased: {'; '.join(done)}.")
