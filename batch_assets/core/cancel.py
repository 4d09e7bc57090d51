"""Canceling: open batches are ended at the API, and what lies unsent is not sent any more.

The ledger notes it on the submission before the first call goes out. What the calls do not reach (the API was
away, an upload was under way or in doubt) is canceled by later runs, a person's or the sensor's.
"""

from __future__ import annotations

from collections.abc import Iterable

from batch_assets.core.api.errors import ApiError
from batch_assets.core.batches import workspace
from batch_assets.core.batches.cancel import CancelReport, cancel_batches, finish
from batch_assets.core.errors import BatchAssetsError, MoveRefusedError, ResultsError
from batch_assets.core.ledger import batches, submissions
from batch_assets.core.ledger.records import Batch
from batch_assets.core.ledger.states import BatchState
from batch_assets.core.results import give_up
from batch_assets.core.root import Root

# Every batch id of the API begins with it.
_BATCH_ID = "msgbatch_"


class UnknownTargetError(BatchAssetsError):
    """The ledger knows nothing of that name that could be canceled."""


def cancel(root: Root, target: str, partition: str | None = None) -> CancelReport:
    """Cancels a pipeline or one batch. Repeating it changes nothing.

    Answers that arrived before are kept. Requests that the API cancels, and those that were never sent, are
    `canceled` in the table, and asked by the next submission only. So are those of a batch given by its id
    that was deleted at the API before it was collected, once the key is proved to be of its workspace.

    Args:
        target: name of a pipeline, or id of a batch.
        partition: of a pipeline the one partition to cancel; None for all.

    Errors:
        UnknownTargetError: neither a pipeline nor a batch of this root; says what to do.
        SettingsError, EndpointMismatchError: nothing was changed.
    """
    with root.ledger.read() as tx:
        batch = batches.by_id(tx, target)
        known = {submission.pipeline for submission in submissions.all_newest(tx)}
    if batch is not None and batch.state is not BatchState.FOREIGN:
        if partition is not None:
            raise UnknownTargetError(f"{target} is one batch: leave the partition out")
        root.check_endpoint()
        report = CancelReport()
        if not (give_up.may_be_lost(batch) and _is_given_up(root, batch, report)):
            cancel_batches(root, [batch], report)
        return report
    if target not in known:
        raise UnknownTargetError(_unknown(root, target, known))
    return _cancel_pipeline(root, target, partition)


def _unknown(root: Root, target: str, known: Iterable[str]) -> str:
    if target.startswith(_BATCH_ID):
        return (
            f"the ledger of {root.storage.url} has no batch {target}. `batch-assets list` shows the workspace's "
            "batches and which of them are this root's; for one of another root set BATCH_ASSETS_ROOT to that; "
            "any other is canceled where it was submitted, or in the Console"
        )
    names = ", ".join(sorted(known)) or "none"
    return f"nothing was submitted for a pipeline {target!r} in {root.storage.url}; pipelines there: {names}"


def _cancel_pipeline(root: Root, pipeline: str, partition: str | None) -> CancelReport:
    with root.ledger.read() as tx:
        in_force = submissions.all_newest(tx, pipeline)
    chosen = [s for s in in_force if partition in (None, s.partition)]
    if not chosen:
        names = ", ".join(sorted(s.partition or "(none)" for s in in_force))
        raise UnknownTargetError(f"{pipeline} has no partition {partition!r}; partitions submitted: {names}")
    root.check_endpoint()
    report = CancelReport()
    with root.ledger.write() as tx:
        for submission in chosen:
            now = submissions.by_id(tx, submission.id)
            if now.final_at is None and not now.is_canceled:
                submissions.cancel(tx, submission.id, batches.CANCELED_BY_A_PERSON)
                report.submissions.append(submission.id)
    for submission in chosen:
        finish(root, submission, report)
    return report


def _is_given_up(root: Root, batch: Batch, report: CancelReport) -> bool:
    """Gives a batch up that the API does not have, or says why not; False when the API has it after all."""
    try:
        if workspace.is_there(root, batch.id):
            return False
        problem = give_up.give_up(root, batch)
    except (ApiError, ResultsError, MoveRefusedError) as error:  # it may have been found again just now
        problem = f"{batch.id}: {error}"
    if problem is None:
        report.given_up.append(batch.id)
    else:
        report.problems.append(problem)
    return True
