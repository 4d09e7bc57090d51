"""Remove what the index of answers does not need any more. See `answer_index`."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from batch_assets.core.ledger.answer_index import IS_REQUEST_FILE, RETIRED, bytes_of, pieces, used
from batch_assets.core.ledger.connection import Transaction
from batch_assets.core.ledger.id_chunks import id_chunks
from batch_assets.core.ledger.states import FILES_IN_FLIGHT
from batch_assets.core.ledger.tables import answer, asked, indexed_file, request_file

PARTS = 16
"""Responses that are not used any more are removed in this many transactions."""


def retire(tx: Transaction, numbers: Collection[int]) -> None:
    """Stop to use some numbers. A process that read of them before may still ask for them for a while."""
    for chunk in id_chunks(sorted(numbers)):
        statement = sa.update(indexed_file).where(indexed_file.c.number.in_(chunk))
        tx.execute(statement.values(version=RETIRED, indexed_at=tx.now))


def settled(tx: Transaction, pipeline: str) -> list[int]:
    """Return the numbers of the request files of a pipeline that are not in flight any more."""
    statement = (
        sa.select(indexed_file.c.number)
        .outerjoin(request_file, request_file.c.id == indexed_file.c.name)
        .where(
            used(pipeline),
            IS_REQUEST_FILE,
            sa.or_(request_file.c.id.is_(None), request_file.c.state.not_in(FILES_IN_FLIGHT)),
        )
    )
    return [*tx.execute(statement).scalars()]


def unfinished(tx: Transaction, pipeline: str, before: float) -> list[int]:
    """Return the numbers under which killed processes began to add a file before a time."""
    statement = sa.select(indexed_file.c.number).where(
        used(pipeline), indexed_file.c.requests.is_(None), indexed_file.c.indexed_at < before
    )
    return [*tx.execute(statement).scalars()]


def retired(tx: Transaction, pipeline: str, before: float) -> tuple[list[int], list[int]]:
    """Return the numbers of a pipeline's response files, and of its request files, retired before a time."""
    statement = sa.select(indexed_file.c.number, IS_REQUEST_FILE.label("is_request_file")).where(
        indexed_file.c.pipeline == pipeline,
        indexed_file.c.version == RETIRED,
        indexed_file.c.indexed_at < before,
    )
    rows = [*tx.execute(statement)]
    responses = [row.number for row in rows if not row.is_request_file]
    return responses, [row.number for row in rows if row.is_request_file]


def remove_answers(tx: Transaction, numbers: Sequence[int], part: int) -> None:
    """Remove the responses of some response files, in one of PARTS parts of the digests."""
    size = 256 // PARTS
    in_part = answer.c.digest >= bytes([size * part])
    if part < PARTS - 1:
        in_part = sa.and_(in_part, answer.c.digest < bytes([size * (part + 1)]))
    for chunk in id_chunks(numbers):
        tx.execute(sa.delete(answer).where(in_part, answer.c.file_number.in_(chunk)))


def remove_asked(tx: Transaction, number: int) -> None:
    """Remove the requests of a request file."""
    tx.execute(sa.delete(asked).where(asked.c.file_number == number))


def remove_numbers(tx: Transaction, numbers: Sequence[int]) -> None:
    """Remove numbers, after everything under them was removed."""
    for chunk in id_chunks(numbers):
        tx.execute(sa.delete(indexed_file).where(indexed_file.c.number.in_(chunk)))


def erase(tx: Transaction, pipeline: str, digests: NDArray[np.bytes_]) -> None:
    """Remove requests that no row of a pipeline has any more, after its files were rewritten without them."""
    of_pipeline = sa.select(indexed_file.c.number).where(indexed_file.c.pipeline == pipeline)
    numbers = set(tx.execute(of_pipeline).scalars())
    for digest in pieces(bytes_of(digests)) if numbers else ():
        for table in (answer, asked):
            holding = tx.execute(sa.select(table.c.file_number).where(table.c.digest == digest)).scalars()
            for number in numbers.intersection(holding):
                tx.execute(sa.delete(table).where(table.c.digest == digest, table.c.file_number == number))
