"""Remove what is no longer needed: batches at the API, request files, and the history. Off by default.

Nothing is removed before the answers are safe, and never a receipt, index, manifest or response. Every step may be
killed and repeated. What cannot be removed now is reported and tried again later.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batch_assets.core.api.errors import ApiError, NotFoundError, NotSentError, RefusedError, UnknownOutcomeError
from batch_assets.core.batches import workspace
from batch_assets.core.batches.workspace import WHOSE_KEY
from batch_assets.core.errors import BatchAssetsError, BusyError, ErrorType
from batch_assets.core.io.layout import response_parts
from batch_assets.core.io.names import PartName
from batch_assets.core.io.parquet import UNREADABLE
from batch_assets.core.io.slices import slices_of
from batch_assets.core.ledger import Lease, batches, files, history_retention, submissions
from batch_assets.core.ledger.deadlines import results_end
from batch_assets.core.ledger.records import Batch, RequestFile
from batch_assets.core.ledger.request_leases import hold_pipeline
from batch_assets.core.ledger.states import BatchMove, BatchState, EntityKind
from batch_assets.core.pipeline.blocks import RetentionConfig
from batch_assets.core.root import Root
from batch_assets.core.store.digest_files import remove_digests
from batch_assets.core.store.in_flight import known_digests
from batch_assets.core.store.packed_responses import PASSING
from batch_assets.core.store.pipeline_outcomes import PipelineOutcomes, open_answers
from batch_assets.core.store.refreshes import refreshes_of
from batch_assets.core.store.request_files import StoredRequestFile

_DAY = 86400.0
# A batch that could not be deleted is tried again after this long.
_AGAIN_SECONDS = 3600.0
# The history of so many submissions is removed in one transaction, in so many transactions a run.
_SUBMISSIONS_AT_ONCE, _TRANSACTIONS = 100, 20
_DUE = "retention.batches_days have passed, its answers are stored"


def apply_retention(root: Root, pipeline: str, retention: RetentionConfig) -> list[str]:
    """Delete what is due for a pipeline, in all its partitions.

    Args:
        root: The root.
        pipeline: The name of the pipeline.
        retention: When copies are due.

    Returns:
        What went wrong, as texts.
    """
    problems: list[str] = []
    try:
        if not _is_due(root, pipeline, retention):
            return problems
        # With this lease no other process reads request files or the history for a new submission or a retry.
        with hold_pipeline(root.ledger, pipeline) as lease:
            if retention.history_days is not None:
                _remove_history(root, pipeline, retention.history_days * _DAY, lease)
            if retention.batches_days is not None:
                problems += _delete_batches(root, pipeline, retention.batches_days * _DAY, lease)
            if retention.request_files_days is not None:
                _remove_request_files(root, pipeline, retention.request_files_days * _DAY, lease)
    except BusyError:
        return problems  # the next run does it
    except (BatchAssetsError, ApiError, OSError) as error:
        problems.append(f"retention: {error}")
    return problems


def _is_due(root: Root, pipeline: str, retention: RetentionConfig) -> bool:
    """Whether there is anything to remove. Otherwise no build has to wait for it."""
    with root.ledger.read() as tx:
        if retention.history_days is not None:
            before = tx.now - retention.history_days * _DAY
            if history_retention.is_due(tx, pipeline, before):
                return True
        if retention.batches_days is not None:
            before = tx.now - retention.batches_days * _DAY
            if batches.collected_before(tx, pipeline, before):
                return True
    if retention.request_files_days is None:
        return False
    return bool(_unneeded_files(root, pipeline, retention.request_files_days * _DAY))


def delete_batch(root: Root, batch: Batch, reason: str) -> str | None:
    """Delete a batch at the API whose answers are stored, because a user asked for it.

    Args:
        root: The root, whose endpoint was checked. The caller holds the lease on all of the pipeline's
            requests.
        batch: The batch.
        reason: The reason, for the history.

    Returns:
        Why it was not deleted; `None` if it was.
    """
    kept = _why_kept(root, batch)
    return kept.text if kept is not None else _delete(root, batch, reason)


def _delete_batches(root: Root, pipeline: str, age: float, lease: Lease) -> list[str]:
    with root.ledger.read() as tx:
        due = batches.collected_before(tx, pipeline, tx.now - age)
    if not due:
        return []
    root.check_endpoint()
    problems = []
    for batch in due:
        lease.check()
        kept = _why_kept(root, batch)
        problem = kept.text if kept is not None else _delete(root, batch, _DUE)
        if problem is not None:
            problems.append(f"{batch.id} is not deleted at the API: {problem}")
            is_lasting = kept is not None and kept.is_lasting  # it is reported once
            with root.ledger.write(pipeline) as tx:
                batches.delete_later(tx, batch.id, batches.NEVER if is_lasting else tx.now + _AGAIN_SECONDS)
    return problems


class _Kept(NamedTuple):
    """Why a batch is not deleted.

    Attributes:
        text: The reason.
        is_lasting: Whether it stays until a user deletes the batch.
    """

    text: str
    is_lasting: bool = False


def _why_kept(root: Root, batch: Batch) -> _Kept | None:
    """Return why a batch may not be deleted; `None` if it may. Reads its answers to the last row."""
    if not batch.replied:  # it might belong to someone else
        return _Kept(batches.NOT_CERTAIN, is_lasting=True)
    if batch.pipeline is None or batch.file_id is None:
        return _Kept("the ledger does not know which requests it answers")
    with root.ledger.read() as tx:
        wanted = files.by_id(tx, batch.file_id).requests
    parts = response_parts(batch.pipeline, batch.id)
    uri = root.storage.uri(*parts)
    try:
        with pq.ParquetFile(root.storage.open(*parts), pre_buffer=False) as file:
            rows = missing = 0
            for group in slices_of(file):
                rows += len(group)
                missing += pc.sum(pc.equal(group.column("error_type"), ErrorType.MISSING_RESULT)).as_py() or 0
    except UNREADABLE as error:
        return _Kept(f"its answers cannot be read from {uri}: {error}")
    if missing:
        text = f"{missing} of its answers were in no download, and the API may have them"
        return _Kept(text, is_lasting=True)
    return _Kept(f"{uri} holds {rows} answers to {wanted} requests") if rows != wanted else None


def _delete(root: Root, batch: Batch, reason: str) -> str | None:
    """Delete a batch at the API.

    A first 404 may mean a key of another workspace. After an attempt with unknown outcome it means that the batch
    was deleted. So it does when the API showed the batch just before: a gateway has repeated the DELETE. After 29
    days nothing of the answers is left to delete.

    Returns:
        Why it was not deleted; `None` if it was.

    Raises:
        NotSentError: When the API cannot be reached.
    """
    with root.ledger.write(batch.pipeline) as tx:
        if not batches.move_stored(tx, BatchMove.DELETE, batch.id, reason):
            return None
    was_there = _is_there(root, batch)
    try:
        root.api.delete(batch.id)
    except UnknownOutcomeError as error:
        return f"{error}; it is tried again"
    except NotFoundError as error:
        if batch.state is BatchState.DELETING or _is_gone(root, batch, was_there):
            _deleted(root, batch, "the API no longer knows it")
            return None
        return _not_deleted(root, batch, f"404: {error}. {WHOSE_KEY}")
    except NotSentError as error:
        _not_deleted(root, batch, str(error))
        raise
    except RefusedError as error:
        return _not_deleted(root, batch, str(error))
    _deleted(root, batch, "the API has deleted it")
    return None


def _is_there(root: Root, batch: Batch) -> bool | None:
    """Whether the API knows a batch; `None` if it cannot be asked now."""
    try:
        return workspace.is_there(root, batch.id)
    except ApiError:
        return None


def _is_gone(root: Root, batch: Batch, was_there: bool | None) -> bool:
    """Whether a first 404 to a DELETE means that the API no longer has the batch."""
    if was_there and _is_there(root, batch) is False:
        return True
    end = results_end(batch)
    with root.ledger.read() as tx:
        if end is not None and tx.now >= end:
            return True
    try:
        return workspace.is_proved(root, batch.id)
    except ApiError:
        return False


def _deleted(root: Root, batch: Batch, reason: str) -> None:
    with root.ledger.write(batch.pipeline) as tx:
        batches.move_stored(tx, BatchMove.DELETED, batch.id, reason)


def _not_deleted(root: Root, batch: Batch, reason: str) -> str:
    """Record that nothing was deleted, unless an earlier attempt may have succeeded. Returns the reason."""
    if batch.state is BatchState.COLLECTED:
        with root.ledger.write(batch.pipeline) as tx:
            batches.move_stored(tx, BatchMove.KEEP, batch.id, reason)
    return reason


def _remove_request_files(root: Root, pipeline: str, age: float, lease: Lease) -> None:
    for file in _unneeded_files(root, pipeline, age):
        lease.check()
        *folder, name = StoredRequestFile.of(root.storage, file).parts
        remove_digests(root.storage, tuple(folder), PartName.parse(name))
        root.storage.remove(*folder, name)
        with root.ledger.write(pipeline) as tx:
            tx.record(EntityKind.FILE, file.id, file.state, submissions.REMOVED, "retention.request_files_days")


def _unneeded_files(root: Root, pipeline: str, age: float) -> list[RequestFile]:
    """Return the request files that are old enough, and that nothing could still need."""
    with root.ledger.read() as tx:
        # Files that no reconciliation or collection in progress could still need.
        watched = {file.id for _, file in files.watched(tx)}
        old = [file for file in submissions.old_files(tx, pipeline, tx.now - age) if file.id not in watched]
        candidates = [file for file in old if all(b.state.stored for b in batches.of_file(tx, file.id))]
        newest = submissions.all_newest(tx, pipeline) if candidates else []
    if any(submission.follow_ups and submission.final_at is None for submission in newest):
        return []  # a follow-up is made of the request that it follows, which may be an old one
    needed = _files_to_ask_again_from(root, pipeline, candidates) if candidates else set()
    return [file for file in candidates if file.id not in needed]


def _remove_history(root: Root, pipeline: str, age: float, lease: Lease) -> None:
    """Remove the history of submissions that were superseded long ago. The next run does what is left."""
    for _ in range(_TRANSACTIONS):
        with root.ledger.write(pipeline) as tx:
            lease.confirm(tx)
            removed = history_retention.remove_old(tx, pipeline, tx.now - age, _SUBMISSIONS_AT_ONCE)
        if removed < _SUBMISSIONS_AT_ONCE:
            return


def _files_to_ask_again_from(root: Root, pipeline: str, candidates: list[RequestFile]) -> set[str]:
    """Return ids of request files with requests whose last response is a passing failure: a retry reads them.

    Args:
        root: The root.
        pipeline: The name of the pipeline.
        candidates: The request files to decide about.
    """
    with root.ledger.read() as tx:
        refreshes = refreshes_of(tx, pipeline)
    answers = open_answers(root, pipeline, sum(file.requests for file in candidates))
    outcomes, passing = PipelineOutcomes(answers, refreshes), [np.empty(0, np.int64)]
    for file in candidates:
        of_file = outcomes.for_digests(known_digests(root.storage, file).digests)
        passing.append(of_file.row[of_file.is_known & (of_file.kind == PASSING)])
    rows = np.sort(np.concatenate(passing))
    names = [outcomes.files.names[number] for number, _, _ in outcomes.files.by_file(rows)]
    batch_ids = [name.batch_id for name in names if name.batch_id is not None]
    with root.ledger.read() as tx:
        retried = batches.by_ids(tx, batch_ids)
    return {batch.file_id for batch in retried if batch.file_id is not None}
