"""The second stage: request files -> batches, each exactly once.

For each file: take a lease, write the intent with an anchor, POST, write the receipt, record the batch.
What is not certain to have failed is never sent again here: it is reconciled.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from batch_assets.core.api.errors import RATE_LIMITED, NotSentError, RefusedError, UnknownOutcomeError
from batch_assets.core.api.objects import BatchObject
from batch_assets.core.batches.ask_again import plan_again
from batch_assets.core.batches.cancel import finish_canceling, finish_replaced
from batch_assets.core.batches.reconcile import reconcile
from batch_assets.core.batches.split import give_up, split
from batch_assets.core.errors import LeaseLostError, MissingFileError, SubmissionStoppedError, UnreachableError
from batch_assets.core.io.transfers import Progress, Transfers
from batch_assets.core.ledger import Lease, Transaction, batches, files, leases, standstills, submissions
from batch_assets.core.ledger.connection import bind_endpoint
from batch_assets.core.ledger.moves import move
from batch_assets.core.ledger.outcomes import IntentOutcome
from batch_assets.core.ledger.records import RequestFile, Submission
from batch_assets.core.ledger.states import FileMove, FileState
from batch_assets.core.root import Root
from batch_assets.core.store.request_files import StoredRequestFile

# Where the API asks to wait without saying how long.
_BACK_OFF_SECONDS = 60.0
_BAD_REQUEST, _TOO_LARGE = 400, 413
# What the API says of a body that was cut or changed on its way: every line was written as valid JSON.
_GARBLED = "not valid json"


@dataclass
class SubmitReport:
    """What one run of the stage did.

    Attributes:
        submitted: ids of the batches that were submitted or found again in this run.
        planned_again: failed requests that were written into new request files.
        waiting: files left for later -> why; so is "asking again" where a lost file keeps failed requests.
        refused: files the API refused -> its text.
        given_up: files of one request that is too large for the API -> its text; the row is errored.
    """

    submission_id: str
    submitted: list[str] = field(default_factory=list)
    planned_again: int = 0
    waiting: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    given_up: dict[str, str] = field(default_factory=dict)


def submit_batches(
    root: Root,
    pipeline: str,
    partition: str = "",
    *,
    unattended: bool = False,
    on_file: Callable[[RequestFile], None] | None = None,
) -> SubmitReport | None:
    """Submits what the newest submission of a partition waits on and nobody has sent.

    It never sleeps for minutes: what must wait is recorded and left to a later run. Of a canceled submission
    nothing is sent: only what the cancel did not reach is canceled as well.

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
    if submission.is_canceled:
        report.submitted += reconcile(root)
        report.waiting |= finish_canceling(root, submission)
        return report
    with leases.mark(root.ledger, submissions.sending_name(submission.id)):
        _submit(root, submission, report, unattended, on_file)
    report.waiting |= finish_replaced(root, submission)
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
    try:
        report.planned_again = plan_again(root, submission)
    except MissingFileError as error:  # what else there is to send and to collect does not wait for a person
        report.waiting["asking again"] = str(error)
        with root.ledger.write() as tx:
            standstills.note(tx, submission.id, str(error))
    report.submitted += reconcile(root)
    _send(root, submission, report, on_file)
    if any(file.state is FileState.UNRESOLVED for file in _waited_on(root, submission)):
        report.submitted += reconcile(root)
    for file in _waited_on(root, submission):
        if file.state.in_doubt:
            report.waiting[file.id] = file.error or "another process is sending it"


def _send(
    root: Root, submission: Submission, report: SubmitReport, on_file: Callable[[RequestFile], None] | None
) -> None:
    """Sends what is ready, several files at a time: never two of as many requests, so that none that are lost
    look alike.
    """
    reports: dict[str, SubmitReport] = {}

    def send(file: RequestFile, progress: Progress) -> list[RequestFile]:
        own = reports[file.id] = SubmitReport(submission.id)
        return _Sending(root, submission, file, own).run(progress)

    sending = Transfers(
        root.settings.transfers,
        send,
        before=on_file or (lambda _: None),
        apart=lambda file: file.requests,
    )
    sending.run(_sendable(root, submission))
    for _, own in sorted(reports.items()):
        report.submitted += own.submitted
        report.waiting |= own.waiting
        report.refused |= own.refused
        report.given_up |= own.given_up


def _waited_on(root: Root, submission: Submission) -> list[RequestFile]:
    with root.ledger.read() as tx:
        return submissions.waited_on(tx, submission.id)


def _sendable(root: Root, submission: Submission) -> list[RequestFile]:
    return [file for file in _waited_on(root, submission) if file.state.sendable]


class _Sending:
    """One request file on its way."""

    def __init__(self, root: Root, submission: Submission, file: RequestFile, report: SubmitReport) -> None:
        self._root, self._submission, self._file, self._report = root, submission, file, report
        self._stored = StoredRequestFile.of(root.storage, file)

    def run(self, progress: Progress) -> list[RequestFile]:
        """Sends it, once more at once where its body was garbled on the way.

        Args:
            progress: told before each chunk; it may raise, and the body stays unfinished.

        Returns:
            The files to send in its place, because it is too large.
        """
        lease = leases.try_take(self._root.ledger, files.lease_name(self._file.id))
        if lease is None:
            self._report.waiting[self._file.id] = "another process is sending it"
            return []
        try:
            send = self._file.state is FileState.READY
            while send:
                intent_id = self._intend(lease)
                send = intent_id is not None and self._send(lease, intent_id, progress)
            return self._relieve(lease)
        except LeaseLostError as error:
            self._report.waiting[self._file.id] = str(error)
            return []
        finally:
            lease.release()

    def _relieve(self, lease: Lease) -> list[RequestFile]:
        """Cuts the file in two if it is too large; a single request that is has its answer."""
        with self._root.ledger.read() as tx:
            file = files.by_id(tx, self._file.id)
        if file.state is not FileState.TOO_LARGE:
            return []
        if file.requests > 1:
            return split(self._root, file, lease)
        give_up(self._root, file, lease)
        self._report.given_up[file.id] = file.error or ""
        return []

    def _intend(self, lease: Lease) -> int | None:
        """Writes the intent, unless the file has to wait."""
        with self._root.ledger.read() as tx:
            if self._has_to_wait(tx):
                return None
        try:
            anchor = self._root.api.newest()
        except RefusedError as error:
            if error.status == RATE_LIMITED and not error.stop:
                self._put_off(lease, None, error)
                return None
            raise self._stop(lease, None, error) from None
        except (NotSentError, UnknownOutcomeError) as error:
            raise UnreachableError(f"{self._root.api.base_url} cannot be reached: {error}") from None
        with self._root.ledger.write() as tx:
            lease.confirm(tx)
            bind_endpoint(tx, self._root.api.base_url, self._root.api.organization)
            if self._has_to_wait(tx):
                return None
            found = (anchor.id, anchor.created_at) if anchor is not None else (None, None)
            return files.intend(tx, files.by_id(tx, self._file.id), *found)

    def _has_to_wait(self, tx: Transaction) -> bool:
        file = files.by_id(tx, self._file.id)
        if file.state is not FileState.READY or submissions.by_id(tx, self._submission.id).is_canceled:
            return True
        if file.not_before > tx.now:
            why = f"the API asked to wait {file.not_before - tx.now:.0f} s more: {file.error}"
        elif (twin := files.twin_in_doubt(tx, file)) is not None:
            why = f"{twin.file_id}, of as many requests, is in doubt"
        else:
            return False
        self._report.waiting[file.id] = why
        return True

    def _send(self, lease: Lease, intent_id: int, progress: Progress) -> bool:
        """Whether to send the file once more at once."""

        def before_chunk() -> None:
            lease.check()
            progress(0)  # how far it is is shown to nobody

        with self._root.ledger.read() as tx:
            headers = files.headers_of(tx, self._file)
        try:
            seen = self._root.api.create(self._stored.body(before_chunk), self._file.bytes, headers)
        except RefusedError as error:
            return self._refused(lease, intent_id, error)
        except NotSentError as error:
            with self._root.ledger.write() as tx:
                self._back_to_ready(tx, lease, intent_id, str(error), 0.0)
            raise UnreachableError(f"{self._root.api.base_url} cannot be reached: {error}") from None
        except UnknownOutcomeError as error:
            self._in_doubt(lease, intent_id, str(error))
        except FileNotFoundError:
            text = f"the request file is gone: materialize {self._file.pipeline}/requests again"
            self._move(lease, FileMove.REFUSE, intent_id, text)
        else:
            self._accepted(lease, intent_id, seen)
        return False

    def _accepted(self, lease: Lease, intent_id: int, seen: BatchObject) -> None:
        api, problem = self._root.api, None
        try:
            self._stored.write_receipt(seen, self._file.attempt, api.base_url, api.organization)
        except Exception as error:  # a full disk, an object store away: the ledger may still take the id
            problem = error
        with self._root.ledger.write() as tx:
            lease.confirm(tx)
            files.settle(tx, intent_id, IntentOutcome.ACCEPTED, last_byte_at=tx.now)
            batches.accept(tx, self._file.id, intent_id, seen, provisional=False, reason="the API accepted it")
        self._report.submitted.append(seen.id)
        if problem is not None:
            raise problem

    def _in_doubt(self, lease: Lease, intent_id: int, text: str) -> None:
        with self._root.ledger.write() as tx:
            lease.confirm(tx)
            files.settle(tx, intent_id, IntentOutcome.UNRESOLVED, last_byte_at=tx.now)
            move(tx, FileMove.DOUBT, self._file.id, text, error=text)

    def _back_to_ready(
        self, tx: Transaction, lease: Lease, intent_id: int | None, text: str, not_before: float
    ) -> None:
        lease.confirm(tx)
        if intent_id is not None:
            files.settle(tx, intent_id, IntentOutcome.NOT_SENT)
        move(tx, FileMove.WAIT, self._file.id, text, error=text, not_before=not_before)

    def _put_off(self, lease: Lease, intent_id: int | None, error: RefusedError) -> None:
        """Lets this file and those behind it wait: an upload each would only be told the same."""
        seconds = error.retry_after if error.retry_after is not None else _BACK_OFF_SECONDS
        with self._root.ledger.write() as tx:
            until = tx.now + seconds
            self._back_to_ready(tx, lease, intent_id, str(error), until)
            files.put_off(tx, submissions.waited_on(tx, self._submission.id), until, str(error))
        self._report.waiting[self._file.id] = str(error)

    def _refused(self, lease: Lease, intent_id: int, error: RefusedError) -> bool:
        """Whether to send the file once more at once."""
        text = str(error)
        if error.stop:
            raise self._stop(lease, intent_id, error)
        if error.status == RATE_LIMITED:
            self._put_off(lease, intent_id, error)
        elif error.status == _TOO_LARGE:
            self._move(lease, FileMove.EXCEED, intent_id, text)
        elif error.status == _BAD_REQUEST and _GARBLED in text.lower() and not self._was_garbled():
            why = f"{text}; sent once more"
            self._move(lease, FileMove.RESEND, intent_id, why, outcome=IntentOutcome.GARBLED)
            return True
        else:
            self._move(lease, FileMove.REFUSE, intent_id, text)
        return False

    def _was_garbled(self) -> bool:
        with self._root.ledger.read() as tx:
            return any(intent.outcome is IntentOutcome.GARBLED for intent in files.of_file(tx, self._file.id))

    def _move(
        self,
        lease: Lease,
        step: FileMove,
        intent_id: int,
        text: str,
        outcome: IntentOutcome = IntentOutcome.REFUSED,
    ) -> None:
        with self._root.ledger.write() as tx:
            lease.confirm(tx)
            files.settle(tx, intent_id, outcome)
            move(tx, step, self._file.id, text, error=text)
        if step is FileMove.REFUSE:
            # Its requests are free to be built anew; those of a stopped or too large file are kept.
            self._report.refused[self._file.id] = text

    def _stop(self, lease: Lease, intent_id: int | None, error: RefusedError) -> SubmissionStoppedError:
        """Stops this file and those behind it, so that nobody asks again before a person has mended it."""
        text = str(error)
        with self._root.ledger.write() as tx:
            lease.confirm(tx)
            if intent_id is not None:
                files.settle(tx, intent_id, IntentOutcome.REFUSED)
            move(tx, FileMove.STOP, self._file.id, text, error=text)
            files.stop_ready(tx, submissions.waited_on(tx, self._submission.id), text)
        return SubmissionStoppedError(
            f"{self._root.api.base_url} refused: {text}. The request files are kept: mend it and materialize "
            f"{self._file.pipeline}/batches again."
        )
