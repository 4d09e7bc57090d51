"""Find batches that were created in the same workspace. The API does not report it; the intents show it."""

from __future__ import annotations

from collections import defaultdict, deque

import sqlalchemy as sa

from batch_assets.core.ledger.connection import Transaction
from batch_assets.core.ledger.intents import IntentOutcome
from batch_assets.core.ledger.states import BatchState
from batch_assets.core.ledger.tables import batch, intent

# Outcomes of intents whose batch the ledger knows, and of intents that may have created a batch.
_KNOWN = [IntentOutcome.ACCEPTED, IntentOutcome.ADOPTED]
_MADE = [*_KNOWN, IntentOutcome.RESENT]


def companions(tx: Transaction, batch_id: str) -> list[str]:
    """Return batches, ours or not, that certainly were in the same workspace as one of ours, the nearest first.

    The anchor of an intent was the newest batch in the workspace that the request file was sent to right after.
    There is no other evidence, because the key may have been changed between two files of ours.
    """
    statement = (
        sa.select(intent.c.anchor_id, batch.c.id)
        .join(batch, batch.c.file_id == intent.c.file_id)
        .where(intent.c.outcome.in_(_KNOWN), intent.c.file_id.in_(_sent_once()), intent.c.anchor_id.is_not(None))
        .where(batch.c.provisional.is_(False), batch.c.paid_twice.is_(False))
    )
    neighbors: dict[str, list[str]] = defaultdict(list)
    for row in tx.execute(statement):
        neighbors[row.anchor_id].append(row.id)
        neighbors[row.id].append(row.anchor_id)
    nearest: list[str] = []
    visited, queue = {batch_id}, deque([batch_id])
    while queue:
        unvisited = [id_ for id_ in dict.fromkeys(neighbors[queue.popleft()]) if id_ not in visited]
        visited.update(unvisited)
        nearest += unvisited
        queue += unvisited
    return nearest


def sent_with(tx: Transaction, key_hash: str, most: int) -> list[str]:
    """Return batches of ours that were certainly created with a key and are not deleted, the newest first.

    A key belongs to one workspace, so they are all in the same one.

    Args:
        tx: The transaction.
        key_hash: The hash of the key.
        most: At most this many.
    """
    statement = (
        sa.select(batch.c.id)
        .join(intent, intent.c.file_id == batch.c.file_id)
        .where(intent.c.outcome.in_(_KNOWN), intent.c.file_id.in_(_sent_once()), intent.c.key_hash == key_hash)
        .where(batch.c.provisional.is_(False), batch.c.paid_twice.is_(False))
        .where(batch.c.state.not_in([BatchState.DELETING, BatchState.DELETED]))
        .order_by(batch.c.created_at.desc(), batch.c.id)
        .limit(most)
    )
    return list(tx.execute(statement).scalars())


def _sent_once() -> sa.Select[str]:
    """Select the files that were sent once. If a file was sent twice, its batch may belong to either intent."""
    return (
        sa.select(intent.c.file_id)
        .where(intent.c.outcome.in_(_MADE))
        .group_by(intent.c.file_id)
        .having(sa.func.count() == 1)
    )
