"""Objects of the Message Batches API, as far as the core reads them.

Source: https://platform.claude.com/docs/en/build-with-claude/batch-processing
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self

import orjson

from batch_assets.core.errors import ErrorType

COUNTS = ("processing", "succeeded", "errored", "canceled", "expired")
_QUEUED = "enqueued_batch_requests"  # the limit's name in the API
_STATUS_LENGTH = 16  # the ledger stores at most this many characters of an unknown status
_BATCH_ID = re.compile(r"msgbatch_[A-Za-z0-9_-]{1,70}", re.ASCII)
_MOST_REQUESTS = 10**9  # far more than the API allows in a batch, and far less than the ledger can store
STATUSES = ("in_progress", "canceling", "ended")
# Error types of a result line that may be gone on the next attempt. All others would fail the same way again.
PASSING_ERRORS = frozenset(
    {"api_error", "overloaded_error", "timeout_error", "rate_limit_error", ErrorType.MISSING_RESULT}
)


@dataclass(frozen=True)
class BatchObject:
    """A message batch as the API describes it.

    Attributes:
        request_counts: The number of requests in each state.
        created_at: Seconds since 1970 by the server's clock, as are the other times. Times that have not come yet
            are `None`.
    """

    id: str
    processing_status: str
    request_counts: dict[str, int]
    created_at: float
    expires_at: float | None
    ended_at: float | None
    archived_at: float | None

    @property
    def ended(self) -> bool:
        """Whether the batch has ended. If its status is unknown, it has ended once `ended_at` is set."""
        return self.processing_status == "ended" or (
            self.processing_status not in STATUSES and self.ended_at is not None
        )

    @property
    def total(self) -> int:
        """The number of requests in the batch: the sum of all counts, or 0 if the API sent no counts."""
        return sum(self.request_counts.values())

    @classmethod
    def parse(cls, body: Any) -> BatchObject:
        """Read a MessageBatch object. Unknown keys are ignored; unknown counts are part of the total.

        Args:
            body: The parsed JSON.

        Raises:
            ValueError: When `body` is not a MessageBatch object.
        """
        try:
            counts = body.get("request_counts") or {}
            created_at = timestamp(body["created_at"])
            if created_at is None or not body["id"] or not isinstance(body["id"], str):
                raise ValueError("id or created_at is missing")
            if not is_batch_id(body["id"]):
                raise ValueError(f"{body['id'][:100]!r} is not a valid batch id")
            return cls(
                id=body["id"],
                processing_status=str(body.get("processing_status"))[:_STATUS_LENGTH].replace("\0", ""),
                request_counts={**dict.fromkeys(COUNTS, 0), **{name: _count(n) for name, n in counts.items()}},
                created_at=created_at,
                expires_at=timestamp(body.get("expires_at")),
                ended_at=timestamp(body.get("ended_at")),
                archived_at=timestamp(body.get("archived_at")),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a message batch: {error!r}") from None


def is_message(body: bytes) -> bool:
    """Whether the JSON of an answer is a message."""
    try:
        message = orjson.loads(body)
    except orjson.JSONDecodeError:
        return False
    return isinstance(message, dict) and message.get("type") == "message"


def queue_limit_in(body: Any) -> int:
    """Return how many requests may be in the queue, by the JSON of an answer.

    Raises:
        KeyError, TypeError, ValueError: When the answer has no such limit.
    """
    limits = [limit for group in body["data"] for limit in group["limits"]]
    return min(int(limit["value"]) for limit in limits if limit["type"] == _QUEUED)


def is_batch_id(text: str) -> bool:
    """Whether a text has the form of a batch id. Ids become parts of file names and URLs."""
    return _BATCH_ID.fullmatch(text) is not None


def _count(number: Any) -> int:
    """Read a number of requests; an absent one is 0.

    Raises:
        ValueError: When it is not a number that a batch can have.
    """
    if number is None:
        return 0
    if isinstance(number, bool) or not isinstance(number, int | float) or not 0 <= number <= _MOST_REQUESTS:
        raise ValueError(f"{str(number)[:40]} is not a number of requests")
    return int(number)


def timestamp(text: str | None) -> float | None:
    """Convert an RFC 3339 time to seconds since 1970. A time without an offset is UTC."""
    if not text:
        return None
    time = datetime.fromisoformat(text)
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()


@dataclass(frozen=True)
class Page:
    """One page of the list of batches, newest first.

    Attributes:
        batches: The batches of this page.
        has_more: Whether older batches follow.
        last_id: The id after which the next page begins; `None` if the page is empty.
    """

    batches: list[BatchObject]
    has_more: bool
    last_id: str | None

    @classmethod
    def parse(cls, body: Any) -> Self:
        """Make it from the JSON of an answer.

        Raises:
            KeyError, TypeError, ValueError: When the answer is not a list of batches.
        """
        batches = [BatchObject.parse(entry) for entry in body["data"]]
        return cls(batches, bool(body["has_more"]), body.get("last_id"))
