"""Texts about the next step that the command line and Dagster share. They name no command and no asset."""

from __future__ import annotations

from batch_assets.core.planning.steps import Announce, Collect, Join, Joining, Round, Send, Sending, Waiting
from batch_assets.core.text import count

_SENDING = {
    Sending.ASK_AGAIN: ("failed request is to be sent again", "failed requests are to be sent again"),
    Sending.UNSENT: ("request file is left to send", "request files are left to send"),
    Sending.IN_DOUBT: ("request file is in doubt", "request files are in doubt"),
}
_JOINING = {
    Joining.FIRST: "its table was never written",
    Joining.CANCELED: "its table was not written since it was canceled",
    Joining.NEW_ANSWERS: "answers have come in since the last join",
}
_WAITING = {
    Waiting.BATCHES: "the API to end its batches",
    Waiting.RATE_LIMIT: "the API, which asked to send no more for now",
    Waiting.DOWNLOAD: "results that could not be downloaded",
    Waiting.UPLOAD: "an upload that is under way",
    Waiting.COLLECTING: "a run that is collecting its results",
    Waiting.NEXT_ROUND: "request files that are under way",
}


def reason(step: Round) -> str:
    """Return why a run is to be started."""
    match step:
        case Send():
            return _sending(step)
        case Collect():
            return f"{count(step.batches, 'batch has', 'batches have')} ended"
        case Join():
            return _JOINING[step.why]
        case Announce():
            return "the complete results are not announced yet"


def _sending(step: Send) -> str:
    match step.why:
        case Sending.CANCEL:
            return "some of its batches still run although it was canceled"
        case Sending.LATE_BATCH:
            return "the batch of an upload that got no answer may still turn up"
        case _:
            return count(step.count, *_SENDING[step.why])


def waits_for(why: Waiting) -> str:
    """Return what a submission waits for, as text that continues "it waits for"."""
    return _WAITING[why]
