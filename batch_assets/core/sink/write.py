"""Copy complete results from the Parquet file into a database table, row by row by the row key."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import sqlalchemy as sa

from batch_assets.core.answers.result_columns import PARTITION
from batch_assets.core.errors import SinkError
from batch_assets.core.io.database import MYSQL
from batch_assets.core.io.layout import results_parts
from batch_assets.core.io.slices import slices_of
from batch_assets.core.ledger import leases
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.remedies import RunStage, Stage
from batch_assets.core.root import Root
from batch_assets.core.sink import mysql
from batch_assets.core.sink.table import SinkTable, folded
from batch_assets.core.sink.target import Target
from batch_assets.core.store.result_table import ROW_KEY, submission_of


@dataclass(frozen=True)
class SinkReport:
    """Report of one write to the sink.

    Attributes:
        table: The name of the table, with its schema if it has one.
        rows: The number of rows that were inserted or updated.
    """

    table: str
    rows: int


def write_sink(root: Root, pipeline: Pipeline, partition: str, submission_id: str) -> SinkReport | None:
    """Insert or update every row of the results by its row key, all in one transaction.

    The table is created if it does not exist, and missing columns are added. Other columns stay, and so do rows
    that are no longer in the dataset. Writing the same results again changes nothing.

    Args:
        root: The root.
        pipeline: The pipeline.
        partition: The partition key; "" without partitions.
        submission_id: The submission whose complete results should be written.

    Returns:
        What was written, or `None` if the pipeline has no sink or the results are now those of another submission.
        Those may be incomplete, and are written once they are complete.

    Raises:
        SinkError: When the database cannot be reached or refuses. Names the table and says what to do. Nothing was
            changed.
    """
    sink = pipeline.config.sink
    if sink is None:
        return None
    target = Target(pipeline, sink)
    # Partitions share the table, so they write one after the other.
    with leased(root, target) as lease:
        with pq.ParquetFile(root.storage.open(*results_parts(pipeline.name, partition)), pre_buffer=False) as file:
            schema = file.schema_arrow
            if submission_of(schema) != submission_id:
                return None
            key = schema.metadata[ROW_KEY.encode()].decode()
            try:
                rows = _write(target, schema, [key], partition, _checked(slices_of(file), lease))
            except SinkError as error:
                raise SinkError(
                    f"{error}. The results are complete in Parquet: fix this, then write them again",
                    remedy=RunStage(Stage.RESULTS, pipeline.name, partition),
                ) from None
        return SinkReport(target.name, rows)


def check_sink(root: Root, pipeline: Pipeline, columns: Iterable[str], partition: str = "") -> None:
    """Check the sink before anything is paid for: connect, and check the names. Changes nothing.

    Args:
        root: The root.
        pipeline: The pipeline.
        columns: The names of the columns of results.
        partition: The partition key; "" without partitions.

    Raises:
        SinkError: When the database cannot be reached, or cannot have columns of these names.
    """
    sink = pipeline.config.sink
    if sink is None:
        return
    target = Target(pipeline, sink)
    lease = leased(root, target) if target.is_file else nullcontext()
    with lease, target.transaction() as connection:
        _check_names(target, connection.dialect, [*([PARTITION] if partition else []), *columns])


def leased(root: Root, target: Target) -> AbstractContextManager[leases.Lease]:
    """Hold the lease for writing the table of a sink for the block."""
    return leases.hold(
        root.ledger, target.lease, wait=leases.PATIENCE, work=f"the table {target.name} of the sink"
    )


def _check_names(target: Target, dialect: sa.Dialect, names: list[str]) -> None:
    by_folded_name: dict[str, str] = {}
    most = dialect.max_identifier_length if dialect.name == "postgresql" else None
    is_mysql = dialect.name in MYSQL
    if is_mysql and (problem := mysql.problem_of_name(target.short)) is not None:
        raise SinkError(f"{target.field}.table: the name {target.short!r} {problem}: choose another name")
    remedy = "give it another name in `dataset.columns`, written as a map, or in the output schema"
    if most is not None and len(target.short.encode()) > most:
        raise SinkError(
            f"{target.field}.table: {dialect.name} allows names of at most {most} bytes, and {target.short!r} is "
            "longer: choose a shorter name"
        )
    for name in names:
        problem = None
        if not name or "\x00" in name:
            problem = "has a name that a database cannot have"
        elif (same := by_folded_name.setdefault(folded(name, dialect.name), name)) is not name:
            problem = f"and {same!r} have the same name for {dialect.name}"
        elif most is not None and len(name.encode("utf-8", "replace")) > most:
            problem = f"has a name longer than the {most} bytes that {dialect.name} allows"
        elif is_mysql:
            problem = mysql.problem_of_name(name)
        if problem is not None:
            raise SinkError(f"{target.field}: the column {name!r} {problem}: {remedy}")


def _write(
    target: Target, schema: pa.Schema, keys: list[str], partition: str, batches: Iterator[pa.RecordBatch]
) -> int:
    if partition:
        keys = [PARTITION, *keys]
        schema = schema.insert(0, pa.field(PARTITION, pa.string()))
    key_names = ", ".join(keys)
    count = 0
    with target.transaction() as connection:
        _check_names(target, connection.dialect, schema.names)
        with target.explained(key_names):
            table = SinkTable(connection, target, schema, keys)
        for batch in batches:
            rows = pa.Table.from_batches([batch])
            if rows.column(keys[-1]).null_count:  # lines that could not be read have no key
                rows = rows.filter(pc.is_valid(rows.column(keys[-1])))
            if partition:
                rows = rows.add_column(0, PARTITION, pa.array([partition] * len(rows), pa.string()))
            with target.explained(key_names):
                table.put(rows)
            count += len(rows)
    return count


def _checked(batches: Iterator[pa.RecordBatch], lease: leases.Lease) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        lease.check()
        yield batch
