"""The pairing of a ledger with its root: the ledger's own id, and the id of the root that it belongs to."""

from __future__ import annotations

import base64
import secrets
from dataclasses import asdict

import sqlalchemy as sa

from batch_assets.core.ledger.connection import Transaction
from batch_assets.core.ledger.records import Pairing, to_record
from batch_assets.core.ledger.tables import pairing

_ID_BYTES = 16


def new_id() -> str:
    """Make a random id of a root or a ledger: 26 characters from a-z and 2-7."""
    return base64.b32encode(secrets.token_bytes(_ID_BYTES)).decode().rstrip("=").lower()


def read(tx: Transaction) -> Pairing | None:
    """Return the pairing; `None` if the ledger belongs to no root yet."""
    row = tx.execute(sa.select(pairing)).first()
    return to_record(Pairing, row) if row is not None else None


def files_from(tx: Transaction) -> float:
    """Return the time from before which files may be missing, because a user accepted it; 0.0 if there is none."""
    known = read(tx)
    return known.files_from if known is not None else 0.0


def pair(
    tx: Transaction, root_id: str, root_location: str, *, replaces: str | None, files_from: float = 0.0
) -> Pairing:
    """Pair the ledger with a root. A ledger keeps its own id.

    Args:
        tx: The transaction.
        root_id: The id of the root.
        root_location: Where the root is, for messages.
        replaces: The id of the ledger that the root names so far; `None` if it names none.
        files_from: Files from before this time may be missing.
    """
    known = read(tx)
    result = Pairing(
        ledger_id=known.ledger_id if known is not None else new_id(),
        root_id=root_id,
        root_location=root_location,
        replaces=replaces,
        paired_at=tx.now,
        files_from=max(files_from, known.files_from if known is not None else 0.0),
    )
    tx.execute(sa.delete(pairing))
    tx.execute(sa.insert(pairing).values(id=1, **asdict(result)))
    return result
