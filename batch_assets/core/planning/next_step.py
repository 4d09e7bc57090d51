"""Determine the next step of a submission: one answer for the sensor, the run loop, `status` and every text."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from batch_assets.core.ledger.records import Batch
from batch_assets.core.ledger.states import BatchState, FileState
from batch_assets.core.planning.snapshot import Snapshot
from batch_assets.core.planning.steps import (
    Announce,
    ApproveFiles,
    AskTheRest,
    Collect,
    Done,
    Join,
    Joining,
    MaterializeBatches,
    MaterializeRequests,
    MaterializeResults,
    NeedsUser,
    RaiseBudget,
    RestoreFile,
    Round,
    Send,
    SendReason,
    SendStopped,
    Step,
    SubmissionRemedy,
    Wait,
    Waiting,
)
from batch_assets.core.remedies import CancelBatch, GiveUpAnswers


def next_step(snapshot: Snapshot, put_off: Collection[type[Round]] = ()) -> Step:
    """Return the next step: the first that applies of send, collect, done, wait, and ask a user.

    Args:
        snapshot: The submission.
        put_off: Kinds of steps that the caller puts off for reasons of its own. They are skipped.
    """
    if Send not in put_off and (send := _to_send(snapshot)) is not None:
        return send
    if (collect := _to_collect(snapshot)) is not None and type(collect) not in put_off:
        return collect if not snapshot.is_collecting else Wait(None, Waiting.COLLECTING)
    watch = snapshot.is_watched and snapshot.is_unattended
    if snapshot.submission.final_at is not None:
        lost = next(_lost_answers(snapshot), None)
        return NeedsUser(lost, watch) if lost is not None else Done(watch)
    if (consent := _consent(snapshot)) is not None:
        return NeedsUser(consent, watch)
    if (wait := _to_wait_for(snapshot)) is not None:
        until, why = wait
        return Wait(until, why, watch)
    return NeedsUser(remedies(snapshot)[0], watch)


def round_of(step: Step) -> Round | None:
    """Return what an unattended run does at this step; None if it has nothing to do."""
    if isinstance(step, Wait | NeedsUser | Done):
        return Send(SendReason.LATE_BATCH) if step.watch else None
    return step


def remedies(snapshot: Snapshot) -> list[SubmissionRemedy]:
    """Return everything that a user could do for a submission, first what rows need to get their answers.

    There may be remedies for some rows while other rows need no user. An incomplete submission has at least one.
    """
    submission = snapshot.submission
    needed: list[SubmissionRemedy] = []
    if submission.final_at is None:
        is_unwritten = submission.joined_seq is None or submission.is_canceled
        fallback = MaterializeResults() if is_unwritten else MaterializeRequests()
        needed = list(_of_rows(snapshot)) or [fallback]
    else:  # its table is complete, but no other one can be built or written without these answers
        needed = list(_lost_answers(snapshot))
    # No row waits on the other unreachable batches: only their answers would be lost. Refused results are
    # downloaded again, which helps unless the batch was deleted.
    maybe_deleted = [*snapshot.unreachable, *(batch for batch in snapshot.failing if batch.results_refused)]
    return needed + [cancel for batch in maybe_deleted if (cancel := _cancel(batch)) not in needed]


def _to_send(snapshot: Snapshot) -> Send | None:
    """Return what is left to send or to cancel, if it may be done unattended."""
    if not snapshot.is_unattended:
        return None
    if to_cancel := [*snapshot.to_cancel, *snapshot.unsent_to_cancel]:
        return Send(SendReason.CANCEL, len(to_cancel))
    if snapshot.submission.ask_again and not snapshot.submission.is_canceled and not snapshot.stands_still:
        return Send(SendReason.ASK_AGAIN, snapshot.submission.ask_again)
    unsent = [
        file for file in snapshot.in_state(FileState.READY, FileState.TOO_LARGE) if file.not_before <= snapshot.now
    ]
    unsent += snapshot.to_release
    if unsent:
        return Send(SendReason.UNSENT, len(unsent))
    if snapshot.pilot_due:
        return Send(SendReason.PILOT, len(snapshot.pilot_due))
    if snapshot.affordable:
        return Send(SendReason.AFFORDABLE, len(snapshot.affordable))
    if snapshot.enough:
        return Send(SendReason.ENOUGH, len(snapshot.enough))
    if snapshot.with_room:
        return Send(SendReason.ROOM, len(snapshot.with_room))
    if snapshot.to_reconcile:
        return Send(SendReason.IN_DOUBT, len(snapshot.to_reconcile))
    if snapshot.rescue.due:
        return Send(SendReason.RESCUE, len(snapshot.rescue.due))
    return None


def _to_collect(snapshot: Snapshot) -> Collect | Join | Announce | None:
    """Return what is left to collect, to join or to announce."""
    submission, others_run = snapshot.submission, snapshot.others_run
    if snapshot.ended:
        return Collect(len(snapshot.ended), others_run)
    is_unwritten = submission.joined_seq is None or (submission.final_at is None and snapshot.nothing_comes)
    if is_unwritten and snapshot.is_unattended:
        return Join(Joining.CANCELED if submission.is_canceled else Joining.FIRST, others_run)
    if snapshot.has_unjoined:
        return Join(Joining.NEW_ANSWERS, others_run)
    if submission.final_at is not None and submission.announced_at is None:
        return Announce()
    if snapshot.rescue.to_store:
        return Join(Joining.LIVE_ANSWERS, others_run)
    return None


def _consent(snapshot: Snapshot) -> MaterializeBatches | None:
    """Return what the user has to agree to: files to send, or lost uploads to look for at the API.

    Nothing of a canceled submission is sent, so it needs no consent.
    """
    submission = snapshot.submission
    if submission.began_at is not None or submission.final_at is not None or submission.is_canceled:
        return None
    ready = (*snapshot.in_state(FileState.READY), *snapshot.held_for_more)
    return MaterializeBatches(ready) if ready or snapshot.to_reconcile or submission.ask_again else None


def _to_wait_for(snapshot: Snapshot) -> tuple[float | None, Waiting] | None:
    """Return until when and for what to wait; None if nothing is under way that could bring an answer."""
    running = [batch for batch in snapshot.batches if batch.state is BatchState.OPEN]
    if until := [until for until in snapshot.awaiting_stub.values() if until is not None]:
        return min([*until, *(batch.next_poll_at for batch in running)]), Waiting.CACHE
    if running:
        times = [batch.next_poll_at for batch in running]
        return min([*times, *snapshot.rescue.times]), Waiting.BATCHES
    limited = [file.not_before for file in snapshot.in_state(FileState.READY) if file.not_before > snapshot.now]
    if limited:
        return min(limited), Waiting.RATE_LIMIT
    if snapshot.is_sending or any(
        file.id not in snapshot.to_reconcile for file in snapshot.in_state(FileState.SENDING)
    ):
        return None, Waiting.UPLOAD
    failed = [
        batch.next_download_at
        for batch in snapshot.batches
        if batch.state is BatchState.ENDED and batch.id not in snapshot.lost_answers
    ]
    if failed:
        return min(failed), Waiting.DOWNLOAD
    if snapshot.until_budget:
        times = [each.until for each in snapshot.until_budget.values() if each.until is not None]
        return min(times, default=None), Waiting.BUDGET
    if snapshot.waits_for_pilot:
        return None, Waiting.PILOT
    if snapshot.held_for_more:
        return min(file.not_before for file in snapshot.held_for_more), Waiting.MORE
    if snapshot.until_room:
        times = [each.until for each in snapshot.until_room.values() if each.until is not None]
        return min(times, default=None), Waiting.QUEUE
    if snapshot.moving or (snapshot.submission.ask_again and not snapshot.stands_still):
        return None, Waiting.NEXT_ROUND
    return None


def _of_rows(snapshot: Snapshot) -> Iterator[SubmissionRemedy]:
    """Yield the remedies for rows of an incomplete submission that cannot get their answers otherwise."""
    submission = snapshot.submission
    waited_for = {file.batch_id for file in snapshot.files}
    if not submission.is_canceled:
        yield from _of_files(snapshot)
    for batch in snapshot.unreachable:
        if batch.id in waited_for:
            yield _cancel(batch)
    yield from _lost_answers(snapshot)
    if submission.is_canceled:
        return
    if snapshot.standstill is not None and snapshot.next_try is not None:
        yield RestoreFile(snapshot.standstill.why, snapshot.standstill.last, snapshot.next_try)
    if submission.left_out:
        yield AskTheRest(submission.left_out, snapshot.needs_refresh)


def _of_files(snapshot: Snapshot) -> Iterator[SubmissionRemedy]:
    """Yield the remedies for request files that are not sent without a user."""
    if (consent := _consent(snapshot)) is not None:
        yield consent
    if snapshot.to_approve:
        yield ApproveFiles(tuple(snapshot.to_approve))
    if snapshot.without_pilot:
        yield MaterializeRequests()
    if snapshot.over_budget:
        yield RaiseBudget(tuple(snapshot.over_budget))
    if stopped := snapshot.in_state(FileState.STOPPED):
        yield SendStopped(tuple(stopped))
    if refused := snapshot.in_state(FileState.REFUSED):
        yield MaterializeRequests(tuple(refused))


def _lost_answers(snapshot: Snapshot) -> Iterator[GiveUpAnswers]:
    return (GiveUpAnswers(batch_id, snapshot.submission.pipeline) for batch_id in snapshot.lost_answers)


def _cancel(batch: Batch) -> CancelBatch:
    return CancelBatch(batch.id, batch.pipeline or "")
