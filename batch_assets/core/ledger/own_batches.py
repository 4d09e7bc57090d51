"""The batches of a submission's own request files, and how long they took by the ledger's times."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from batch_assets.core.ledger.connection import Transaction
from batch_assets.core.ledger.states import BatchState, EntityKind, FileState
from batch_assets.core.ledger.tables import batch, history, request_file


@dataclass(frozen=True)
class OwnBatches:
    """The batches of the request files that a submission wrote, including retries.

    Times are the seconds of the batch that took longest; `None` if no batch has both a start and an end. A rebuilt
    ledger does not know `queue` and `collection`.

    Attributes:
        ids: The ids of the batches, and of the groups of live calls for their requests.
        bytes: The bytes of their request files.
        queue: From the registration of a request file until the API accepted it.
        processing: From the creation of a batch to its end, by the API's clock.
        collection: From the end of a batch until its answers were in the response store.
    """

    ids: frozenset[str]
    bytes: int
    queue: float | None
    processing: float | None
    collection: float | None


def own_batches(tx: Transaction, submission_id: str) -> OwnBatches:
    """Read the batches of a submission's own request files."""
    registered = _first(EntityKind.FILE, request_file.c.id, None, FileState.READY)
    collected = _first(EntityKind.BATCH, batch.c.id, BatchState.ENDED, BatchState.COLLECTED)
    statement = (
        sa.select(
            batch.c.id,
            request_file.c.bytes,
            (batch.c.submitted_at - registered).label("queue"),
            (batch.c.ended_at - batch.c.created_at).label("processing"),
            (collected - batch.c.ended_at).label("collection"),
        )
        .join(request_file, request_file.c.id == batch.c.file_id)
        .where(request_file.c.submission_id == submission_id)
    )
    rows = tx.execute(statement).all()
    of_live_calls = (
        sa.select(batch.c.id)
        .join(request_file, request_file.c.id == batch.c.live_of)
        .where(request_file.c.submission_id == submission_id)
    )
    return OwnBatches(
        ids=frozenset([*(row.id for row in rows), *tx.execute(of_live_calls).scalars()]),
        bytes=sum(row.bytes for row in rows),
        queue=_longest([row.queue for row in rows]),
        processing=_longest([row.processing for row in rows]),
        collection=_longest([row.collection for row in rows]),
    )


def _first(
    kind: EntityKind, entity: sa.ColumnElement[str], before: str | None, after: str
) -> sa.ScalarSelect[float]:
    """Select the time at which an entity first made a transition."""
    came_from = history.c.from_state.is_(None) if before is None else history.c.from_state == before
    return (
        sa.select(sa.func.min(history.c.at))
        .where(history.c.kind == kind, history.c.entity == entity, came_from, history.c.to_state == after)
        .scalar_subquery()
    )


def _longest(times: list[float | None]) -> float | None:
    """Return the longest time. Never negative, although two clocks may disagree by a little."""
    return max((max(0.0, time) for time in times if time is not None), default=None)
