"""The second stage: submit each request file as a batch, exactly once.

For each file: take a lease, write the intent with an anchor, POST, write the receipt, record the batch.
A POST that may have been accepted is never repeated here: its file is reconciled.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from batch_assets.core.answers.answers import Answers
from batch_assets.core.batches import workspace
from batch_assets.core.batches.ask_again import plan_again
from batch_assets.core.batches.cancel import finish_canceling, finish_replaced
from batch_assets.core.batches.pilot import judge_pilots
from batch_assets.core.batches.reconcile import reconcile
from batch_assets.core.batches.rescue import rescue
from batch_assets.core.batches.reserve import know_what_counts
from batch_assets.core.batches.run_answers import RunAnswers
from batch_assets.core.batches.send import SubmissionWork, distinct, send_ready, waited_on
from batch_assets.core.batches.submit_report import SubmitReport
from batch_assets.core.errors import FAILURES, DamagedFileError, Failure, MissingFileError
from batch_assets.core.ledger import batches, files, holds, leases, overview, standstills, submissions
from batch_assets.core.ledger.records import RequestFile, Submission
from batch_assets.core.ledger.states import FileState
from batch_assets.core.pipeline.hooks import NO_TOOLS, ToolFunctions
from batch_assets.core.remedies import Approve, ConfirmWorkspace, RunStage, Stage
from batch_assets.core.root import Root

# The files of so many partitions are sent side by side. A run of more sends one group after the other.
_PARTITIONS_AT_ONCE = 100
# The share of a run's time in which the functions of tools may be called. What they returned has to be sent, too.
_SHARE_OF_TOOLS = 0.5

OnFile = Callable[[RequestFile], None]
Outcome = SubmitReport | Failure | None


def submit_batches(
    root: Root,
    pipeline: str,
    partition: str = "",
    *,
    unattended: bool = False,
    waits_for_more: bool = False,
    seconds: float | None = None,
    on_file: OnFile | None = None,
    own_answers: Answers | None = None,
    tools: ToolFunctions = NO_TOOLS,
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
        waits_for_more: No user started the run, but a schedule, for example: few requests are left until there are
            more. It is so for the sensor's run in any case.
        seconds: The time that the run has left; `None` for no limit. Files that cannot be sent within it are left
            for later.
        on_file: Called with each file when its upload begins.
        own_answers: See `Pipeline.own_answers`.
        tools: The pipeline's functions that give the results of tools.

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
    outcomes = submit_partitions(
        root,
        pipeline,
        [partition],
        unattended=unattended,
        waits_for_more=waits_for_more,
        seconds=seconds,
        on_file=on_file,
        own_answers=own_answers,
        tools=tools,
    )
    outcome = outcomes[partition]
    if isinstance(outcome, FAILURES):
        raise outcome
    return outcome


def submit_partitions(
    root: Root,
    pipeline: str,
    partitions: Sequence[str],
    *,
    unattended: bool = False,
    waits_for_more: bool = False,
    seconds: float | None = None,
    on_file: OnFile | None = None,
    own_answers: Answers | None = None,
    tools: ToolFunctions = NO_TOOLS,
) -> dict[str, Outcome]:
    """Submit the unsent request files of many partitions, those of different partitions side by side.

    A partition that fails does not stop the others, unless the API refuses every upload or cannot be reached.

    Args:
        root: The root.
        pipeline: The name of the pipeline.
        partitions: The partition keys, each once.
        unattended: See `submit_batches`.
        waits_for_more: See `submit_batches`.
        seconds: See `submit_batches`.
        on_file: See `submit_batches`.
        own_answers: See `submit_batches`.
        tools: See `submit_batches`.

    Returns:
        By partition key what `submit_batches` would return or raise.
    """
    outcomes: dict[str, Outcome] = {}
    begun, run_answers = time.monotonic(), RunAnswers()
    for start in range(0, len(partitions), _PARTITIONS_AT_ONCE):
        some = partitions[start : start + _PARTITIONS_AT_ONCE]
        left = None if seconds is None else seconds - (time.monotonic() - begun)
        prepared = {key: _prepared(root, pipeline, key, unattended, own_answers, tools) for key in some}
        works = {key: work for key, work in prepared.items() if isinstance(work, SubmissionWork)}
        if works:
            waiting = waited_on(root, list(works.values()))
            _let_go_enough(root, pipeline, waiting, is_user=not (unattended or waits_for_more))
            _judge_pilots(root, list(works.values()), waiting, own_answers)
            _submit(root, pipeline, list(works.values()), unattended, left, on_file or _ignore_file, run_answers)
        outcomes |= {key: outcome for key, outcome in prepared.items() if not isinstance(outcome, SubmissionWork)}
        outcomes |= {key: work.failure or work.report for key, work in works.items()}
    return outcomes


def _ignore_file(file: RequestFile) -> None:
    """Do nothing before a file is sent, for callers that do not show it."""


def _newest(root: Root, pipeline: str, partition: str) -> Submission | None:
    with root.ledger.read() as tx:
        return submissions.newest(tx, pipeline, partition)


def _prepared(
    root: Root,
    pipeline: str,
    partition: str,
    unattended: bool,
    own_answers: Answers | None,
    tools: ToolFunctions,
) -> SubmissionWork | Outcome:
    """Return the work on a partition; what `submit_batches` returns or raises if nothing of it may be sent."""
    try:
        before = _newest(root, pipeline, partition)
        root.catch_up(pipeline, partition, wait=leases.PATIENCE)  # another process may be adding what is missing
        submission = _newest(root, pipeline, partition)
        if submission is None:
            return None
        report = SubmitReport(submission.id)
        is_new = before is not None and before.id != submission.id
        if (
            unattended
            and not submission.is_canceled
            and submission.began_at is None
            and (is_new or _is_untouched(root, submission))
        ):
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
    except FAILURES as error:
        return error
    return SubmissionWork(submission, report, own_answers, tools)


def _is_untouched(root: Root, submission: Submission) -> bool:
    """Whether a submission has request files, and no run has begun to send one.

    If it has none of its own, those of other submissions count that no run has begun to send: its requests were
    gathered with theirs.
    """
    with root.ledger.read() as tx:
        own = files.states_of(tx, [submission.id])[submission.id]
        if own:
            return all(state.replaceable for state in own.values())
        ready = [file for file in submissions.waited_on(tx, submission.id) if file.state.replaceable]
        owners = submissions.by_ids(tx, sorted({file.submission_id for file in ready}))
    return any(owner.began_at is None for owner in owners)


@contextmanager
def _failing(*works: SubmissionWork) -> Iterator[None]:
    """Record an error in the block as the failure of some works."""
    try:
        yield
    except FAILURES as error:
        for work in works:
            work.fails(error)


def _submit(
    root: Root,
    pipeline: str,
    works: Sequence[SubmissionWork],
    unattended: bool,
    seconds: float | None,
    on_file: OnFile,
    answers: RunAnswers,
) -> None:
    """Send what is ready of some submissions, and fill their reports."""
    tools_until = None if seconds is None else time.monotonic() + _SHARE_OF_TOOLS * seconds
    with _failing(*works):
        root.check_files(pipeline)
        know_what_counts(root, pipeline)
        names = [submissions.sending_name(work.submission.id) for work in works]
        with leases.mark_all(root.ledger, names, pipeline):
            _begin(root, works, unattended)
            for work in works:
                with _failing(work):
                    _plan_again(root, work, tools_until)
            _reconcile(root, works)
            begun = time.monotonic()
            _send_and_settle(root, works, seconds, on_file, answers)
            rescue(root, works, None if seconds is None else seconds - (time.monotonic() - begun))
            waiting = waited_on(root, works)
            for work in works:
                _note_doubts(root, work, waiting[work.submission.id])
                _note_held(work, waiting[work.submission.id])
    for work in works:
        if work.failure is None:
            with _failing(work):
                work.report.left_by(finish_replaced(root, work.submission), "cancel of what was replaced")


def _let_go_enough(
    root: Root, pipeline: str, waiting: Mapping[str, Sequence[RequestFile]], *, is_user: bool
) -> None:
    """Let files go that are held for more requests: all in a user's run, else those that waited long enough."""
    if not any(file.is_held_for_more for file in distinct(waiting)):
        return
    with root.ledger.write(pipeline) as tx:
        current = distinct(overview.files_of(tx, [*waiting]))
        held = [file for file in current if file.is_held_for_more and (is_user or file.not_before <= tx.now)]
        holds.release(tx, held, "a user sends it" if is_user else "it has waited long enough for more requests")


def _judge_pilots(
    root: Root,
    works: Sequence[SubmissionWork],
    waiting: Mapping[str, Sequence[RequestFile]],
    own_answers: Answers | None,
) -> None:
    """Judge the pilots that files of some submissions wait for, and report that."""
    for work in works:
        with _failing(work):
            work.report.pilots += judge_pilots(root, waiting[work.submission.id], own_answers)


def _send_and_settle(
    root: Root,
    works: Sequence[SubmissionWork],
    seconds: float | None,
    on_file: OnFile,
    answers: RunAnswers,
) -> None:
    """Send what is ready, and settle what is in doubt then.

    A file in doubt holds back those of other partitions with the same count. These are sent once it is settled.
    The other files of its submission are left to the next run: it may have been settled by its count alone.
    """
    begun = time.monotonic()
    sending = works
    while sending:
        left = None if seconds is None else seconds - (time.monotonic() - begun)
        send_ready(root, sending, left, on_file, answers)
        in_doubt = _unresolved(root, works)
        if not in_doubt:
            return
        _reconcile(root, works)
        if in_doubt <= _unresolved(root, works):
            return
        waiting = waited_on(root, sending)
        sending = [
            work for work in sending if in_doubt.isdisjoint(file.id for file in waiting[work.submission.id])
        ]


def _unresolved(root: Root, works: Sequence[SubmissionWork]) -> set[str]:
    """Return the ids of the files in doubt that the submissions wait on, and that are not being sent."""
    return {file.id for file in distinct(waited_on(root, works)) if file.state is FileState.UNRESOLVED}


def _begin(root: Root, works: Sequence[SubmissionWork], unattended: bool) -> None:
    with root.ledger.write(works[0].submission.pipeline) as tx:
        for work in works:
            submissions.began(tx, work.submission.id)
        if not unattended:
            waiting = overview.files_of(tx, [work.submission.id for work in works])
            files.give_back_stopped(tx, distinct(waiting), "run again by a user")
        may_be_of_other_keys = files.unproved_keys(tx, root.key_hash)
    if not may_be_of_other_keys:  # whatever a lost ledger would put in doubt from now on is sent with this key
        root.note_key()


def _plan_again(root: Root, work: SubmissionWork, tools_until: float | None) -> None:
    submission, report = work.submission, work.report
    try:
        planned = plan_again(root, submission, work.own_answers, work.tools, tools_until)
        report.planned_again, lost = planned
    except (MissingFileError, DamagedFileError) as error:  # the rest goes on without waiting for a user
        lost = [str(error)]
        with root.ledger.write(submission.pipeline) as tx:
            standstills.note(tx, submission.id, str(error))
    if lost:
        report.waiting["retries"] = "; ".join(lost)
        report.remedies.append(RunStage(Stage.REQUESTS, submission.pipeline, submission.partition))


def _reconcile(root: Root, works: Sequence[SubmissionWork]) -> None:
    """Settle the files in doubt, and report the batches that were found to those who wait on them."""
    found = reconcile(root)
    if not found:
        return
    with root.ledger.read() as tx:
        file_ids = {batch.id: batch.file_id for batch in batches.by_ids(tx, found)}
        waiting = overview.files_of(tx, [work.submission.id for work in works])
        for work in works:
            ids = {file.id for file in waiting[work.submission.id]}
            work.report.submitted += [batch_id for batch_id in found if file_ids.get(batch_id) in ids]


def _note_doubts(root: Root, work: SubmissionWork, waiting: Sequence[RequestFile]) -> None:
    """Report the files in doubt, and what a user can do about them."""
    report, submission = work.report, work.submission
    in_doubt = [file for file in waiting if file.state.in_doubt]
    for file in in_doubt:
        report.waiting[file.id] = file.error or "another process is sending it"
    confirm = ConfirmWorkspace(submission.pipeline, submission.partition)
    if confirm not in report.remedies and any(_needs_confirmation(root, file) for file in in_doubt):
        report.remedies.append(confirm)


def _note_held(work: SubmissionWork, waiting: Sequence[RequestFile]) -> None:
    """Report the files that something else has to let go."""
    held = [file for file in waiting if file.state is FileState.HELD]
    for file in held:
        work.report.waiting[file.id] = f"held: {file.error}"
    if any(file.hold is not None and file.hold.needs_approval for file in held):
        work.report.remedies.append(Approve(work.submission.pipeline, work.submission.partition))


def _needs_confirmation(root: Root, file: RequestFile) -> bool:
    intent = workspace.current_intent(root, file.id) if file.state is FileState.UNRESOLVED else None
    return intent is not None and workspace.needs_confirmation(root, intent)
