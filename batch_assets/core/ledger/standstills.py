"""Failed requests that cannot be asked again now, because a request file is gone: since when, and why.

The history says it: every try that came to nothing is a line, and so is the one that ends their row.
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
    """Tries in a row that came to nothing.

    Attributes:
        since, last: when the first and the last of them was, seconds since 1970.
        why: of the last one.
    """

    since: float
    last: float
    why: str

    def next_try(self, shortest: float, longest: float) -> float:
        """When it is time for another one: as long again as they have failed so far, within these bounds."""
        return self.last + min(max(self.last - self.since, shortest), longest)


def current(tx: Transaction, submission_id: str) -> Standstill | None:
    """The standstill of a submission, None where nothing keeps its failed requests."""
    of_it = sa.and_(history.c.kind == "submission", history.c.entity == submission_id)
    over = sa.select(sa.func.max(history.c.seq)).where(of_it, history.c.to_state == _GOES_ON).scalar_subquery()
    tries = tx.execute(
        sa.select(history.c.at, history.c.reason)
        .where(of_it, history.c.to_state == _STANDS, history.c.seq > sa.func.coalesce(over, 0))
        .order_by(history.c.seq)
    ).all()
    return Standstill(tries[0].at, tries[-1].at, tries[-1].reason) if tries else None


def note(tx: Transaction, submission_id: str, why: str) -> None:
    """A try came to nothing."""
    tx.record("submission", submission_id, SubmissionState.BEGAN, _STANDS, why)


def end(tx: Transaction, submission_id: str) -> None:
    """The failed requests lie in request files again."""
    if current(tx, submission_id) is not None:
        tx.record("submission", submission_id, _STANDS, _GOES_ON, "its failed requests are asked again")
