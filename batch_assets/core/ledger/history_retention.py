"""Remove lines of the history that nothing needs any more: those of submissions that were superseded long ago.

Some lines are evidence, which the ledger records nowhere else. They stay.
"""

from __future__ import annotations

import sqlalchemy as sa

from batch_assets.core.ledger.connection import Transaction
from batch_assets.core.ledger.states import BATCHES_UNCOLLECTED, FILES_IN_FLIGHT, BatchState, EntityKind
from batch_assets.core.ledger.submissions import REMOVED
from batch_assets.core.ledger.tables import batch, history, request_file, round_, submission

# The states of lines that are read again: which request files were removed from the root on purpose, when a batch
# was collected (it is deleted at the API some days later), and whether the API has certainly deleted it.
_EVIDENCE: dict[EntityKind, list[str]] = {
    EntityKind.SUBMISSION: [],
    EntityKind.FILE: [REMOVED],
    EntityKind.BATCH: [BatchState.COLLECTED, BatchState.DELETED],
    EntityKind.ROUND: [],
}


def remove_old(tx: Transaction, pipeline: str, before: float, most: int) -> int:
    """Remove the history of submissions of a pipeline, except for lines that are evidence.

    These submissions were superseded before a time, and none of their files is in flight and none of their batches
    uncollected. The newest line of the ledger is never removed: later numbers are greater than its number.

    Args:
        tx: The transaction.
        pipeline: The name of the pipeline.
        before: The time, by the ledger's clock.
        most: The number of submissions at most. Those that were superseded first come first.

    Returns:
        The number of submissions.
    """
    ids = list(tx.execute(_old(pipeline, before).order_by(submission.c.superseded_at).limit(most)).scalars())
    if not ids:
        return 0
    newest = tx.last_seq()
    for kind, entities in _entities(ids).items():
        of_kind = sa.and_(history.c.kind == kind, history.c.entity.in_(entities))
        is_needed = sa.or_(history.c.to_state.in_(_EVIDENCE[kind]), history.c.seq == newest)
        tx.execute(sa.delete(history).where(of_kind, ~is_needed))
    tx.execute(sa.update(submission).where(submission.c.id.in_(ids)).values(history_removed_at=tx.now))
    return len(ids)


def is_due(tx: Transaction, pipeline: str, before: float) -> bool:
    """Whether `remove_old` would remove the history of a submission."""
    return tx.execute(_old(pipeline, before).limit(1)).first() is not None


def _old(pipeline: str, before: float) -> sa.Select[tuple[str]]:
    in_flight = sa.exists().where(
        request_file.c.submission_id == submission.c.id, request_file.c.state.in_(FILES_IN_FLIGHT)
    )
    uncollected = sa.exists().where(
        request_file.c.submission_id == submission.c.id,
        batch.c.file_id == request_file.c.id,
        batch.c.state.in_(BATCHES_UNCOLLECTED),
    )
    return (
        sa.select(submission.c.id)
        .where(submission.c.pipeline == pipeline, submission.c.history_removed_at.is_(None))
        .where(submission.c.superseded_at <= before, ~in_flight, ~uncollected)
    )


def _entities(ids: list[str]) -> dict[EntityKind, sa.Select[tuple[str]]]:
    """Select by kind the ids of everything that belongs to some submissions, as the history has them."""
    files = sa.select(request_file.c.id).where(request_file.c.submission_id.in_(ids))
    return {
        EntityKind.SUBMISSION: sa.select(submission.c.id).where(submission.c.id.in_(ids)),
        EntityKind.FILE: files,
        EntityKind.BATCH: sa.select(batch.c.id).where(batch.c.file_id.in_(files)),
        EntityKind.ROUND: sa.select(round_.c.submission_id + ":" + sa.cast(round_.c.number, sa.String)).where(
            round_.c.submission_id.in_(ids)
        ),
    }
