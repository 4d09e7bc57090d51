"""The state of a batch as a function of its record and the time. Nothing runs between two calls.

The requests of a batch finish in the order in which they were submitted, evenly spread over its latency.
Canceling, expiring and ending affect the requests that have not finished. States, counts and limits follow the
batch guide (https://platform.claude.com/docs/en/build-with-claude/batch-processing). In the guide and in
recordings of small batches, all requests count as `processing` until the batch has ended.

If a server is asked for the answers, a request has finished once its answer is stored, and the batch ends with the
last answer, but not before its latency. Its counts move: a model on this machine may take hours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from batch_assets.emulator.outcomes import RESULT_TYPES
from batch_assets.emulator.records import BatchRecord
from batch_assets.emulator.wire import timestamp

SECOND = 1_000_000
EXPIRY_SECONDS = 24 * 60 * 60
"""Seconds after creation at which unfinished requests expire."""
RETENTION_SECONDS = 29 * 24 * 60 * 60
"""Seconds after creation at which results become unavailable."""
_NEVER = 1 << 62


@dataclass(frozen=True)
class Progress:
    """The progress of a batch at one instant.

    Attributes:
        status: The `processing_status`.
        ended_at: When it ended, in microseconds; `None` if it has not ended.
        finished: The number of requests that have been processed.
        unfinished: The result type of the other requests once the batch has ended: `canceled` or `expired`.
        archived_at: When its results became unavailable, in microseconds; `None` if they are available.
    """

    status: str
    ended_at: int | None
    finished: int
    unfinished: str
    archived_at: int | None


def progress_of(record: BatchRecord, now: int) -> Progress:
    """Compute the progress of a batch.

    Args:
        record: The batch.
        now: The instant, in microseconds.
    """
    canceled = record.cancel_at
    complete = _complete_at(record)
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


def _complete_at(record: BatchRecord) -> int:
    """The instant at which all requests are processed; `_NEVER` while a server has not answered them all."""
    planned = _earlier(record.created_at + record.latency, record.end_at, record.cancel_at)
    if record.answered is None or record.answered_at is None:
        return planned
    return max(planned, record.answered_at) if record.answered == record.requests else _NEVER


def _earlier(planned: int, ordered: int | None, canceled: int | None) -> int:
    """The instant of an event: the planned one, or an earlier one ordered by a control call.

    An order that came after a cancel has no effect.
    """
    if ordered is None or (canceled is not None and canceled <= ordered):
        return planned
    return min(planned, ordered)


def _finished_by(record: BatchRecord, instant: int) -> int:
    if record.answered is not None:  # nothing is answered after a cancel or the end
        return record.answered
    if record.latency <= 0:
        return record.requests
    share = max(0, instant - record.created_at) / record.latency
    return min(record.requests, int(record.requests * share))


def processed_at(record: BatchRecord, progress: Progress, position: int) -> int:
    """Compute when a request is processed, in microseconds.

    Args:
        record: The batch.
        progress: Its progress.
        position: The position of the request. For one that is never processed, the instant means nothing.
    """
    planned = record.created_at + record.latency * (position + 1) // record.requests
    return planned if progress.ended_at is None else min(planned, progress.ended_at)


def request_counts(record: BatchRecord, progress: Progress, shown: Mapping[str, int]) -> dict[str, int]:
    """Compute the `request_counts` of a batch. They always add up to its number of requests.

    Args:
        record: The batch.
        progress: Its progress.
        shown: Its finished requests by result type; empty to show none of them.
    """
    counts = {"processing": 0} | dict.fromkeys(RESULT_TYPES, 0) | dict(shown)
    unfinished = record.requests - sum(shown.values())
    counts["processing" if progress.ended_at is None else progress.unfinished] += unfinished
    return counts


def wire_batch(
    record: BatchRecord,
    progress: Progress,
    counts: dict[str, int],
    *,
    skew: int,
    results_url: Callable[[str], str],
) -> dict[str, Any]:
    """Make the JSON object with which the API shows a batch.

    Args:
        record: The batch.
        progress: Its progress.
        counts: Its `request_counts`.
        skew: Microseconds added to every timestamp.
        results_url: Makes the URL of the results from the id of the batch.
    """

    def shown(instant: int | None) -> str | None:
        return None if instant is None else timestamp(instant + skew)

    has_results = progress.ended_at is not None and progress.archived_at is None
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
        "results_url": results_url(record.id) if has_results else None,
    }
