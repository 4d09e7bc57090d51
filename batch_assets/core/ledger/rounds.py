"""Rounds: runs that the sensor asks for. One open round a submission; the number goes into the run key."""

from __future__ import annotations

import sqlalchemy as sa

from batch_assets.core.ledger.connection import Transaction
from batch_assets.core.ledger.tables import round_

# A round whose run never reports back (killed, never started) is given up after this long.
ROUND_SECONDS = 1800.0


def current(tx: Transaction, submission_id: str) -> tuple[int, bool, float]:
    """(number of the newest round, whether it is open, when it was opened); (0, False, 0.0) before any."""
    statement = (
        sa.select(round_).where(round_.c.submission_id == submission_id).order_by(round_.c.number.desc()).limit(1)
    )
    row = tx.execute(statement).first()
    if row is None:
        return 0, False, 0.0
    return row.number, row.state == "open" and row.until >= tx.now, row.opened_at


def open_next(tx: Transaction, submission_id: str, reason: str) -> int | None:
    """Opens the next round and returns its number; None while one is open."""
    number, is_open, _ = current(tx, submission_id)
    if is_open:
        return None
    values = {
        "submission_id": submission_id,
        "number": number + 1,
        "state": "open",
        "reason": reason,
        "opened_at": tx.now,
        "until": tx.now + ROUND_SECONDS,
    }
    tx.execute(sa.insert(round_).values(values))
    tx.record("round", f"{submission_id}:{number + 1}", None, "open", reason)
    return number + 1


def close(tx: Transaction, submission_id: str, number: int) -> None:
    """The round's run is over, whatever came of it."""
    this = sa.and_(round_.c.submission_id == submission_id, round_.c.number == number, round_.c.state == "open")
    if tx.execute(sa.update(round_).where(this).values(state="closed")).rowcount:
        tx.record("round", f"{submission_id}:{number}", "open", "closed", "its run is over")
