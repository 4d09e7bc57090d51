"""Cancel batches at the API, and request files that were not sent yet.

Later runs, of a user or of the sensor, cancel what the calls do not reach: the API was unavailable, or an upload
was running or in doubt.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from batch_assets.core.api.errors import ApiError, NotFoundError, NotSentError, RefusedError
from batch_assets.core.api.objects import BatchObject
from batch_assets.core.batches import workspace
from batch_assets.core.ledger import Transaction, batches, files, leases, submissions
from batch_assets.core.ledger.moves import move
from batch_assets.core.ledger.records import Batch, RequestFile, Submission
from batch_assets.core.ledger.states import BATCHES_UNENDED, BatchState, FileMove, FileState
from batch_assets.core.remedies import CancelBatch, Remedy
from batch_assets.core.root import Root


@dataclass
class CancelReport:
    """Report of a cancel.

    Attributes:
        canceled: Ids of the batches that the API is ending now.
        ended: Ids of the batches that had ended before. Their answers are collected as usual.
        unsent: Ids of the request files that will not be sent.
        in_doubt: Ids of request files that may be at the API or are being sent -> what happens to them next.
        shared: Ids of batches and request files left as they are, because another partition waits on them.
        problems: The problems, as text. A later run tries again.
        remedies: What the user can do about the problems.
        given_up: Ids of the batches that were deleted at the API. Their requests are canceled.
        disproved: Ids of the batches that are gone and were adopted on their count alone. Later runs look for
            their request files at the API again.
        answers_given_up: Ids of the batches whose answers were stored and are lost.
        submissions: Ids of the submissions that were not complete. Nothing more of them is sent.
    """

    canceled: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    unsent: list[str] = field(default_factory=list)
    in_doubt: dict[str, str] = field(default_factory=dict)
    shared: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    remedies: list[Remedy] = field(default_factory=list)
    given_up: list[str] = field(default_factory=list)
    disproved: list[str] = field(default_factory=list)
    answers_given_up: list[str] = field(default_factory=list)
    submissions: list[str] = field(default_factory=list)

    def done(self) -> Iterator[str]:
        """Describe what was canceled, one line each."""
        for batch_id in self.canceled:
            yield f"{batch_id}: the API is ending it; answers that exist by then are kept"
        for batch_id in self.ended:
            yield f"{batch_id}: it had already ended; its answers are kept"
        for batch_id in self.given_up:
            yield (
                f"{batch_id}: it was deleted at the API; its requests are given up, and the next run sends them "
                "again"
            )
        for batch_id in self.disproved:
            yield (
                f"{batch_id}: it was adopted on its count alone, and is given up; later runs look for its request "
                "file again"
            )
        for batch_id in self.answers_given_up:
            yield f"{batch_id}: its answers are given up, and the next run sends its requests again"
        for file_id in self.unsent:
            yield f"{file_id}: it will not be sent"
        for submission_id in self.submissions:
            yield f"{submission_id}: nothing more of this submission will be sent"

    def left(self) -> Iterator[str]:
        """Describe what is left as it is for now, one line each. Problems are not part of it."""
        for file_id, outlook in self.in_doubt.items():
            yield f"{file_id}: {outlook}"
        for name in self.shared:
            yield f"{name}: left as it is, another partition waits on it"


def cancel_batches(root: Root, to_end: list[Batch], report: CancelReport) -> None:
    """Ask the API to end batches, one after the other, and note in the report what became of each."""
    for batch in to_end:
        if not batch.state.unended:
            report.ended.append(batch.id)
            continue
        try:
            reported = _cancel_batch(root, batch)
        except NotFoundError:
            report.problems.append(
                f"{batch.id}: {root.api.base_url} answers 404. {workspace.WHOSE_KEY} If not, set a key of that "
                "workspace and cancel again"
            )
            report.remedies.append(CancelBatch(batch.id, batch.pipeline or ""))
            continue
        except NotSentError as error:
            report.problems.append(f"{batch.id} and all after it: {root.api.base_url} cannot be reached: {error}")
            return
        except ApiError as error:
            report.problems.append(f"{batch.id}: {error}")
            continue
        with root.ledger.write(batch.pipeline) as tx:
            batches.observe(tx, batch, reported, tx.now + root.settings.first_poll, is_cancel=True)
        # Another process of ours may have been faster; the batch counts as canceled all the same.
        had_ended = reported.ended and not reported.request_counts["canceled"]
        (report.ended if had_ended else report.canceled).append(batch.id)


def _cancel_batch(root: Root, batch: Batch) -> BatchObject:
    try:
        return root.api.cancel(batch.id)
    except RefusedError as refused:
        reported = root.api.retrieve(batch.id)
        if not reported.ended:
            raise refused from None
        return reported


def finish_canceling(root: Root, submission: Submission) -> CancelReport:
    """Cancel what has turned up of a canceled submission since."""
    report = CancelReport()
    finish(root, submission, report)
    return report


def finish_replaced(root: Root, submission: Submission) -> CancelReport:
    """Cancel batches of canceled submissions that this one has replaced.

    These are batches that the cancel did not reach, and that no submission waits on now.
    """
    report = CancelReport()
    with root.ledger.read() as tx:
        open_batches = batches.in_state(tx, BatchState.OPEN, pipeline=submission.pipeline)
        # Automatically, only a batch that the reply to its own create named is canceled.
        candidates = [batch for batch in open_batches if _is_in_progress(batch) and batch.replied]
        if not candidates:
            return report
        canceled = submissions.waited_on_in_vain(tx, submission)
        wanted = {file.id for file in submissions.waited_on(tx, submission.id)}
        wanted |= submissions.wanted_by_others(tx, submission.pipeline, submission.partition)
    cancel_batches(root, [batch for batch in candidates if batch.file_id in canceled - wanted], report)
    return report


def _is_in_progress(batch: Batch) -> bool:
    return batch.state is BatchState.OPEN and batch.processing_status == "in_progress"


def finish(root: Root, submission: Submission, report: CancelReport) -> None:
    """Cancel what is in flight for a canceled submission, as far as it can be reached now."""
    with root.ledger.write(submission.pipeline) as tx:
        unshared, shared = _files_in_flight(tx, submission)
        unsent = [file.id for file in shared if file.state is not FileState.SUBMITTED]
        report.shared += [file_id for file_id in unsent if file_id not in report.shared]
        for file in unshared:
            if file.state.unsent:
                move(tx, FileMove.CANCEL, file.id, batches.CANCELED_BY_A_PERSON)
                report.unsent.append(file.id)
            elif file.state.in_doubt:
                report.in_doubt[file.id] = _doubt(tx, file)
            elif any(batch.provisional for batch in batches.of_file(tx, file.id)):
                report.in_doubt[file.id] = "its batch may belong to someone else, so it is left to run"
        to_end, shared_batches = _open_batches(tx, submission)
        report.shared += [batch.id for batch in shared_batches if batch.id not in report.shared]
    done = {*report.canceled, *report.ended}  # for another partition that waits on it
    cancel_batches(root, [batch for batch in to_end if batch.id not in done], report)


def _doubt(tx: Transaction, file: RequestFile) -> str:
    if leases.is_held(tx, files.lease_name(file.id)):
        return "it is being sent at this moment: a later run or a second cancel will cancel its batch"
    return "in doubt: a batch found by its count alone may belong to someone else, so it is left to run"


def _files_in_flight(tx: Transaction, submission: Submission) -> tuple[list[RequestFile], list[RequestFile]]:
    """Return files in flight that a partition's rows wait on or that were written for it: (its own, shared)."""
    waited = {file.id for file in submissions.waited_on(tx, submission.id)}
    others = submissions.wanted_by_others(tx, submission.pipeline, submission.partition)
    in_flight = submissions.files_in_flight(tx, submission.pipeline)
    related = [file for file in in_flight if file.partition == submission.partition or file.id in waited]
    return [f for f in related if f.id not in others], [f for f in related if f.id in others]


def _open_batches(tx: Transaction, submission: Submission) -> tuple[list[Batch], list[Batch]]:
    """Return the unended batches of such files: (its own, shared). Files that were sent again count too."""
    waited = {file.id for file in submissions.waited_on(tx, submission.id)}
    others = submissions.wanted_by_others(tx, submission.pipeline, submission.partition)
    candidates = [
        batch
        for batch in batches.in_state(tx, *BATCHES_UNENDED, pipeline=submission.pipeline)
        # A batch matched by its count alone may be someone else's: it is left to run until its results prove it.
        if batch.file_id is not None
        and not batch.provisional
        and (batch.file_id in waited or files.by_id(tx, batch.file_id).partition == submission.partition)
    ]
    return [b for b in candidates if b.file_id not in others], [b for b in candidates if b.file_id in others]
