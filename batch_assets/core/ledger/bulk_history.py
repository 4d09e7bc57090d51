"""Append many transitions to the history at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import sqlalchemy as sa

from batch_assets.core.ledger.connection import Transaction, process_name
from batch_assets.core.ledger.states import EntityKind
from batch_assets.core.ledger.tables import history


class HistoryLine(NamedTuple):
    """A transition of one entity. `before` is `None` for its first."""

    entity: str
    before: str | None
    after: str
    reason: str


def record_all(tx: Transaction, kind: EntityKind, lines: Sequence[HistoryLine]) -> None:
    """Append transitions of entities of one kind, in this order, with one statement."""
    if not lines:
        return
    rows = [
        {
            "at": tx.now,
            "process": process_name(),
            "kind": kind,
            "entity": line.entity,
            "from_state": line.before,
            "to_state": line.after,
            "reason": line.reason,
        }
        for line in lines
    ]
    tx.connection.execute(sa.insert(history), rows)
