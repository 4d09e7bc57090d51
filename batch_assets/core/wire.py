"""Shapes of the Message Batches API, as far as the core reads them.

Source: https://platform.claude.com/docs/en/build-with-claude/batch-processing
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

COUNTS = ("processing", "succeeded", "errored", "canceled", "expired")
# Errors of a line that may go away by themselves; all others would fail the same way again.
PASSING_ERRORS = frozenset(
    {"api_error", "overloaded_error", "timeout_error", "rate_limit_error", "missing_result"}
)


@dataclass(frozen=True)
class BatchObject:
    """A message batch as the API describes it. Times are seconds since 1970 by the server's clock."""

    id: str
    processing_status: str
    request_counts: dict[str, int]
    created_at: float
    expires_at: float | None
    ended_at: float | None
    archived_at: float | None

    @property
    def ended(self) -> bool:
        return self.processing_status == "ended"

    @property
    def total(self) -> int:
        """Requests in the batch: the sum of all five counts, at any time."""
        return sum(self.request_counts.values())

    @classmethod
    def parse(cls, body: Any) -> BatchObject:
        """Reads a MessageBatch object; unknown keys are ignored.

        Errors:
            ValueError: not a MessageBatch object.
        """
        try:
            counts = {name: int(body["request_counts"].get(name, 0)) for name in COUNTS}
            created_at = timestamp(body["created_at"])
            if created_at is None or not isinstance(body["id"], str):
                raise ValueError("id or created_at is missing")
            return cls(
                id=body["id"],
                processing_status=str(body["processing_status"]),
                request_counts=counts,
                created_at=created_at,
                expires_at=timestamp(body.get("expires_at")),
                ended_at=timestamp(body.get("ended_at")),
                archived_at=timestamp(body.get("archived_at")),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a message batch: {error!r}") from None


def timestamp(text: str | None) -> float | None:
    """RFC 3339 -> seconds since 1970."""
    return datetime.fromisoformat(text).timestamp() if text else None
