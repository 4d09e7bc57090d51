"""What builds estimated, and the request files whose answers later estimates are made from."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from batch_assets.core.answers.result_types import ResultType
from batch_assets.core.ledger.connection import Transaction
from batch_assets.core.ledger.records import RequestFile, to_record
from batch_assets.core.ledger.states import BATCHES_NOT_STORED
from batch_assets.core.ledger.tables import batch, request_file, submission


@dataclass(frozen=True)
class AnsweredFile:
    """A request file whose answers are stored.

    Attributes:
        file: The file.
        batch_id: Its batch.
        estimate: What the build of its submission estimated, as JSON; `None` if that is not on record.
    """

    file: RequestFile
    batch_id: str
    estimate: str | None


def answered_files(tx: Transaction, pipeline: str, most: int) -> list[AnsweredFile]:
    """Return the request files of a pipeline that were collected last, the newest first.

    Args:
        tx: The transaction.
        pipeline: The name of the pipeline.
        most: The most files.
    """
    collected = (
        sa.select(request_file.c.id)
        .where(request_file.c.pipeline == pipeline, request_file.c.collected_seq.is_not(None))
        .order_by(request_file.c.collected_seq.desc())
        .limit(most)
        .subquery()
    )
    stored = sa.and_(batch.c.file_id == request_file.c.id, batch.c.state.not_in(BATCHES_NOT_STORED))
    # Joined, and not a list of ids, for which all files that were ever collected would be read in their order. And
    # no condition names what nearly all batches have: they would all be read, by the index of it.
    statement = (
        sa.select(request_file, batch.c.id.label("stored_id"), submission.c.estimate)
        .select_from(collected.join(request_file, request_file.c.id == collected.c.id).join(batch, stored))
        .join(submission, submission.c.id == request_file.c.submission_id)
        .where(batch.c.paid_twice.is_not(True))
        .order_by(request_file.c.collected_seq.desc())
    )
    rows: Any = tx.execute(statement)
    return [AnsweredFile(to_record(RequestFile, row), row.stored_id, row.estimate) for row in rows]


def answers_on_record(tx: Transaction, pipeline: str, begins: str, enough: int) -> int:
    """Count answers that are stored, by what the API has reported of their batches.

    Args:
        tx: The transaction.
        pipeline: The name of the pipeline.
        begins: What the estimates of their submissions begin with, as JSON. Follow-ups do not count.
        enough: The number from which on the files need not be counted any more: so many of the newest ones count.
    """
    statement = (
        sa.select(batch.c.counts)
        .select_from(request_file)
        .join(submission, submission.c.id == request_file.c.submission_id)
        .join(batch, batch.c.file_id == request_file.c.id)
        .where(
            request_file.c.pipeline == pipeline,
            request_file.c.collected_seq.is_not(None),
            request_file.c.follows.is_not(True),
            submission.c.estimate.startswith(begins, autoescape=True),
            batch.c.state.not_in(BATCHES_NOT_STORED),
            batch.c.paid_twice.is_not(True),
        )
        .order_by(request_file.c.collected_seq.desc())
        .limit(enough)
    )
    return sum(json.loads(counts).get(ResultType.SUCCEEDED, 0) for counts in tx.execute(statement).scalars())
