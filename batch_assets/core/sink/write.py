"""A copy of the results in a table of a database, row by row by their key. The Parquet file comes first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy as sa

from batch_assets.core.answers.result_columns import PARTITION
from batch_assets.core.errors import SinkError
from batch_assets.core.io.layout import results_parts
from batch_assets.core.ledger import leases
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.root import Root
from batch_assets.core.sink.table import SinkTable, folded
from batch_assets.core.sink.target import Target
from batch_assets.core.store.result_table import ROW_KEY, submission_of

_ROWS_AT_ONCE = 5000


@dataclass(frozen=True)
class SinkReport:
    """What was written.

    Attributes:
        table: its name, with its schema if it has one.
        rows: that were inserted or updated.
    """

    table: str
    rows: int


def write_sink(root: Root, pipeline: Pipeline, partition: str, submission_id: str) -> SinkReport | None:
    """Inserts or updates every row of the results by its row key, all of them in one transaction.

    The table is made when it is not there, and columns that it lacks are added; columns of others stay. Rows that
    are in the dataset no more stay as well. Doing it again changes nothing.

    Args:
        submission_id: whose results are complete and meant.

    Returns:
        None for a pipeline without a sink, and when the results of another submission are in force by now: they
        may not be complete, and come here when they are.

    Errors:
        SinkError: the database cannot be reached or refuses, naming the table and what to do. Nothing was changed.
    """
    sink = pipeline.config.sink
    if sink is None:
        return None
    target = Target(pipeline, sink)
    # One after the other: partitions share the table.
    with leases.hold(root.ledger, target.lease, wait=leases.PATIENCE) as lease:
        with pq.ParquetFile(root.storage.open(*results_parts(pipeline.name, partition))) as file:
            schema = file.schema_arrow
            if submission_of(schema) != submission_id:
                return None
            key = schema.metadata[ROW_KEY.encode()].decode()
            try:
                rows = _write(target, schema, [key], partition, _checked(file.iter_batches(_ROWS_AT_ONCE), lease))
            except SinkError as error:
                rest = "The results are complete in Parquet; materialize results again when it is mended"
                raise SinkError(f"{error}. {rest}") from None
        return SinkReport(target.name, rows)


def check_sink(root: Root, pipeline: Pipeline, columns: Iterable[str], partition: str = "") -> None:
    """Tries the sink before anything is paid for: connects, and looks at the names. Changes nothing.

    Args:
        columns: the names of the results' columns.

    Errors:
        SinkError: it cannot be reached, or cannot have such columns.
    """
    sink = pipeline.config.sink
    if sink is None:
        return
    target = Target(pipeline, sink)
    turn = leases.hold(root.ledger, target.lease, wait=leases.PATIENCE) if target.is_file else nullcontext()
    with turn, target.transaction() as connection:
        _check_names(target, connection.dialect, [*([PARTITION] if partition else []), *columns])


def _check_names(target: Target, dialect: sa.Dialect, names: list[str]) -> None:
    seen: dict[str, str] = {}
    most = dialect.max_identifier_length if dialect.name == "postgresql" else None
    remedy = "give it another name in `dataset.columns`, written as a map, or in the output schema"
    if most is not None and len(target.short.encode()) > most:
        raise SinkError(
            f"{target.where}.table: {dialect.name} takes names of {most} bytes at most, and {target.short!r} is "
            "longer: name another"
        )
    for name in names:
        problem = None
        if not name or "\x00" in name:
            problem = "is no name in a database"
        elif (other := seen.setdefault(folded(name, dialect.name), name)) is not name:
            problem = f"and {other!r} are the same name for {dialect.name}"
        elif most is not None and len(name.encode("utf-8", "replace")) > most:
            problem = f"is longer than the {most} bytes that {dialect.name} takes"
        if problem is not None:
            raise SinkError(f"{target.where}: the column {name!r} {problem}: {remedy}")


def _write(
    target: Target, schema: pa.Schema, keys: list[str], partition: str, batches: Iterator[pa.RecordBatch]
) -> int:
    if partition:
        keys = [PARTITION, *keys]
        schema = schema.insert(0, pa.field(PARTITION, pa.string()))
    shown = ", ".join(keys)
    count = 0
    with target.transaction() as connection:
        _check_names(target, connection.dialect, schema.names)
        with target.explained(shown):
            table = SinkTable(connection, target, schema, keys)
        for batch in batches:
            rows = pa.Table.from_batches([batch])
            if partition:
                rows = rows.add_column(0, PARTITION, pa.array([partition] * len(batch), pa.string()))
            with target.explained(shown):
                table.put(rows)
            count += len(batch)
    return count


def _checked(batches: Iterator[pa.RecordBatch], lease: leases.Lease) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        lease.check()
        yield batch
