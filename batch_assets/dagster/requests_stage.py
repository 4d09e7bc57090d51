"""The step behind `<name>/requests`."""

from __future__ import annotations

from itertools import islice
from typing import Any

import dagster as dg
import pyarrow.parquet as pq

from batch_assets.core.config import Pipeline
from batch_assets.core.requests import RequestsReport, build_requests
from batch_assets.core.root import Root, submission_parts
from batch_assets.dagster import keys, markdown
from batch_assets.dagster.failures import explained
from batch_assets.dagster.partitions import partition_of, row_count_key

_SHOWN = 5


def materialize_requests(
    context: dg.AssetExecutionContext, pipeline: Pipeline, table: Any = None
) -> dg.MaterializeResult[Any]:
    """Reads the dataset and writes the request files; nothing is sent.

    Args:
        table: the value of the asset that the dataset is, if it is one.
    """
    partition = partition_of(context)
    with explained(), Root.from_env() as root:
        report = build_requests(root, pipeline, partition, table=table)
        context.log.info(
            f"{report.rows} rows, {report.rejected} rejected; {report.requests} distinct requests: "
            f"{report.written} to send, {report.reused} answered before, {report.in_flight} in flight"
        )
        metadata = _metadata(root, pipeline, partition, report)
    metadata[row_count_key(partition)] = report.rows
    return dg.MaterializeResult(metadata=metadata)


def _metadata(root: Root, pipeline: Pipeline, partition: str, report: RequestsReport) -> dict[str, Any]:
    folder = submission_parts(pipeline.name, partition, report.submission_id)
    metadata: dict[str, Any] = {
        keys.SUBMISSION_ID: report.submission_id,
        keys.ROWS: report.rows,
        keys.REJECTED: report.rejected,
        keys.REQUESTS: report.requests,
        keys.NEW: report.written,
        keys.REUSED: report.reused,
        keys.IN_FLIGHT: report.in_flight,
        keys.FILES: len(report.files),
        keys.BYTES: report.bytes,
        keys.URI: root.storage.uri(*folder),
        keys.TABLE: dg.MetadataValue.path(root.storage.uri(*folder, "index.parquet")),
    }
    if report.rejected:
        with pq.ParquetFile(root.storage.open(*folder, "rejected.parquet")) as file:
            rows = list(islice((row for batch in file.iter_batches(_SHOWN) for row in batch.to_pylist()), _SHOWN))
        metadata[keys.REJECTED_ROWS] = markdown.table(list(rows[0]), rows)
    return metadata
