"""The files under the root that the ledger knows of, to find out whether they are there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from batch_assets.core.ledger.connection import Transaction
from batch_assets.core.ledger.deadlines import KEPT_SECONDS
from batch_assets.core.ledger.id_chunks import id_chunks
from batch_assets.core.ledger.states import BATCHES_NOT_STORED, FILES_IN_FLIGHT, BatchState, EntityKind, FileState
from batch_assets.core.ledger.submissions import REMOVED
from batch_assets.core.ledger.tables import batch, history, request_file, submission


@dataclass(frozen=True)
class KnownSubmission:
    """A submission's folder: pipeline, partition key, and id."""

    pipeline: str
    partition: str
    id: str


@dataclass(frozen=True)
class KnownAnswers:
    """The stored answers of a batch, and the request file that they answer.

    Attributes:
        batch_id: The id of the batch.
        submission: The submission that wrote the request file.
        file_name: The name of the request file.
        is_at_api: Whether the API still has the answers, as far as is known.
    """

    batch_id: str
    submission: KnownSubmission
    file_name: str
    is_at_api: bool


def pipelines(tx: Transaction) -> list[str]:
    """Return the names of the pipelines that have a submission, in order."""
    return [*tx.execute(sa.select(submission.c.pipeline).distinct().order_by(submission.c.pipeline)).scalars()]


def newest_submissions(
    tx: Transaction, most: int | None = None, since: float = 0.0, pipeline: str | None = None
) -> list[KnownSubmission]:
    """Return submissions, newest first.

    Args:
        tx: The transaction.
        most: At most this many; `None` for all.
        since: Leave out those that were built before this time.
        pipeline: Those of this pipeline only; `None` for all pipelines.
    """
    columns = submission.c.pipeline, submission.c.partition, submission.c.id
    statement = sa.select(*columns).where(submission.c.created_at >= since).order_by(submission.c.seq.desc())
    if pipeline is not None:
        statement = statement.where(submission.c.pipeline == pipeline)
    rows = tx.execute(statement.limit(most) if most is not None else statement)
    return [KnownSubmission(row.pipeline, row.partition, row.id) for row in rows]


def by_ids(tx: Transaction, ids: Sequence[str]) -> dict[str, KnownSubmission]:
    """Return the submissions with these ids, of any pipeline, by id. Unknown ids are left out."""
    columns = submission.c.pipeline, submission.c.partition, submission.c.id
    chunks = (sa.select(*columns).where(submission.c.id.in_(chunk)) for chunk in id_chunks(ids))
    rows = [row for statement in chunks for row in tx.execute(statement)]
    return {row.id: KnownSubmission(row.pipeline, row.partition, row.id) for row in rows}


def partitions_of(tx: Transaction, pipeline: str) -> set[str]:
    """Return the partition keys of a pipeline's submissions."""
    statement = sa.select(submission.c.partition).distinct()
    statement = statement.where(submission.c.pipeline == pipeline, submission.c.superseded_at.is_(None))
    return set(tx.execute(statement).scalars())


def request_files(tx: Transaction, submission_ids: Iterable[str]) -> list[tuple[str, str, str, str]]:
    """Return (pipeline, partition key, submission id, name) of request files that should be under the root."""
    removed = sa.exists().where(
        history.c.kind == EntityKind.FILE, history.c.entity == request_file.c.id, history.c.to_state == REMOVED
    )
    columns = request_file.c.pipeline, request_file.c.partition, request_file.c.submission_id, request_file.c.name
    statement = (
        sa.select(*columns)
        .where(request_file.c.submission_id.in_(list(submission_ids)), ~removed)
        .where(request_file.c.state.in_([*FILES_IN_FLIGHT, FileState.COLLECTED]))
    )
    return [(row.pipeline, row.partition, row.submission_id, row.name) for row in tx.execute(statement)]


def stored_batches(tx: Transaction, submission_ids: Iterable[str]) -> list[tuple[str, str]]:
    """Return (pipeline, batch id) of the batches of submissions' own files whose answers are stored."""
    statement = (
        sa.select(request_file.c.pipeline, batch.c.id)
        .join(request_file, request_file.c.id == batch.c.file_id)
        .where(request_file.c.submission_id.in_(list(submission_ids)), batch.c.state.not_in(BATCHES_NOT_STORED))
    )
    return [(row.pipeline, row.id) for row in tx.execute(statement)]


def newest_answers(tx: Transaction, pipeline: str, most: int, since: float) -> list[KnownAnswers]:
    """Return a pipeline's batches whose answers are stored, those of the newest submissions first.

    Args:
        tx: The transaction.
        pipeline: The name of the pipeline.
        most: At most this many.
        since: Leave out those of submissions that were built before this time.
    """
    columns = (
        *(batch.c.id, batch.c.state, batch.c.created_at),
        *(request_file.c.partition, request_file.c.submission_id, request_file.c.name),
    )
    statement = (
        sa.select(*columns)
        .join(request_file, request_file.c.id == batch.c.file_id)
        .join(submission, submission.c.id == request_file.c.submission_id)
        .where(submission.c.pipeline == pipeline, batch.c.state.not_in(BATCHES_NOT_STORED))
        .where(submission.c.created_at >= since)
        .order_by(submission.c.seq.desc(), batch.c.created_at.desc(), batch.c.id)
        .limit(most)
    )
    return [
        KnownAnswers(
            row.id,
            KnownSubmission(pipeline, row.partition, row.submission_id),
            row.name,
            row.state == BatchState.COLLECTED and tx.now < (row.created_at or 0.0) + KEPT_SECONDS,
        )
        for row in tx.execute(statement)
    ]
