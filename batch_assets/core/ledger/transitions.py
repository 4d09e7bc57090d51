"""The history of a pipeline: all transitions, in order."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from batch_assets.core.ledger.connection import Transaction
from batch_assets.core.ledger.states import EntityKind
from batch_assets.core.ledger.tables import batch, history, request_file, round_, submission


@dataclass(frozen=True)
class Transition:
    """One line of the history.

    Attributes:
        seq: Its number.
        at: Seconds since 1970 by the ledger's clock.
        process: Host and process id of the process that made the transition.
        kind: The kind of the entity.
        entity: The id of the entity; `<submission>:<number>` for a round.
        before: The state before; `None` if the entity did not exist.
        after: The state after.
        reason: The reason.
    """

    seq: int
    at: float
    process: str
    kind: EntityKind
    entity: str
    before: str | None
    after: str
    reason: str


def of_pipeline(tx: Transaction, pipeline: str) -> list[Transition]:
    """Return all transitions of a pipeline's submissions, request files, batches and rounds, oldest first."""
    ids = sa.select(submission.c.id).where(submission.c.pipeline == pipeline)
    rounds = (
        sa.select(round_.c.submission_id + ":" + sa.cast(round_.c.number, sa.String))
        .join(submission, submission.c.id == round_.c.submission_id)
        .where(submission.c.pipeline == pipeline)
    )
    entities = {
        EntityKind.SUBMISSION: ids,
        EntityKind.FILE: sa.select(request_file.c.id).where(request_file.c.pipeline == pipeline),
        EntityKind.BATCH: sa.select(batch.c.id).where(batch.c.pipeline == pipeline),
        EntityKind.ROUND: rounds,
    }
    of_entities = [sa.and_(history.c.kind == kind, history.c.entity.in_(ids)) for kind, ids in entities.items()]
    rows = tx.execute(sa.select(history).where(sa.or_(*of_entities)).order_by(history.c.seq))
    return [
        Transition(row.seq, row.at, row.process, row.kind, row.entity, row.from_state, row.to_state, row.reason)
        for row in rows
    ]
