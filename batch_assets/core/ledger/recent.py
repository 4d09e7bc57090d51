"""The batches that were sent last, with the partition that each is of."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from batch_assets.core.ledger.connection import Transaction
from batch_assets.core.ledger.records import Batch, Submission, to_record, to_records
from batch_assets.core.ledger.tables import batch, request_file, submission


@dataclass(frozen=True)
class RecentBatch:
    """A batch of ours.

    Attributes:
        batch: The batch.
        pipeline: The pipeline.
        partition: The partition key of its request file; "" without partitions.
        file_id: Its request file.
    """

    batch: Batch
    pipeline: str
    partition: str
    file_id: str

    @property
    def seconds(self) -> float | None:
        """How long the API took, from submission to end; `None` if it has not ended."""
        began, ended = self.batch.submitted_at or self.batch.created_at, self.batch.ended_at
        return max(0.0, ended - began) if began is not None and ended is not None else None


def recent_batches(tx: Transaction, most: int) -> list[RecentBatch]:
    """Return the batches that were created last of each pipeline, the newest first, with one statement.

    Args:
        tx: A transaction.
        most: The most batches that have ended, and the most others, of each pipeline.
    """
    newest = sa.func.coalesce(batch.c.created_at, batch.c.submitted_at, 0.0).desc(), batch.c.id
    place = sa.func.row_number().over(
        partition_by=[request_file.c.pipeline, batch.c.ended_at.is_(None)], order_by=newest
    )
    # Only ids are sorted: there may be many batches, and their lines are long.
    placed = (
        sa.select(batch.c.id, place.label("place"))
        .join(request_file, request_file.c.id == batch.c.file_id)
        .subquery()
    )
    statement = (
        sa.select(batch, request_file.c.partition, request_file.c.pipeline.label("owner"))
        .join(request_file, request_file.c.id == batch.c.file_id)
        .where(batch.c.id.in_(sa.select(placed.c.id).where(placed.c.place <= most)))
        .order_by(*newest)
    )
    return [
        RecentBatch(to_record(Batch, row), row.owner, row.partition, row.file_id) for row in tx.execute(statement)
    ]


def with_answers_of(tx: Transaction, batch_ids: list[str]) -> list[RecentBatch]:
    """Return batches by their ids, earliest first. Live calls and imported answers have no batch of the API.

    Args:
        tx: A transaction.
        batch_ids: At most some hundred ids.
    """
    statement = (
        sa.select(batch, request_file.c.partition, request_file.c.pipeline.label("owner"))
        .join(request_file, request_file.c.id == batch.c.file_id)
        .where(batch.c.id.in_(batch_ids))
        .order_by(sa.func.coalesce(batch.c.created_at, 0.0), batch.c.id)
    )
    return [
        RecentBatch(to_record(Batch, row), row.owner, row.partition, row.file_id) for row in tx.execute(statement)
    ]


def recent_submissions(tx: Transaction, pipeline: str, partition: str, most: int) -> list[Submission]:
    """Return the submissions of a partition that were built last, the newest first.

    Args:
        tx: A transaction.
        pipeline: The pipeline.
        partition: The partition key; "" without partitions.
        most: The most submissions.
    """
    statement = (
        sa.select(submission)
        .where(submission.c.pipeline == pipeline, submission.c.partition == partition)
        .order_by(submission.c.seq.desc())
        .limit(most)
    )
    return to_records(Submission, tx.execute(statement))
