"""What comes next for a submission, as the command line words it: with the commands to type."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import assert_never

from batch_assets.cli.remedies import approve_command, cancel_command, run_command, with_remedy
from batch_assets.core.ledger.records import RequestFile
from batch_assets.core.ledger.states import BatchState
from batch_assets.core.planning import texts
from batch_assets.core.planning.next_step import next_step, remedies
from batch_assets.core.planning.snapshot import Snapshot
from batch_assets.core.planning.steps import (
    ApproveFiles,
    AskTheRest,
    Done,
    Join,
    MaterializeBatches,
    MaterializeRequests,
    MaterializeResults,
    NeedsUser,
    RaiseBudget,
    RestoreFile,
    Send,
    SendStopped,
    Step,
    SubmissionRemedy,
    Wait,
    Waiting,
)
from batch_assets.core.remedies import CancelBatch, GiveUpAnswers, RunStage, Stage
from batch_assets.core.text import count, duration


def waits_for(snapshot: Snapshot) -> str:
    """The next thing that has to happen, and who does it; for the line of `status`."""
    if snapshot.submission.final_at is not None:
        return _complete(snapshot, snapshot.submission.final_at)
    step = next_step(snapshot)
    if isinstance(step, Join) and step.others_run:
        # A run could only write a table of rows that wait.
        step = next_step(snapshot, put_off=(Join,))
    return _as_text(snapshot, step)


def rest_of_limit(*, by_refresh: bool) -> str:
    """Return how to send the requests that a limit left out. See `AskTheRest.by_refresh`."""
    if not by_refresh:
        return "run without --limit for the rest"
    return "--refresh continues with the rest, a run without it keeps these answers and ends the refresh"


def why_stuck(snapshot: Snapshot) -> Iterator[str]:
    """What keeps a run from its end, apart from its limit."""
    submission = snapshot.submission
    for remedy in remedies(snapshot):
        match remedy:
            case SendStopped(files) | MaterializeRequests(files):
                yield from (f"the API refused {file.id}: {file.error}" for file in files)
            case CancelBatch(batch_id):
                yield with_remedy(texts.maybe_deleted(snapshot, batch_id), remedy)
            case GiveUpAnswers(batch_id):
                yield with_remedy(texts.lost_answers(snapshot, batch_id), remedy)
            case RestoreFile(why):
                yield with_remedy(why, RunStage(Stage.REQUESTS, submission.pipeline, submission.partition))


def _complete(snapshot: Snapshot, since: float) -> str:
    canceled = snapshot.submission.is_canceled
    is_complete = f"{'canceled, ' if canceled else ''}complete since {duration(snapshot.now - since)}"
    if snapshot.lost_answers:
        return f"you: {_remedy(snapshot, remedies(snapshot)[0])}. The table is {is_complete}"
    state = f"nothing: {is_complete}"
    # These batches belong to an ended refresh: no row waits for them, but they are paid for.
    still = sum(batch.state in (BatchState.OPEN, BatchState.ENDED) for batch in snapshot.batches)
    if canceled or not still:
        return state
    return f"{state}. Newer answers of {count(still, 'batch', 'batches')} come with the sensor or a later run"


def _as_text(snapshot: Snapshot, step: Step) -> str:
    match step:
        case Wait():
            return _wait(snapshot, step)
        case NeedsUser():
            return f"you: {_remedy(snapshot, step.remedy)}"
        case Done():
            return "nothing"
        case _:
            return f"{_sensor_or_user(snapshot, step)} ({texts.reason(step)})"


def _sensor_or_user(snapshot: Snapshot, step: Step) -> str:
    """Return who continues a submission. A run would send again what a user canceled."""
    if not snapshot.submission.is_canceled:
        return f"the sensor, or: {_run(snapshot)}"
    stage = Stage.BATCHES if isinstance(step, Send) else Stage.RESULTS
    return f"the sensor, or: materialize {snapshot.submission.pipeline}/{stage}"


def _wait(snapshot: Snapshot, step: Wait) -> str:
    left = duration(step.until - snapshot.now) if step.until is not None else ""
    match step.why:
        case Waiting.BATCHES:
            canceled = "it was canceled: " if snapshot.submission.is_canceled else ""
            return canceled + texts.waits_for_batches(snapshot)
        case Waiting.RATE_LIMIT:
            return f"the API, which asked to send no more for {left}"
        case Waiting.DOWNLOAD:
            return f"{texts.waits_for(step.why)}: the next try is in {left}"
        case Waiting.BUDGET:
            held = [file for file in snapshot.files if file.is_held_by_budget]
            when = f", or a new period in {left}" if left else ""
            return f"{texts.waits_for(step.why)}{when}: {_held(held)}, {held[0].error}"
        case Waiting.MORE:
            why = snapshot.held_for_more[0].error
            return f"{texts.waits_for(step.why)}, or for {left} to pass: {why}. To send them now: {_run(snapshot)}"
        case Waiting.QUEUE:
            held = [file for file in snapshot.files if file.is_held_by_queue]
            return f"{texts.waits_for(step.why)}: {_held(held)}, {held[0].error}"
        case Waiting.NEXT_ROUND:
            return _sensor_or_user(snapshot, step)
        case Waiting.CACHE | Waiting.UPLOAD | Waiting.COLLECTING | Waiting.PILOT:
            return texts.waits_for(step.why)


def _held(files: Sequence[RequestFile]) -> str:
    return count(len(files), "request file is held", "request files are held")


def _remedy(snapshot: Snapshot, remedy: SubmissionRemedy) -> str:
    name, run = snapshot.submission.pipeline, _run(snapshot)
    match remedy:
        case MaterializeBatches():
            return f"materialize {name}/batches, or: {run}"
        case MaterializeResults():
            return f"materialize {name}/results" + ("" if snapshot.submission.is_canceled else f", or: {run}")
        case SendStopped() | MaterializeRequests(refused=(_, *_)):
            return f"fix what the API refused, see the errors; then: {run}"
        case MaterializeRequests():
            return f"no request file has the requests that rows wait for; {run} builds them again"
        case ApproveFiles(files):
            command = approve_command(snapshot.submission.pipeline, snapshot.submission.partition)
            return f"{_held(files)}: {files[0].error}. To let them go: {command}"
        case RaiseBudget(files):
            return f"{_held(files)}: {files[0].error}. Raise the budget, or ask for less; then: {run}"
        case CancelBatch():
            return _deleted(_alike(snapshot, CancelBatch))
        case GiveUpAnswers():
            return _lost(_alike(snapshot, GiveUpAnswers))
        case RestoreFile():
            return f"correct what the errors name; then: {run}"
        case AskTheRest():
            rest = rest_of_limit(by_refresh=remedy.by_refresh)
            return f"{count(remedy.requests, 'request')} left out by a limit; {rest}"
        case _:
            assert_never(remedy)


def _alike(snapshot: Snapshot, kind: type[CancelBatch | GiveUpAnswers]) -> list[str]:
    return [remedy.batch_id for remedy in remedies(snapshot) if isinstance(remedy, kind)]


def _deleted(ids: list[str]) -> str:
    if len(ids) == 1:
        return f"the API does not know {ids[0]}, see the errors"
    return (
        f"the API does not know {len(ids)} batches, see the errors. If they were deleted there: "
        f"{cancel_command(ids)} gives them up"
    )


def _lost(ids: list[str]) -> str:
    if len(ids) == 1:
        return f"restore the files of {ids[0]}, or give its answers up, see the errors"
    command = cancel_command(ids)
    return f"restore the files of {len(ids)} batches (see the errors), or give their answers up: {command}"


def _run(snapshot: Snapshot) -> str:
    return run_command(snapshot.submission.pipeline, snapshot.submission.partition)
