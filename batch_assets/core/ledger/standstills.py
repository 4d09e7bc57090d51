"""Standstills: failed requests that cannot be retried now because a request file is missing.

Their record is the history: every failed try is a line, and so is the try that ends the standstill.
"""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from batch_assets.core.ledger.connection import Transaction
from batch_assets.core.ledger.states import SubmissionState
from batch_assets.core.ledger.tables import history

_STANDS, _GOES_ON = "standstill", "goes on"


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
    of_it = sa.and_(history.c.kind == "submission", history.c.entity == submission_id)
    over = sa.select(sa.func.max(history.c.seq)).where(of_it, history.c.to_state == _GOES_ON).scalar_subquery()
    tries = tx.execute(
        sa.select(history.c.at, history.c.reason)
        .where(of_it, history.c.to_state == _STANDS, history.c.seq > sa.func.coalesce(over, 0))
        .order_by(history.c.seq)
    ).all()
    return Standstill(tries[0].at, tries[-1].at, tries[-1].reason) if tries else None


def note(tx: Transaction, submission_id: str, why: str) -> None:
    """Record a failed try."""
    tx.record("submission", submission_id, SubmissionState.BEGAN, _STANDS, why)


def end(tx: Transaction, submission_id: str) -> None:
    """Record that the failed requests are in request files again."""
    if current(tx, submission_id) is not None:
        tx.record("submission", submission_id, _STANDS, _GOES_ON, "its failed requests are sent again")
