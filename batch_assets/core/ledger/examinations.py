"""What is known about the tables of a pipeline's partitions without reading them."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from batch_assets.core.answers.result_types import ResultType
from batch_assets.core.ledger.connection import Transaction
from batch_assets.core.ledger.overview import files_of
from batch_assets.core.ledger.records import Submission, to_records
from batch_assets.core.ledger.tables import submission


@dataclass(frozen=True)
class KnownTable:
    """What the ledger records about the table of one partition.

    Attributes:
        partition: The partition key; "" without partitions.
        rows: The number of rows of the dataset.
        counts: Rows by result_type.
        examined: The numbers that the last examination of the table noted; `None` if it has not been examined
            since it was written.
        in_flight: The number of request files that will still bring answers.
        retried: The number of failed requests that will be retried.
    """

    partition: str
    rows: int
    counts: dict[str, int]
    examined: dict[str, Any] | None
    in_flight: int
    retried: int


def note_examined(tx: Transaction, pipeline: str, partition: str, numbers: dict[str, Any]) -> None:
    """Record what an examination of a partition's table found. The next join forgets it."""
    has_table = submission.c.seq.in_(_tables(pipeline, partition))
    tx.execute(sa.update(submission).where(has_table).values(examined=json.dumps(numbers)))


def known_tables(tx: Transaction, pipeline: str, partitions: Collection[str]) -> list[KnownTable]:
    """Return what is known about the tables of some partitions of a pipeline, in order of creation.

    The number of statements does not grow with the number of partitions.
    """
    wanted = set(partitions)
    if not wanted:
        return []
    statement = sa.select(submission).where(submission.c.seq.in_(_tables(pipeline))).order_by(submission.c.seq)
    rows = [row for row in tx.execute(statement) if row.partition in wanted]
    counts = {row.id: dict(json.loads(row.counts)) for row in rows}
    pending = [row.id for row in rows if counts[row.id].get(ResultType.PENDING)]
    files = files_of(tx, pending) if pending else {}
    return [
        KnownTable(
            row.partition,
            row.rows,
            counts[row.id],
            json.loads(row.examined) if row.examined is not None else None,
            sum(
                file.state.in_flight or (file.collected_seq or 0) > (row.joined_seq or 0)
                for file in files.get(row.id, [])
            ),
            row.ask_again,
        )
        for row in rows
    ]


def with_table(tx: Transaction, pipeline: str) -> list[Submission]:
    """Return the submissions whose tables users read: one for each partition that has a table.

    While a table waits for answers, that is the submission of the complete table before it.
    """
    return to_records(Submission, tx.execute(sa.select(submission).where(submission.c.seq.in_(_tables(pipeline)))))


def _tables(pipeline: str, partition: str | None = None) -> sa.Select[tuple[int]]:
    """Select the `seq` of the submission whose table each partition has, or one of them.

    One whose table waits has not replaced it yet.
    """
    joined = submission.alias()
    newest = (
        sa.select(sa.func.max(joined.c.seq))
        .where(joined.c.pipeline == pipeline, joined.c.counts.is_not(None), ~joined.c.held_back)
        .group_by(joined.c.partition)
    )
    return newest if partition is None else newest.where(joined.c.partition == partition)
