"""The history of a pipeline: all transitions, in order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from batch_assets.core.ledger.connection import Transaction
from batch_assets.core.ledger.states import EntityKind
from batch_assets.core.ledger.tables import batch, history, request_file, round_, submission, wait

# All lines of a pipeline with at most this many submissions are read: they may be anywhere in the history.
_FEW = 1000


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


def of_pipeline(tx: Transaction, pipeline: str, partition: str | None = None) -> list[Transition]:
    """Return all transitions of a pipeline's submissions, request files, batches and rounds, oldest first.

    Args:
        tx: The transaction.
        pipeline: The name of the pipeline.
        partition: Only those of this partition, with the files that its rows wait or waited on and their batches;
            `None` for all.
    """
    of_pipeline = submission.c.pipeline == pipeline
    files = sa.select(request_file.c.id).where(request_file.c.pipeline == pipeline)
    of_batches = batch.c.pipeline == pipeline
    if partition is not None:
        of_pipeline = sa.and_(of_pipeline, submission.c.partition == partition)
        waiting = wait.join(submission, submission.c.id == wait.c.submission_id)
        waited_on = sa.select(wait.c.file_id).select_from(waiting).where(of_pipeline)
        files = files.where(sa.or_(request_file.c.partition == partition, request_file.c.id.in_(waited_on)))
        of_batches = batch.c.file_id.in_(files)
    entities = {
        EntityKind.SUBMISSION: sa.select(submission.c.id).where(of_pipeline),
        EntityKind.FILE: files,
        EntityKind.BATCH: sa.select(batch.c.id).where(of_batches),
        EntityKind.ROUND: sa.select(round_.c.submission_id + ":" + sa.cast(round_.c.number, sa.String))
        .join(submission, submission.c.id == round_.c.submission_id)
        .where(of_pipeline),
    }
    of_entities = [sa.and_(history.c.kind == kind, history.c.entity.in_(ids)) for kind, ids in entities.items()]
    return _read(tx, sa.select(history).where(sa.or_(*of_entities)).order_by(history.c.seq))


def newest_of_pipeline(
    tx: Transaction, pipeline: str, most: int, partition: str | None = None
) -> list[Transition]:
    """Return the newest transitions of a pipeline, oldest first.

    Args:
        tx: The transaction.
        pipeline: The name of the pipeline.
        most: At most this many.
        partition: See `of_pipeline`.
    """
    if partition is not None:
        return of_pipeline(tx, pipeline, partition)[-most:]
    seqs = sa.select(submission.c.seq).where(submission.c.pipeline == pipeline).limit(_FEW + 1)
    if len(tx.execute(seqs).all()) <= _FEW:
        return of_pipeline(tx, pipeline)[-most:]
    # From the newest line back, each is looked up, until there are enough.
    submission_of_round = sa.func.rtrim(sa.func.rtrim(history.c.entity, "0123456789"), ":")
    entities = {
        EntityKind.SUBMISSION: sa.and_(submission.c.id == history.c.entity, submission.c.pipeline == pipeline),
        EntityKind.FILE: sa.and_(request_file.c.id == history.c.entity, request_file.c.pipeline == pipeline),
        EntityKind.BATCH: sa.and_(batch.c.id == history.c.entity, batch.c.pipeline == pipeline),
        EntityKind.ROUND: sa.and_(submission.c.id == submission_of_round, submission.c.pipeline == pipeline),
    }
    of_entities = [sa.and_(history.c.kind == kind, sa.exists().where(is_own)) for kind, is_own in entities.items()]
    newest = sa.select(history).where(sa.or_(*of_entities)).order_by(history.c.seq.desc()).limit(most)
    return _read(tx, newest)[::-1]


def _read(tx: Transaction, statement: sa.Select[Any]) -> list[Transition]:
    return [
        Transition(row.seq, row.at, row.process, row.kind, row.entity, row.from_state, row.to_state, row.reason)
        for row in tx.execute(statement)
    ]
