"""What a page of the API's list shows about many open batches, recorded at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from batch_assets.core.api.objects import BatchObject
from batch_assets.core.ledger import batches
from batch_assets.core.ledger.connection import Transaction
from batch_assets.core.ledger.moves import Moving, move_all
from batch_assets.core.ledger.records import Batch
from batch_assets.core.ledger.states import BatchMove
from batch_assets.core.ledger.tables import batch


def observe_all(
    tx: Transaction, before: Mapping[str, Batch], shown: Sequence[tuple[BatchObject, float]]
) -> list[Batch]:
    """Record what the API reports about open batches. The number of statements does not grow with their number.

    It does for each of them what `batches.observe` does.

    Args:
        tx: The transaction.
        before: The batches by id, as this transaction read them.
        shown: The batches as the API shows them, each with when to poll it next, unless it has ended. Those that
            the ledger does not know or knows to have ended are skipped.

    Returns:
        The batches whose state or counts changed, as the ledger had them.
    """
    moving: dict[BatchMove, list[Moving]] = {}
    same: list[dict[str, Any]] = []
    changed = []
    for reported, next_poll_at in shown:
        current = before.get(reported.id)
        if current is None or not current.state.unended:
            continue
        step = BatchMove.END if reported.ended else BatchMove.SEE
        values = _values(tx, current, reported, next_poll_at)
        counted = current.processing_status, current.counts
        if counted != (reported.processing_status, values["counts"]) or step.after is not current.state:
            changed.append(current)
        states = (
            batches.history_state(current.state, current.processing_status),
            batches.history_state(step.after, reported.processing_status),
        )
        if states[0] == states[1]:
            same.append({"its_id": current.id, **values})
            continue
        if current.canceled_at is None and states[1] == batches.CANCELING:
            values["canceled_at"] = tx.now
        reason = f"the API reports {reported.processing_status}"
        moving.setdefault(step, []).append(Moving(current.id, reason, values, states))
    if same:
        tx.connection.execute(sa.update(batch).where(batch.c.id == sa.bindparam("its_id")), same)
    for step, entities in moving.items():
        move_all(tx, step, entities)
    return changed


def _values(tx: Transaction, current: Batch, reported: BatchObject, next_poll_at: float) -> dict[str, Any]:
    """Return the same columns for every batch, because one statement changes them all."""
    values: dict[str, Any] = {
        "next_poll_at": current.next_poll_at,
        "next_download_at": current.next_download_at,
        "canceled_at": current.canceled_at,
        "missing_since": None,
        **batches.reported_columns(reported),
        **batches.next_call(tx, reported, next_poll_at),
    }
    if reported.total == 0:  # the API left the counts out: a batch has one request at least
        values |= {"requests": current.requests, "counts": current.counts}
    return values
