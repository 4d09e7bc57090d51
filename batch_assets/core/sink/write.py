"""Copy complete results from the Parquet file into a database table, row by row by the row key.

What handles the types of databases is imported for a pipeline with a sink only: it takes long, and few have one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from batch_assets.core.answers.result_columns import PARTITION
from batch_assets.core.errors import SinkError
from batch_assets.core.io.layout import results_parts
from batch_assets.core.io.slices import slices_of
from batch_assets.core.ledger import leases
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.remedies import RunStage, Stage
from batch_assets.core.root import Root
from batch_assets.core.sink.target import Target
from batch_assets.core.store.result_table import ROW_KEY, completeness, noted_completeness, submission_of


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
        What was written, or `None` if the pipeline has no sink, or the results are now those of another submission
        or not complete. They are written once they are complete.

    Raises:
        SinkError: When the database cannot be reached or refuses. Names the table and says what to do. Nothing was
            changed.
    """
    sink = pipeline.config.sink
    if sink is None:
        return None
    from batch_assets.core.sink.put_rows import put_rows

    target = Target(pipeline, sink)
    # Partitions share the table, so they write one after the other.
    with leased(root, target) as lease:
        with pq.ParquetFile(root.storage.open(*results_parts(pipeline.name, partition)), pre_buffer=False) as file:
            schema = file.schema_arrow
            is_incomplete = noted_completeness(file) == completeness(is_complete=False)
            if is_incomplete or submission_of(schema) != submission_id:
                return None
            key = schema.metadata[ROW_KEY.encode()].decode()
            try:
                rows = put_rows(target, schema, [key], partition, _checked(slices_of(file), lease))
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
    from batch_assets.core.sink.put_rows import check_names

    target = Target(pipeline, sink)
    lease = leased(root, target) if target.is_file else nullcontext()
    with lease, target.transaction() as connection:
        check_names(target, connection.dialect, [*([PARTITION] if partition else []), *columns])


def leased(root: Root, target: Target) -> AbstractContextManager[leases.Lease]:
    """Hold the lease for writing the table of a sink for the block."""
    return leases.hold(
        root.ledger, target.lease, wait=leases.PATIENCE, work=f"the table {target.name} of the sink"
    )


def _checked(batches: Iterator[pa.RecordBatch], lease: leases.Lease) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        lease.check()
        yield batch
