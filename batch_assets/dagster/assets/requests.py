"""The step that materializes `<name>/requests`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice
from typing import Any

import dagster as dg
import pyarrow.parquet as pq

from batch_assets.core.dataset.partition_rows import rows_left_out
from batch_assets.core.io.layout import submission_parts
from batch_assets.core.io.slices import slices_of
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.remedies import Approve
from batch_assets.core.requests.build import build_requests
from batch_assets.core.requests.confirmation import Confirmation
from batch_assets.core.requests.gather import build_partitions
from batch_assets.core.requests.report import RequestsReport
from batch_assets.core.root import Root
from batch_assets.core.text import count
from batch_assets.dagster import keys
from batch_assets.dagster.assets.requests_config import RequestsConfig
from batch_assets.dagster.failures import explained, result_of
from batch_assets.dagster.metadata import markdown
from batch_assets.dagster.metadata.estimate import counts_of_rows, estimate_metadata, preview_metadata
from batch_assets.dagster.partitions import Event, GoOn, all_partitions, partitions_of, row_count_key
from batch_assets.dagster.remedies import as_text

# Of a long path its end is shown, with the line.
_LOCATION = 100
_SHOWN = 5


def materialize_requests(
    context: dg.AssetExecutionContext,
    root: Root,
    pipeline: Pipeline,
    partition: str,
    config: RequestsConfig,
    confirmation: Confirmation,
    table: Any = None,
) -> dg.MaterializeResult[Any]:
    """Read the dataset and write the request files. Nothing is sent.

    Args:
        context: The context of the step.
        root: The root.
        pipeline: The pipeline.
        partition: The partition key; "" without partitions.
        config: The config of the run.
        confirmation: Decides whether the request files are held; the same one for all partitions of the run.
        table: The value of the upstream asset, if the dataset is an asset.
    """
    with explained():
        report = build_requests(
            root, pipeline, partition, confirmation=confirmation, table=table, **asdict(config.ask_again)
        )
        return _reported(context, root, pipeline, partition, config, report)


def materialize_gathered(
    context: dg.AssetExecutionContext,
    root: Root,
    pipeline: Pipeline,
    config: RequestsConfig,
    confirmation: Confirmation,
    go_on: GoOn,
) -> Iterator[Event]:
    """Read the datasets of all partitions of the run, and gather them in the same request files. Nothing is sent.

    Args:
        context: The context of the step.
        root: The root.
        pipeline: The pipeline, whose `batching.across_partitions` is set.
        config: The config of the run.
        confirmation: See `materialize_requests`.
        go_on: See `all_partitions`.
    """
    partitions = partitions_of(context)
    outcomes = build_partitions(
        root,
        pipeline,
        partitions,
        config.ask_again,
        on_partition=lambda key: context.log.info(f"building partition {key}"),
        confirmation=confirmation,
    )

    def report(key: str) -> dg.MaterializeResult[Any]:
        with explained():
            return _reported(context, root, pipeline, key, config, result_of(outcomes[key]))

    yield from all_partitions(context, report, go_on)


def _reported(
    context: dg.AssetExecutionContext,
    root: Root,
    pipeline: Pipeline,
    partition: str,
    config: RequestsConfig,
    report: RequestsReport,
) -> dg.MaterializeResult[Any]:
    """Report the build of a partition."""
    context.log.info(
        f"{count(report.rows, 'row')}, {report.rejected:,} rejected; "
        f"{count(report.requests, 'distinct request')}: {report.written:,} to send, {report.reused:,} reused, "
        f"{report.in_flight:,} in flight"
        f"{'; part of a refresh' if report.is_refresh else ''}"
    )
    if report.is_unchanged:
        context.log.info(
            "The dataset and the pipeline are as they were, so no row was read: submission "
            f"{report.submission_id} remains in force"
        )
    if report.estimate is not None:
        context.log.info(f"Estimated cost: {report.estimate.as_text}")
    if report.why_held is not None:
        remedy = as_text(Approve(pipeline.name, partition))
        context.log.warning(f"The requests are held: {report.why_held}. {remedy}")
    if report.waits_for_pilot is not None:
        context.log.info(f"Requests are held: {report.waits_for_pilot}")
    if report.left_out:
        remedy = "refresh it again" if report.is_refresh and config.refresh else "run it without one"
        context.log.warning(
            f"The limit leaves out {count(report.left_out, 'more request')}: {remedy} to send them"
        )
    if report.rest is not None:
        context.log.info(f"Estimated cost of the requests beyond the limit: {report.rest.as_text}")
    if report.without_partition:
        left_out = rows_left_out(pipeline, report.without_partition, report.without_partition_examples)
        context.log.warning(left_out)
    for column in report.mixed_columns:
        context.log.warning(column.as_text)
    metadata = _metadata(root, pipeline, partition, report)
    metadata[row_count_key(partition)] = report.rows
    return dg.MaterializeResult(metadata=metadata)


def _metadata(root: Root, pipeline: Pipeline, partition: str, report: RequestsReport) -> dict[str, Any]:
    folder = submission_parts(pipeline.name, partition, report.submission_id)
    metadata: dict[str, Any] = {
        keys.SUBMISSION_ID: report.submission_id,
        **counts_of_rows(report),
        keys.NEW: report.written,
        keys.FILES: len(report.files),
        keys.BYTES: report.bytes,
        keys.URI: root.storage.uri(*folder),
        keys.TABLE: dg.MetadataValue.path(root.storage.uri(*folder, "index.parquet")),
    }
    metadata |= estimate_metadata(report.estimate, report.rest) | preview_metadata(report)
    if report.why_held is not None:
        metadata[keys.HELD] = f"{report.why_held}. {as_text(Approve(pipeline.name, partition))}"
    if report.waits_for_pilot is not None:
        metadata[keys.PILOT] = report.waits_for_pilot
    if report.without_partition:
        metadata[keys.WITHOUT_PARTITION] = report.without_partition
    if report.mixed_columns:
        rows = [
            {
                "column": mixed.column,
                "most values": mixed.kind,
                "others": f"{mixed.misfits:,} of {mixed.values:,}",
                "first of these": repr(mixed.first),
                "file": mixed.location[-_LOCATION:],
            }
            for mixed in report.mixed_columns
        ]
        metadata[keys.MIXED_COLUMNS] = markdown.table(list(rows[0]), rows)
    if report.rejected:
        with pq.ParquetFile(root.storage.open(*folder, "rejected.parquet"), pre_buffer=False) as file:
            rows = list(
                islice((row for batch in slices_of(file, most_rows=_SHOWN) for row in batch.to_pylist()), _SHOWN)
            )
        metadata[keys.REJECTED_ROWS] = markdown.table(list(rows[0]), rows)
    return metadata
