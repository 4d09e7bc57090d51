"""Texts about the next step that the command line and Dagster share. They name no command and no asset."""

from __future__ import annotations

from typing import assert_never

from batch_assets.core.batches.poll import UNREACHABLE_AFTER_SECONDS
from batch_assets.core.batches.workspace import results_refused, unreachable
from batch_assets.core.planning.snapshot import Snapshot
from batch_assets.core.planning.steps import Announce, Collect, Join, Joining, Round, Send, SendReason, Waiting
from batch_assets.core.text import count, duration


def reason(step: Round) -> str:
    """Return why a run is to be started."""
    match step:
        case Send():
            return _sending(step)
        case Collect():
            return f"{count(step.batches, 'batch has', 'batches have')} ended"
        case Join():
            return _joining(step.why)
        case Announce():
            return "the complete results are not announced yet"


def _sending(step: Send) -> str:
    match step.why:
        case SendReason.CANCEL:
            return "it was canceled, and some of its batches or request files are not canceled yet"
        case SendReason.ASK_AGAIN:
            return count(step.count, "request is to be sent again", "requests are to be sent again")
        case SendReason.AFFORDABLE:
            held = count(step.count, "held request file fits", "held request files fit")
            return f"{held} into the budget now"
        case SendReason.PILOT:
            return "the pilot that its request files wait for can be judged"
        case SendReason.ENOUGH:
            held = count(step.count, "request file has", "request files have")
            return f"{held} waited long enough for more requests"
        case SendReason.ROOM:
            waited = count(step.count, "request file", "request files")
            return f"the queue of the API has room for {waited} now"
        case SendReason.UNSENT:
            return count(step.count, "request file is left to send", "request files are left to send")
        case SendReason.IN_DOUBT:
            return count(step.count, "request file is in doubt", "request files are in doubt")
        case SendReason.RESCUE:
            files = count(step.count, "request file", "request files")
            return f"the deadline has passed, and rows of {files} have no answer"
        case SendReason.LATE_BATCH:
            return "the batch of an upload that got no answer may still turn up"
        case _:
            assert_never(step.why)


def _joining(why: Joining) -> str:
    match why:
        case Joining.FIRST:
            return "its table was never written"
        case Joining.CANCELED:
            return "its table was not written since it was canceled"
        case Joining.NEW_ANSWERS:
            return "answers have come in since the last join"
        case Joining.LIVE_ANSWERS:
            return "answers of live calls are to be stored"
        case _:
            assert_never(why)


def maybe_deleted(snapshot: Snapshot, batch_id: str) -> str:
    """Return the problem with a batch that `CancelBatch` gives up."""
    is_unreachable = any(batch.id == batch_id for batch in snapshot.unreachable)
    return unreachable(batch_id) if is_unreachable else results_refused(batch_id)


def lost_answers(snapshot: Snapshot, batch_id: str) -> str:
    """Return the problem with a batch that `GiveUpAnswers` gives up."""
    return next(file.error or "" for file in snapshot.files if file.batch_id == batch_id)


def waits_for_batches(snapshot: Snapshot) -> str:
    """Return what a submission with running batches waits for, as text that continues "it waits for"."""
    not_shown = snapshot.not_shown
    if not not_shown:
        due_at = snapshot.rescue.next_due
        if due_at is None:
            return waits_for(Waiting.BATCHES)
        deadline = f"its deadline in {duration(due_at - snapshot.now)}"
        return f"{waits_for(Waiting.BATCHES)}, or {deadline}, when rows without an answer are asked by live calls"
    since = duration(snapshot.now - min(batch.missing_since or snapshot.now for batch in not_shown))
    is_one = len(not_shown) == 1
    which, they, them = (
        (not_shown[0].id, "it was", "it") if is_one else (f"{len(not_shown)} batches", "they were", "them")
    )
    others = "end its batches and to " if len(not_shown) < len(snapshot.running) else ""
    return (
        f"the API to {others}show {which}: it has answered 404 for {since}, as it may for a new batch. If {they} "
        f"deleted there, you can give {them} up after {duration(UNREACHABLE_AFTER_SECONDS)} of this answer"
    )


def waits_for(why: Waiting) -> str:
    """Return what a submission waits for, as text that continues "it waits for"."""
    match why:
        case Waiting.BATCHES:
            return "the API to end its batches"
        case Waiting.CACHE:
            return "its first request to be answered: the others read what they share from the prompt cache"
        case Waiting.RATE_LIMIT:
            return "the API, which asked to send no more for now"
        case Waiting.DOWNLOAD:
            return "results that could not be downloaded"
        case Waiting.UPLOAD:
            return "an upload that is under way"
        case Waiting.COLLECTING:
            return "a run that is collecting its results"
        case Waiting.BUDGET:
            return "money of its budget to come free"
        case Waiting.PILOT:
            return "the pilot of its prompt, which another partition sends"
        case Waiting.MORE:
            return "more requests, to send them together"
        case Waiting.QUEUE:
            return "room in the queue of the API"
        case Waiting.NEXT_ROUND:
            return "request files that are under way"
        case _:
            assert_never(why)
