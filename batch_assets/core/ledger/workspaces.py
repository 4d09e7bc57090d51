"""Which batches were created in one workspace. The API does not say it; the intents do."""

from __future__ import annotations

from collections import defaultdict, deque

import sqlalchemy as sa

from batch_assets.core.ledger.connection import Transaction
from batch_assets.core.ledger.outcomes import IntentOutcome
from batch_assets.core.ledger.tables import batch, intent

# Outcomes of an intent whose batch the ledger knows, and of one that may have made a batch.
_KNOWN = [IntentOutcome.ACCEPTED, IntentOutcome.ADOPTED]
_MADE = [*_KNOWN, IntentOutcome.RESENT]


def companions(tx: Transaction, batch_id: str) -> list[str]:
    """Batches, ours or not, that surely were in the same workspace as one of ours, the nearest first.

    The anchor of an intent was the newest batch of the workspace that its request file was sent to just
    after. Nothing else tells: between two files of ours the key may have been changed.
    """
    # Of a file that was sent twice nobody can tell which batch is which intent's.
    once = (
        sa.select(intent.c.file_id)
        .where(intent.c.outcome.in_(_MADE))
        .group_by(intent.c.file_id)
        .having(sa.func.count() == 1)
    )
    statement = (
        sa.select(intent.c.anchor_id, batch.c.id)
        .join(batch, batch.c.file_id == intent.c.file_id)
        .where(intent.c.outcome.in_(_KNOWN), intent.c.file_id.in_(once), intent.c.anchor_id.is_not(None))
        .where(batch.c.provisional.is_(False), batch.c.paid_twice.is_(False))
    )
    beside: dict[str, list[str]] = defaultdict(list)
    for row in tx.execute(statement):
        beside[row.anchor_id].append(row.id)
        beside[row.id].append(row.anchor_id)
    found: list[str] = []
    seen, queue = {batch_id}, deque([batch_id])
    while queue:
        fresh = [other for other in dict.fromkeys(beside[queue.popleft()]) if other not in seen]
        seen.update(fresh)
        found += fresh
        queue += fresh
    return found
