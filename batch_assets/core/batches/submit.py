"""The second stage: submit each request file as a batch, exactly once.

For each file: take a lease, write the intent with an anchor, POST, write the receipt, record the batch.
A POST that may have been accepted is never repeated here: its file is reconciled.
"""

from __future__ import annotations

from collections.abc import Callable

from batch_assets.core.batches import workspace
from batch_assets.core.batches.ask_again import plan_again
from batch_assets.core.batches.cancel import finish_canceling, finish_replaced
from batch_assets.core.batches.reconcile import reconcile
from batch_assets.core.batches.submit_report import SubmitReport
from batch_assets.core.batches.upload import Upload
from batch_assets.core.errors import (
    DamagedFileError,
    MissingFileError,
)
from batch_assets.core.io.pace import SLOW_LINE, Pace
from batch_assets.core.io.transfers import Progress, Transfers
from batch_assets.core.ledger import files, leases, standstills, submissions
from batch_assets.core.ledger.records import RequestFile, Submission
from batch_assets.core.ledger.shared_line import SharedLine
from batch_assets.core.ledger.states import FileState
from batch_assets.core.remedies import ConfirmWorkspace, RunStage, Stage
from batch_assets.core.root import Root


def submit_batches(
    root: Root,
    pipeline: str,
    partition: str = "",
    *,
    unattended: bool = False,
    seconds: float | None = None,
    on_file: Callable[[RequestFile], None] | None = None,
) -> SubmitReport | None:
    """Submit the unsent request files that the newest submission of a partition waits on.

    This never sleeps for minutes: what must wait is recorded and left to a later run. For a canceled submission
    nothing is sent; what the cancel did not reach is canceled.

    Args:
        root: The root.
        pipeline: The name of the pipeline.
        partition: The partition key; "" without partitions.
        unattended: The sensor started the run, not a user. A user's run also retries files that were stopped by a
            refusal that only a user can fix.
        seconds: The time that the run has left; `None` for no limit. Files that cannot be sent within it are left
            for later.
        on_file: Called with each file before it is sent.

    Returns:
        `None` if nothing was ever written for the partition.

    Raises:
        SettingsError: When the settings name no API. Nothing was sent.
        EndpointMismatchError: When the root belongs to another API. Nothing was sent.
        PairingError: When the pipeline has lost its files. Nothing was sent.
        BusyError: When the ledger is older than the files, and others worked on the pipeline's requests the whole
            time. Nothing was sent.
        SubmissionStoppedError: When the API refuses for a reason that only a user can fix. The files are kept for
            another run.
        UnreachableError: When there is no connection. Nothing was sent.
    """
    before = _newest(root, pipeline, partition)
    root.catch_up(pipeline, partition, wait=leases.PATIENCE)  # another process may be adding what is missing
    submission = _newest(root, pipeline, partition)
    if submission is None:
        return None
    report = SubmitReport(submission.id)
    is_new = before is not None and before.id != submission.id
    if unattended and submission.began_at is None and (is_new or _is_untouched(root, submission)):
        return report  # built since the run was requested, or just found: a user has to start sending it
    if submission.requests == 0:
        with root.ledger.write(pipeline) as tx:
            submissions.began(tx, submission.id)
        return report
    root.check_endpoint()
    if submission.is_canceled:
        report.submitted += reconcile(root)
        report.left_by(finish_canceling(root, submission), f"cancel of {submission.id}")
        return report
    root.check_files(pipeline)
    with leases.mark(root.ledger, submissions.sending_name(submission.id), pipeline):
        _submit(root, submission, report, unattended, seconds, on_file)
    report.left_by(finish_replaced(root, submission), "cancel of what was replaced")
    return report


def _newest(root: Root, pipeline: str, partition: str) -> Submission | None:
    with root.ledger.read() as tx:
        return submissions.newest(tx, pipeline, partition)


def _is_untouched(root: Root, submission: Submission) -> bool:
    """Whether a submission has request files of its own, and no run has begun to send one."""
    with root.ledger.read() as tx:
        states = files.states_of(tx, [submission.id])[submission.id]
    return set(states.values()) == {FileState.READY}


def _submit(
    root: Root,
    submission: Submission,
    report: SubmitReport,
    unattended: bool,
    seconds: float | None,
    on_file: Callable[[RequestFile], None] | None,
) -> None:
    with root.ledger.write(submission.pipeline) as tx:
        submissions.began(tx, submission.id)
        if not unattended:
            files.give_back_stopped(tx, submissions.waited_on(tx, submission.id), "run again by a user")
        may_be_of_other_keys = files.unproved_keys(tx, root.key_hash)
    if not may_be_of_other_keys:  # whatever a lost ledger would put in doubt from now on is sent with this key
        root.note_key()
    try:
        report.planned_again, lost = plan_again(root, submission)
    except (MissingFileError, DamagedFileError) as error:  # the rest goes on without waiting for a user
        lost = [str(error)]
        with root.ledger.write(submission.pipeline) as tx:
            standstills.note(tx, submission.id, str(error))
    if lost:
        report.waiting["retries"] = "; ".join(lost)
        report.remedies.append(RunStage(Stage.REQUESTS, submission.pipeline, submission.partition))
    report.submitted += reconcile(root)
    _send(root, submission, report, seconds, on_file)
    if any(file.state is FileState.UNRESOLVED for file in _waited_on(root, submission)):
        report.submitted += reconcile(root)
    for file in _waited_on(root, submission):
        if file.state.in_doubt:
            report.waiting[file.id] = file.error or "another process is sending it"
    confirm = ConfirmWorkspace(submission.pipeline, submission.partition)
    if confirm not in report.remedies and any(
        _needs_confirmation(root, file) for file in _waited_on(root, submission)
    ):
        report.remedies.append(confirm)


def _needs_confirmation(root: Root, file: RequestFile) -> bool:
    intent = workspace.current_intent(root, file.id) if file.state is FileState.UNRESOLVED else None
    return intent is not None and workspace.needs_confirmation(root, intent)


def _send(
    root: Root,
    submission: Submission,
    report: SubmitReport,
    seconds: float | None,
    on_file: Callable[[RequestFile], None] | None,
) -> None:
    """Send the files that are ready, several at a time.

    Two files with the same request count are never sent at once, so that lost batches can be distinguished.
    """
    reports: dict[str, SubmitReport] = {}

    def send(file: RequestFile, progress: Progress) -> list[RequestFile]:
        file_report = reports[file.id] = SubmitReport(submission.id)
        return Upload(root, submission, file, file_report).run(progress)

    sendable = _sendable(root, submission)
    if not sendable:
        return
    with SharedLine(root.ledger, submission.pipeline).used() as line:
        sending = Transfers(
            root.settings.transfers,
            send,
            before=on_file or (lambda _: None),
            apart=lambda file: file.requests,
            pace=Pace(seconds, lambda file: file.bytes, bytes_per_weight=1.0, line=line),
        )
        sending.run(sendable)
    for _, file_report in sorted(reports.items()):
        report.submitted += file_report.submitted
        report.waiting |= file_report.waiting
        report.refused |= file_report.refused
        report.given_up |= file_report.given_up
        report.remedies += [remedy for remedy in file_report.remedies if remedy not in report.remedies]
    report.waiting |= {file.id: SLOW_LINE for file in sending.left}


def _waited_on(root: Root, submission: Submission) -> list[RequestFile]:
    with root.ledger.read() as tx:
        return submissions.waited_on(tx, submission.id)


def _sendable(root: Root, submission: Submission) -> list[RequestFile]:
    return [file for file in _waited_on(root, submission) if file.state.sendable]
