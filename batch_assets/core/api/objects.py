"""Shapes of the Message Batches API, as far as the core reads them.

Source: https://platform.claude.com/docs/en/build-with-claude/batch-processing
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

COUNTS = ("processing", "succeeded", "errored", "canceled", "expired")
_STATUS_LENGTH = 16  # as much of one that is not known as the ledger has room for
STATUSES = ("in_progress", "canceling", "ended")
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
        """Whether it has ended; of a status that is not known, the time of the end says so."""
        return self.processing_status == "ended" or (
            self.processing_status not in STATUSES and self.ended_at is not None
        )

    @property
    def total(self) -> int:
        """Requests in the batch: the sum of all counts, at any time; 0 where the API gave none."""
        return sum(self.request_counts.values())

    @classmethod
    def parse(cls, body: Any) -> BatchObject:
        """Reads a MessageBatch object. Unknown keys are ignored, unknown counts are requests like any other.

        Errors:
            ValueError: not a MessageBatch object.
        """
        try:
            counts = body.get("request_counts") or {}
            created_at = timestamp(body["created_at"])
            if created_at is None or not body["id"] or not isinstance(body["id"], str):
                raise ValueError("id or created_at is missing")
            if not body["id"].isprintable() or "/" in body["id"]:  # it names a file and a path of the API
                raise ValueError(f"{body['id']!r} is no id of a batch")
            return cls(
                id=body["id"],
                processing_status=str(body.get("processing_status"))[:_STATUS_LENGTH].replace("\0", ""),
                request_counts={**dict.fromkeys(COUNTS, 0), **{name: int(n or 0) for name, n in counts.items()}},
                created_at=created_at,
                expires_at=timestamp(body.get("expires_at")),
                ended_at=timestamp(body.get("ended_at")),
                archived_at=timestamp(body.get("archived_at")),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a message batch: {error!r}") from None


def timestamp(text: str | None) -> float | None:
    """RFC 3339 -> seconds since 1970; UTC where no offset is given."""
    if not text:
        return None
    time = datetime.fromisoformat(text)
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
