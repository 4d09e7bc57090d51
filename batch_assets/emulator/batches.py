"""The life of a batch as a function of its record and the time: nothing runs between two calls.

The requests of a batch finish one after the other, evenly spread over its latency, in the order in
which they were submitted. Cancelling, expiring and ending act on those that have not finished.
States, counts and limits follow the batch guide; that `request_counts` stays at `processing` until
the batch has ended is what the guide says and what recordings of small batches show.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .outcomes import RESULT_TYPES, count_results
from .state import BatchRecord
from .wire import timestamp

SECOND = 1_000_000
EXPIRY_SECONDS = 24 * 60 * 60
"""Seconds from creation until unfinished requests expire."""
RETENTION_SECONDS = 29 * 24 * 60 * 60
"""Seconds from creation until results are no longer available."""


@dataclass(frozen=True)
class Progress:
    """Where a batch stands: its `processing_status`, when it ended (microseconds; None while it has not),
    how many of its requests have been processed, and what became of the others (`canceled` or `expired`)."""

    status: str
    ended_at: int | None
    finished: int
    unfinished: str
    archived_at: int | None


def progress_of(record: BatchRecord, now: int) -> Progress:
    """The state of a batch at the instant `now` (microseconds)."""
    canceled = record.cancel_at
    complete = _earlier(record.created_at + record.latency, record.end_at, canceled)
    expires = _earlier(record.created_at + record.expiry, record.expire_at, canceled)
    if canceled is not None and canceled < min(complete, expires):
        ended, stopped, unfinished = canceled + record.cancel_delay, canceled, "canceled"
        if record.end_at is not None:
            ended = max(canceled, min(ended, record.end_at))
    elif expires < complete:
        ended, stopped, unfinished = expires, expires, "expired"
    else:
        ended, stopped, unfinished = complete, None, "canceled"
    finished = record.requests if stopped is None else _finished_by(record, stopped)
    if now < ended:
        by_now = _finished_by(record, now if stopped is None else min(now, stopped))
        status = "canceling" if canceled is not None and canceled <= now else "in_progress"
        return Progress(status, None, by_now, unfinished, None)
    archived = record.created_at + RETENTION_SECONDS * SECOND
    if record.archived_at is not None:
        archived = min(archived, record.archived_at)
    return Progress("ended", ended, finished, unfinished, archived if archived <= now else None)


def _earlier(planned: int, ordered: int | None, canceled: int | None) -> int:
    """When something happens that a control call may have ordered; no order undoes an earlier cancel."""
    if ordered is None or (canceled is not None and canceled <= ordered):
        return planned
    return min(planned, ordered)


def _finished_by(record: BatchRecord, instant: int) -> int:
    if record.latency <= 0:
        return record.requests
    share = max(0, instant - record.created_at) / record.latency
    return min(record.requests, int(record.requests * share))


def request_counts(record: BatchRecord, progress: Progress, codes: bytes, *, moving: bool) -> dict[str, int]:
    """The `request_counts` of a batch; `codes` are its outcome codes. They always add up to its size.

    `moving` shows what has finished before the batch has ended.
    """
    if progress.ended_at is None and not moving:
        return {"processing": record.requests} | dict.fromkeys(RESULT_TYPES, 0)
    counts = {"processing": 0} | count_results(codes[: progress.finished])
    rest = record.requests - progress.finished
    counts["processing" if progress.ended_at is None else progress.unfinished] += rest
    return counts


def wire_batch(
    record: BatchRecord,
    progress: Progress,
    counts: dict[str, int],
    *,
    skew: int,
    results_url: Callable[[str], str],
) -> dict[str, Any]:
    """A batch as the API shows it; `skew` (microseconds) is added to every timestamp."""

    def shown(instant: int | None) -> str | None:
        return None if instant is None else timestamp(instant + skew)

    readable = progress.ended_at is not None and progress.archived_at is None
    return {
        "id": record.id,
        "type": "message_batch",
        "processing_status": progress.status,
        "request_counts": counts,
        "ended_at": shown(progress.ended_at),
        "created_at": shown(record.created_at),
        "expires_at": shown(record.created_at + record.expiry),
        "archived_at": shown(progress.archived_at),
        "cancel_initiated_at": shown(record.cancel_at),
        "results_url": results_url(record.id) if readable else None,
    }
