"""The second stage: request files -> batches, each exactly once.

For each file: take a lease, write the intent with an anchor, POST, write the receipt, record the batch.
What is not certain to have failed is never sent again here: it is reconciled.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from batch_assets.core.client import NotSentError, RefusedError, UnknownOutcomeError
from batch_assets.core.errors import LeaseLostError, SubmissionStoppedError, UnreachableError
from batch_assets.core.ledger import Lease, batches, files, leases, submissions
from batch_assets.core.ledger.connection import bind_endpoint
from batch_assets.core.ledger.records import RequestFile, Submission
from batch_assets.core.reconcile import reconcile
from batch_assets.core.request_files import StoredRequestFile
from batch_assets.core.retry import plan_again
from batch_assets.core.root import Root
from batch_assets.core.wire import BatchObject

# Where the API asks to wait without saying how long.
_BACK_OFF_SECONDS = 60.0
_RATE_LIMITED = 429


@dataclass
class SubmitReport:
    """What one run of the stage did.

    Attributes:
        submitted: ids of the batches that were submitted or found again in this run.
        planned_again: failed requests that were written into new request files.
        waiting: files left for later -> why.
        refused: files the API refused -> its text.
    """

    submission_id: str
    submitted: list[str] = field(default_factory=list)
    planned_again: int = 0
    waiting: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)


def submit_batches(
    root: Root,
    pipeline: str,
    partition: str = "",
    *,
    unattended: bool = False,
    on_file: Callable[[RequestFile], None] | None = None,
) -> SubmitReport | None:
    """Submits what the newest submission of a partition waits on and nobody has sent.

    It never sleeps for minutes: what must wait is recorded and left to a later run.

    Args:
        unattended: the sensor asks, not a person. A person's run also tries files again that were stopped
            by a refusal only a person can mend.
        on_file: told of each file before it is sent.

    Returns:
        None when nothing was ever written for the partition.

    Errors:
        SettingsError, EndpointMismatchError: before anything is sent.
        SubmissionStoppedError: a refusal that only a person can mend; the files are kept, run again.
        UnreachableError: no connection; nothing was sent.
    """
    with root.ledger.read() as tx:
        submission = submissions.newest(tx, pipeline, partition)
    if submission is None:
        return None
    report = SubmitReport(submission.id)
    if submission.requests == 0:
        with root.ledger.write() as tx:
            submissions.began(tx, submission.id)
        return report
    root.check_endpoint()
    with leases.mark(root.ledger, submissions.sending_name(submission.id)):
        _submit(root, submission, report, unattended, on_file)
    return report


def _submit(
    root: Root,
    submission: Submission,
    report: SubmitReport,
    unattended: bool,
    on_file: Callable[[RequestFile], None] | None,
) -> None:
    with root.ledger.write() as tx:
        submissions.began(tx, submission.id)
        if not unattended:
            files.give_back_stopped(tx, submissions.waited_on(tx, submission.id), "asked for again")
    report.planned_again = plan_again(root, submission)
    report.submitted += reconcile(root)
    for file in _sendable(root, submission):
        if on_file is not None:
            on_file(file)
        _Sending(root, submission, file, report).run()
    if any(file.state == "unresolved" for file in _waited_on(root, submission)):
        report.submitted += reconcile(root)
    for file in _waited_on(root, submission):
        if file.state in ("sending", "unresolved"):
            report.waiting[file.id] = file.error or "another process is sending it"


def _waited_on(root: Root, submission: Submission) -> list[RequestFile]:
    with root.ledger.read() as tx:
        return submissions.waited_on(tx, submission.id)


def _sendable(root: Root, submission: Submission) -> list[RequestFile]:
    return [file for file in _waited_on(root, submission) if file.state == "ready"]


class _Sending:
    """One request file on its way."""

    def __init__(self, root: Root, submission: Submission, file: RequestFile, report: SubmitReport) -> None:
        self._root, self._submission, self._file, self._report = root, submission, file, report
        self._stored = StoredRequestFile.of(root, file)

    def run(self) -> None:
        lease = leases.try_take(self._root.ledger, files.lease_name(self._file.id))
        if lease is None:
            self._report.waiting[self._file.id] = "another process is sending it"
            return
        try:
            intent_id = self._intend(lease)
            if intent_id is not None:
                self._send(lease, intent_id)
        except LeaseLostError as error:
            self._report.waiting[self._file.id] = str(error)
        finally:
            lease.release()

    def _intend(self, lease: Lease) -> int | None:
        """Writes the intent, unless the file has to wait."""
        try:
            anchor = self._root.api.newest()
        except RefusedError as error:
            raise self._stopped(error) from None
        except (NotSentError, UnknownOutcomeError) as error:
            raise UnreachableError(f"{self._root.api.base_url} cannot be reached: {error}") from None
        with self._root.ledger.write() as tx:
            lease.confirm(tx)
            bind_endpoint(tx, self._root.api.base_url, self._root.api.organization)
            file = files.by_id(tx, self._file.id)
            if file.state != "ready":
                return None
            why = None
            if file.not_before > tx.now:
                why = f"the API asked to wait {file.not_before - tx.now:.0f} s more: {file.error}"
            elif (twin := files.twin_in_doubt(tx, file)) is not None:
                why = f"{twin.file_id}, of as many requests, is in doubt"
            if why is not None:
                self._report.waiting[file.id] = why
                return None
            return files.intend(tx, file, anchor.id if anchor else None, anchor.created_at if anchor else None)

    def _send(self, lease: Lease, intent_id: int) -> None:
        try:
            seen = self._root.api.create(
                self._stored.body(lease.check), self._file.bytes, self._submission.header_map
            )
        except RefusedError as error:
            self._refused(lease, intent_id, error)
        except NotSentError as error:
            self._back_to_ready(lease, intent_id, str(error), 0.0)
            raise UnreachableError(f"{self._root.api.base_url} cannot be reached: {error}") from None
        except UnknownOutcomeError as error:
            self._in_doubt(lease, intent_id, str(error))
        except FileNotFoundError:
            text = f"the request file is gone: materialize {self._file.pipeline}/requests again"
            self._give_up(lease, intent_id, "refused", text)
        else:
            self._accepted(lease, intent_id, seen)

    def _accepted(self, lease: Lease, intent_id: int, seen: BatchObject) -> None:
        api = self._root.api
        self._stored.write_receipt(seen, self._file.attempt, api.base_url, api.organization)
        with self._root.ledger.write() as tx:
            lease.confirm(tx)
            files.settle(tx, intent_id, "accepted", last_byte_at=tx.now)
            batches.accept(tx, self._file.id, intent_id, seen, provisional=False, reason="the API accepted it")
        self._report.submitted.append(seen.id)

    def _in_doubt(self, lease: Lease, intent_id: int, text: str) -> None:
        with self._root.ledger.write() as tx:
            lease.confirm(tx)
            files.settle(tx, intent_id, "unresolved", last_byte_at=tx.now)
            files.move(tx, self._file.id, ("sending",), "unresolved", text, error=text)

    def _back_to_ready(self, lease: Lease, intent_id: int, text: str, seconds: float) -> None:
        with self._root.ledger.write() as tx:
            lease.confirm(tx)
            files.settle(tx, intent_id, "not_sent")
            not_before = tx.now + seconds
            files.move(tx, self._file.id, ("sending",), "ready", text, error=text, not_before=not_before)

    def _refused(self, lease: Lease, intent_id: int, error: RefusedError) -> None:
        text = str(error)
        if error.status == _RATE_LIMITED and not error.stop:
            seconds = error.retry_after if error.retry_after is not None else _BACK_OFF_SECONDS
            self._back_to_ready(lease, intent_id, text, seconds)
            self._report.waiting[self._file.id] = text
            return
        # A stopped file keeps its requests for later; those of a refused one are free to be built anew.
        self._give_up(lease, intent_id, "stopped" if error.stop else "refused", text)
        if error.stop:
            raise self._stopped(error)

    def _give_up(self, lease: Lease, intent_id: int, state: str, text: str) -> None:
        with self._root.ledger.write() as tx:
            lease.confirm(tx)
            files.settle(tx, intent_id, "refused")
            files.move(tx, self._file.id, ("sending",), state, text, error=text)
        if state == "refused":
            self._report.refused[self._file.id] = text

    def _stopped(self, error: RefusedError) -> SubmissionStoppedError:
        return SubmissionStoppedError(
            f"{self._root.api.base_url} refused: {error}. The request files are kept: mend it and materialize "
            f"{self._file.pipeline}/batches again."
        )
