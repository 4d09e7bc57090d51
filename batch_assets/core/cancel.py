"""Cancel a pipeline or a batch: end open batches at the API, and do not send what is unsent.

The ledger records the cancel on the submission before the first call. Later runs, of a user or of the sensor,
cancel what the calls do not reach: the API was unavailable, or an upload was running or in doubt.
"""

from __future__ import annotations

from collections.abc import Sequence

from batch_assets.core.api.errors import ApiError
from batch_assets.core.batches import workspace
from batch_assets.core.batches.cancel import CancelReport, cancel_batches, finish
from batch_assets.core.batches.targets import UnknownTargetError, submissions_of, unknown_pipeline
from batch_assets.core.errors import MoveRefusedError, ResultsError
from batch_assets.core.ledger import Transaction, batches, leases, pilots, submissions
from batch_assets.core.ledger.records import Batch
from batch_assets.core.ledger.states import BatchState
from batch_assets.core.remedies import ListBatches
from batch_assets.core.results import give_up
from batch_assets.core.root import Root

BATCH_ID_START = "msgbatch_"
"""Every batch id of the API begins with this."""


def cancel(root: Root, target: str, partition: str | None = None) -> CancelReport:
    """Cancel a pipeline or one batch. Repeating it changes nothing.

    Answers that arrived before are kept. Requests that the API cancels, and those that were never sent, are
    `canceled` in the table, and only the next submission sends them again.

    Args:
        root: The root.
        target: The name of a pipeline, or the id of a batch.
        partition: The partition of the pipeline to cancel; `None` for all.

    Raises:
        UnknownTargetError: When the target is neither a pipeline nor a batch of this root.
        SettingsError: When the settings name no API. Nothing was changed.
        EndpointMismatchError: When the root belongs to another API. Nothing was changed.
    """
    with root.ledger.read() as tx:
        is_batch = bool(_ours(tx, [target]))
        known = {submission.pipeline for submission in submissions.all_newest(tx)}
    if is_batch:
        if partition is not None:
            raise UnknownTargetError(f"{target} is a single batch: leave the partition out")
        return cancel_by_ids(root, [target])
    if target not in known and target.startswith(BATCH_ID_START):
        raise _no_batch(root, [target])
    if target not in known:
        raise unknown_pipeline(root, target, known)
    return _cancel_pipeline(root, target, partition)


def cancel_by_ids(root: Root, batch_ids: Sequence[str]) -> CancelReport:
    """Cancel batches, or give them up. Repeating it changes nothing.

    The requests of a batch that was deleted at the API before it was collected are `canceled` in the table, once
    the key is proved to belong to its workspace, and only the next submission sends them again. If the batch was
    adopted on its count alone, later runs look for its request file again instead. If a batch's answers were
    stored and are lost, the next submission sends its requests again too.

    Args:
        root: The root.
        batch_ids: The ids of the batches.

    Raises:
        UnknownTargetError: When one of them is no batch of this root. Nothing was changed.
        SettingsError: When the settings name no API. Nothing was changed.
        EndpointMismatchError: When the root belongs to another API. Nothing was changed.
    """
    with root.ledger.read() as tx:
        ours = _ours(tx, batch_ids)
    if unknown := [id_ for id_ in batch_ids if id_ not in ours]:
        raise _no_batch(root, unknown)
    root.check_endpoint()
    for pipeline in sorted({batch.pipeline for batch in ours.values() if batch.pipeline is not None}):
        root.catch_up(pipeline, wait=leases.PATIENCE)  # their answers may be stored already
    with root.ledger.read() as tx:
        ours |= _ours(tx, batch_ids)
    report = CancelReport()
    to_cancel: list[Batch] = []
    for batch in ours.values():
        if give_up.give_up_answers(root, batch):
            report.answers_given_up.append(batch.id)
        elif not (give_up.may_be_lost(batch) and _is_given_up(root, batch, report)):
            to_cancel.append(batch)
    cancel_batches(root, to_cancel, report)
    return report


def _ours(tx: Transaction, ids: Sequence[str]) -> dict[str, Batch]:
    """Return those of some ids that are batches of this root, in the given order, each once."""
    known = {batch.id: batch for batch in batches.by_ids(tx, ids) if batch.state is not BatchState.FOREIGN}
    return {id_: known[id_] for id_ in ids if id_ in known}


def _no_batch(root: Root, ids: Sequence[str]) -> UnknownTargetError:
    return UnknownTargetError(
        f"the ledger of {root.storage.url} has no batch {', '.join(ids)}. If it belongs to another root, "
        "cancel it there. Cancel any other batch where it was submitted, or in the Console",
        remedy=ListBatches(),
    )


def _cancel_pipeline(root: Root, pipeline: str, partition: str | None) -> CancelReport:
    root.catch_up(pipeline, partition, wait=leases.PATIENCE)
    chosen = submissions_of(root, pipeline, partition)
    root.check_endpoint()
    report = CancelReport()
    with root.ledger.write(pipeline) as tx:
        for submission in chosen:
            current = submissions.by_id(tx, submission.id)
            if current.final_at is None and not current.is_canceled:
                submissions.cancel(tx, submission.id, batches.CANCELED_BY_A_PERSON)
                report.submissions.append(submission.id)
        if report.submissions:
            pilots.look_again(tx, pipeline)
    for submission in chosen:
        finish(root, submission, report)
    return report


def _is_given_up(root: Root, batch: Batch, report: CancelReport) -> bool:
    """Give up a batch that the API does not have, or report why that is impossible.

    Returns:
        False if the API has the batch after all.
    """
    try:
        if workspace.is_there(root, batch.id):
            return False
        give_up.give_up(root, batch, report)
    except (ApiError, ResultsError, MoveRefusedError) as error:  # the move is refused if it was just found again
        report.problems.append(f"{batch.id}: {error}")
    return True
