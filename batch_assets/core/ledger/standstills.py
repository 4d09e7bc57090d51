"""Standstills: requests that cannot be sent again now: a request file is missing, or a tool has no result.

Their record is the history: every failed try is a line, and so is the try that ends the standstill.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import sqlalchemy as sa

from batch_assets.core.ledger.connection import Transaction
from batch_assets.core.ledger.id_chunks import id_chunks
from batch_assets.core.ledger.states import EntityKind, SubmissionState
from batch_assets.core.ledger.tables import history


class HistoryMark(StrEnum):
    """What the history records about a standstill, in its columns for states."""

    STANDSTILL = "standstill"
    """A try failed."""
    GOES_ON = "goes on"
    """The failed requests are in request files again."""


@dataclass(frozen=True)
class Standstill:
    """Consecutive failed tries.

    Attributes:
        since: The time of the first one, in seconds since 1970.
        last: The time of the last one, in seconds since 1970.
        why: The reason of the last one.
    """

    since: float
    last: float
    why: str

    def next_try(self, shortest: float, longest: float) -> float:
        """Return the time of the next try. The wait is the time since the first failure, within these bounds."""
        return self.last + min(max(self.last - self.since, shortest), longest)


def current(tx: Transaction, submission_id: str) -> Standstill | None:
    """Return the standstill of a submission; `None` if its failed requests can be retried."""
    return current_of(tx, [submission_id]).get(submission_id)


def current_of(tx: Transaction, ids: Sequence[str]) -> dict[str, Standstill]:
    """Return the standstills of some submissions, by submission id; submissions without one are left out."""
    standstills: dict[str, Standstill] = {}
    for chunk in id_chunks(ids):
        lines = (
            sa.select(history.c.entity, history.c.at, history.c.to_state, history.c.reason)
            .where(
                history.c.kind == EntityKind.SUBMISSION,
                history.c.entity.in_(chunk),
                history.c.to_state.in_(list(HistoryMark)),
            )
            .order_by(history.c.seq)
        )
        for line in tx.execute(lines):
            before = standstills.pop(line.entity, None)
            if line.to_state == HistoryMark.STANDSTILL:
                since = before.since if before is not None else line.at
                standstills[line.entity] = Standstill(since, line.at, line.reason)
    return standstills


def note(tx: Transaction, submission_id: str, why: str) -> None:
    """Record a failed try."""
    tx.record(EntityKind.SUBMISSION, submission_id, SubmissionState.BEGAN, HistoryMark.STANDSTILL, why)


def end(tx: Transaction, submission_id: str) -> None:
    """Record that the failed requests are in request files again."""
    if current(tx, submission_id) is not None:
        tx.record(
            EntityKind.SUBMISSION,
            submission_id,
            HistoryMark.STANDSTILL,
            HistoryMark.GOES_ON,
            "its failed requests are sent again",
        )
