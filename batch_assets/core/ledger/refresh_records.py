"""Refreshes as the ledger knows them: submissions whose answers have to be newer than a time.

A refresh is recognized by its `fresh_after`, in seconds since 1970. Several submissions may be part of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from batch_assets.core.ledger.connection import Transaction
from batch_assets.core.ledger.id_chunks import id_chunks
from batch_assets.core.ledger.tables import batch, request_file, submission, wait

# Before any refresh. Unlike "is not NULL", a comparison is looked up in an index by SQLite.
_NEVER = 0.0


def refreshed_files(tx: Transaction, pipeline: str) -> list[tuple[str, str | None, float]]:
    """Return (file id, batch id, `fresh_after`) of the request files that refreshes wrote or wait on.

    A file appears once for each refresh, and each batch that it became or group of live calls for it.
    """
    of_refresh = sa.and_(submission.c.pipeline == pipeline, submission.c.fresh_after > _NEVER)
    written = (
        sa.select(request_file.c.id.label("file_id"), submission.c.fresh_after)
        .join(submission, submission.c.id == request_file.c.submission_id)
        .where(of_refresh)
    )
    others = (
        sa.select(wait.c.file_id, submission.c.fresh_after)
        .join(submission, submission.c.id == wait.c.submission_id)
        .where(of_refresh)
    )
    files = sa.union(written, others).subquery()
    statement = sa.select(files, batch.c.id.label("batch_id")).outerjoin(batch, batch.c.file_id == files.c.file_id)
    live = sa.select(files, batch.c.id.label("batch_id")).join(batch, batch.c.live_of == files.c.file_id)
    return [(row.file_id, row.batch_id, row.fresh_after) for row in tx.execute(sa.union_all(statement, live))]


def last_refresh(tx: Transaction, pipeline: str) -> float | None:
    """Return the newest `fresh_after` of a pipeline; `None` before any refresh."""
    statement = sa.select(sa.func.max(submission.c.fresh_after)).where(submission.c.pipeline == pipeline)
    fresh_after = tx.execute(statement).scalar_one()
    return float(fresh_after) if fresh_after is not None else None


def of_refresh(tx: Transaction, pipeline: str, partition: str, fresh_after: float) -> tuple[bool, bool]:
    """Return (whether a run began to send a refresh, whether a submission of it left no requests out)."""
    statement = sa.select(sa.func.max(submission.c.began_at), sa.func.min(submission.c.left_out)).where(
        submission.c.pipeline == pipeline,
        submission.c.partition == partition,
        submission.c.fresh_after == fresh_after,
    )
    row: Any = tx.execute(statement).one()
    began_at, left_out = row
    return began_at is not None, left_out == 0


def of_refreshes(tx: Transaction, ids: Sequence[str]) -> dict[str, tuple[bool, bool]]:
    """Return `of_refresh` of the refreshes that some submissions are part of, by submission id."""
    progress: dict[str, tuple[bool, bool]] = {}
    part = submission.alias()
    same = sa.and_(
        submission.c.pipeline == part.c.pipeline,
        submission.c.partition == part.c.partition,
        submission.c.fresh_after == part.c.fresh_after,
    )
    last_began, least_left = sa.func.max(submission.c.began_at), sa.func.min(submission.c.left_out)
    for chunk in id_chunks(ids):
        statement = (
            sa.select(part.c.id, last_began.label("began_at"), least_left.label("left_out"))
            .select_from(part)
            .join(submission, same)
            .where(part.c.id.in_(chunk))
            .group_by(part.c.id)
        )
        for row in tx.execute(statement):
            progress[row.id] = row.began_at is not None, row.left_out == 0
    return progress
