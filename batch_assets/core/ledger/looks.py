"""Record a look at many batches: one statement for those that did not change and are polled at the same time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from batch_assets.core.api.objects import BatchObject
from batch_assets.core.ledger import batches
from batch_assets.core.ledger.connection import Transaction
from batch_assets.core.ledger.id_chunks import id_chunks
from batch_assets.core.ledger.observations import observe_all
from batch_assets.core.ledger.records import Batch
from batch_assets.core.ledger.states import BatchState
from batch_assets.core.ledger.tables import batch


@dataclass(frozen=True)
class Look:
    """What the API shows of a batch.

    Attributes:
        before: The batch as the caller read it from the ledger.
        reported: The batch as the API shows it.
        next_poll_at: When to poll it next, unless it has ended.
    """

    before: Batch
    reported: BatchObject
    next_poll_at: float


def record(tx: Transaction, looks: Sequence[Look]) -> list[Batch]:
    """Record what the API shows of some batches.

    Returns:
        Those whose state or counts changed.
    """
    current = {known.id: known for known in batches.by_ids(tx, [look.before.id for look in looks])}
    others: list[tuple[BatchObject, float]] = []
    unchanged: dict[float, list[str]] = defaultdict(list)
    for look in looks:
        known = current.get(look.before.id)
        if known is not None and _is_unchanged(known, look.reported):
            unchanged[look.next_poll_at].append(known.id)
        else:
            others.append((look.reported, look.next_poll_at))
    for next_poll_at, ids in unchanged.items():
        for chunk in id_chunks(ids):
            tx.execute(sa.update(batch).where(batch.c.id.in_(chunk)).values(next_poll_at=next_poll_at))
    return observe_all(tx, current, others) if others else []


def _is_unchanged(known: Batch, reported: BatchObject) -> bool:
    if known.state is not BatchState.OPEN or known.missing_since is not None or reported.ended:
        return False
    return all(getattr(known, name) == value for name, value in batches.reported_columns(reported).items())
