"""Rounds: runs that the sensor requests. A submission has one open round; its number is part of the run key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from batch_assets.core.ledger.connection import Transaction
from batch_assets.core.ledger.id_chunks import id_chunks
from batch_assets.core.ledger.states import EntityKind, RoundState
from batch_assets.core.ledger.tables import round_

# A round stays open for this long unless it is closed before. A run may take an hour, which is shorter.
ROUND_SECONDS = 3900.0


def current(tx: Transaction, submission_id: str) -> tuple[int, bool, float]:
    """Return (number of the newest round, whether it is open, when it was opened); (0, False, 0.0) without any.

    A round that was not closed counts as open at any age. Only the caller, who knows the runs, can see that it is
    over.
    """
    row = _newest(tx, submission_id)
    return (row.number, row.state is RoundState.OPEN, row.opened_at) if row is not None else (0, False, 0.0)


def current_of(tx: Transaction, ids: Sequence[str]) -> dict[str, tuple[int, bool, float]]:
    """Return `current` of several submissions, by submission id. Submissions without any round are left out."""
    newest: dict[str, tuple[int, bool, float]] = {}
    for chunk in id_chunks(ids):
        last = (
            sa.select(round_.c.submission_id, sa.func.max(round_.c.number).label("number"))
            .where(round_.c.submission_id.in_(chunk))
            .group_by(round_.c.submission_id)
            .subquery()
        )
        is_last = sa.and_(round_.c.submission_id == last.c.submission_id, round_.c.number == last.c.number)
        for row in tx.execute(sa.select(round_).join(last, is_last)):
            newest[row.submission_id] = row.number, row.state is RoundState.OPEN, row.opened_at
    return newest


def open_next(tx: Transaction, submission_id: str, reason: str) -> int | None:
    """Open the next round and return its number; `None` while a round is open and has not expired."""
    last = _newest(tx, submission_id)
    if last is not None and last.state is RoundState.OPEN and last.until >= tx.now:
        return None
    number = last.number + 1 if last is not None else 1
    values = {
        "submission_id": submission_id,
        "number": number,
        "state": RoundState.OPEN,
        "reason": reason,
        "opened_at": tx.now,
        "until": tx.now + ROUND_SECONDS,
    }
    tx.execute(sa.insert(round_).values(values))
    tx.record(EntityKind.ROUND, f"{submission_id}:{number}", None, RoundState.OPEN, reason)
    return number


def close(tx: Transaction, submission_id: str, number: int) -> None:
    """Close a round, because its run is over, successful or not."""
    is_round = sa.and_(round_.c.submission_id == submission_id, round_.c.number == number)
    still_open = sa.update(round_).where(is_round, round_.c.state == RoundState.OPEN)
    if tx.execute(still_open.values(state=RoundState.CLOSED)).rowcount:
        tx.record(
            EntityKind.ROUND, f"{submission_id}:{number}", RoundState.OPEN, RoundState.CLOSED, "its run is over"
        )


def _newest(tx: Transaction, submission_id: str) -> sa.Row[Any] | None:
    statement = (
        sa.select(round_).where(round_.c.submission_id == submission_id).order_by(round_.c.number.desc()).limit(1)
    )
    return tx.execute(statement).first()
