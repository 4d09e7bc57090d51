"""Whose answers are stored, and since when: as numbers in the history."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from batch_assets.core.ledger.connection import Transaction
from batch_assets.core.ledger.states import BATCHES_STORED, FileState
from batch_assets.core.ledger.tables import batch, request_file


def collections(tx: Transaction, pipeline: str) -> tuple[int, int, int]:
    """Return how many response files a pipeline has, how many requests they answer, and the last collection.

    That is a number in the history. As long as it is the same, no request of the pipeline has got an answer other
    than by an import.
    """
    is_collected = request_file.c.state == FileState.COLLECTED
    is_import = sa.and_(batch.c.pipeline == pipeline, batch.c.file_id.is_(None), batch.c.state.in_(BATCHES_STORED))
    statement = sa.select(
        sa.func.count().filter(is_collected),
        sa.func.sum(request_file.c.requests).filter(is_collected),
        sa.func.max(request_file.c.collected_seq),
        sa.select(sa.func.count()).where(is_import).scalar_subquery(),
        sa.select(sa.func.sum(batch.c.requests)).where(is_import).scalar_subquery(),
    ).where(request_file.c.pipeline == pipeline)
    row: Any = tx.execute(statement).one()
    files, requests, last, imports, imported = row
    return int(files) + int(imports), int(requests or 0) + int(imported or 0), int(last or 0)


def last_collection(tx: Transaction, pipeline: str) -> int:
    """Return the number in the history of the last collection of a pipeline; 0 if there was none."""
    # The index has the newest one first. A maximum would be looked for among all files of the pipeline.
    newest = request_file.c.collected_seq.desc()
    of_pipeline = sa.and_(request_file.c.pipeline == pipeline, request_file.c.collected_seq.is_not(None))
    last = sa.select(request_file.c.collected_seq).where(of_pipeline).order_by(newest).limit(1)
    return int(tx.execute(last).scalar() or 0)


def batches_since(tx: Transaction, pipeline: str, seq: int) -> list[str | None]:
    """Return the ids of a pipeline's batches whose answers are stored, of the files collected after a number.

    Args:
        tx: The transaction.
        pipeline: The name of the pipeline.
        seq: A number in the history, as `last_collection` returns it.

    Returns:
        The ids; `None` for each of these files that has none, because its only request was given up.
    """
    is_stored = sa.and_(batch.c.file_id == request_file.c.id, batch.c.state.in_(BATCHES_STORED))
    statement = sa.select(batch.c.id).select_from(request_file.outerjoin(batch, is_stored))
    since = sa.and_(request_file.c.pipeline == pipeline, request_file.c.collected_seq > seq)
    return [*tx.execute(statement.where(since)).scalars()]


def stored_ids(tx: Transaction, pipeline: str) -> list[str]:
    """Return the ids of a pipeline's batches whose answers are stored, without imports."""
    (ids,) = tx.texts(
        [batch.c.id], batch.c.pipeline == pipeline, batch.c.state.in_(BATCHES_STORED), batch.c.file_id.is_not(None)
    )
    return ids
