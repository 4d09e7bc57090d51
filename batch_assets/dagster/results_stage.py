"""The step behind `<name>/results`: materialized only when every row has its final type."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dagster as dg

from batch_assets.core.chain import CollectedResults, collect_results
from batch_assets.core.config import Pipeline
from batch_assets.core.errors import EndpointMismatchError, SettingsError
from batch_assets.core.ledger import submissions
from batch_assets.core.poll import poll
from batch_assets.core.results import ResultsReport
from batch_assets.core.root import Root
from batch_assets.core.sink import write_sink
from batch_assets.dagster import keys, rounds
from batch_assets.dagster.failures import explained
from batch_assets.dagster.partitions import partition_of, row_count_key
from batch_assets.dagster.tables import failed_rows, sample_rows, table_schema

# Of a person's run, which looks at the batches itself: the sensor may be stopped.
_LOOK_SECONDS = 20.0


def materialize_results(
    context: dg.AssetExecutionContext, pipeline: Pipeline
) -> Iterator[dg.MaterializeResult[Any]]:
    """Collects what has ended and refreshes the table; yields only when the table is complete.

    Downstream assets hang on the materialization, so it comes once and on the whole. Before that an
    observation says how far it is, and the run stays green.
    """
    partition = partition_of(context)
    with explained(), Root.from_env() as root, rounds.closing(root, context.run.tags, when_done=True):
        unattended = rounds.is_unattended(context.run.tags)
        if not unattended:
            _look(context, root)
        retention = pipeline.config.retention
        done = collect_results(root, pipeline.name, partition, retention=retention, due_only=unattended)
        _log(context, done)
        report = done.results
        if report is None:
            context.log.info(f"Nothing was submitted yet: materialize {pipeline.name}/requests first.")
            return
        metadata = _metadata(done, report, partition)
        if not report.final:
            context.log.info(f"Not complete yet: {_in_words(report)}. The sensor goes on when more has ended.")
            context.log_event(
                dg.AssetObservation(context.asset_key, partition=partition or None, metadata=metadata)
            )
            return
        if rounds.is_unattended(context.run.tags) and not done.collected and _is_announced(root, report):
            # Another run did it while this one waited for its turn: what hangs on the table need not run again.
            context.log.info("Nothing is new: these results were materialized before.")
            return
        metadata |= _samples(root, pipeline, partition, report)
        if (written := write_sink(root, pipeline, partition, report.submission_id)) is not None:
            context.log.info(f"Table {written.table}: {written.rows} rows inserted or updated.")
            metadata[keys.SINK] = written.table
        elif pipeline.config.sink is not None:
            context.log.info("The sink was left alone: a newer submission is in force, and its run writes it.")
        yield dg.MaterializeResult(metadata=metadata)
        # Only now is the event in Dagster's log: a run killed before this line is repeated.
        with root.ledger.write() as tx:
            submissions.announced(tx, report.submission_id)


def _is_announced(root: Root, report: ResultsReport) -> bool:
    with root.ledger.read() as tx:
        return submissions.by_id(tx, report.submission_id).announced_at is not None


def _look(context: dg.AssetExecutionContext, root: Root) -> None:
    try:
        problems = poll(root, budget=_LOOK_SECONDS, now=True).problems
    except (EndpointMismatchError, SettingsError) as error:
        problems = [str(error)]  # the table can be joined anew without the API
    for problem in problems:
        context.log.warning(problem)


def _log(context: dg.AssetExecutionContext, done: CollectedResults) -> None:
    for batch in done.collected:
        context.log.info(f"collected {batch.batch_id}: {batch.requests} requests, {batch.bytes} bytes")
    for problem in done.problems:
        context.log.warning(problem)
    if done.results is not None and done.results.unpriced_models:
        models = ", ".join(sorted(done.results.unpriced_models))
        context.log.warning(f"The cost is not known: no price for {models}.")


def _in_words(report: ResultsReport) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in sorted(report.counts.items())) or "no rows"


def _metadata(done: CollectedResults, report: ResultsReport, partition: str) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        keys.SUBMISSION_ID: report.submission_id,
        row_count_key(partition): report.rows,
        **{keys.count_key(kind): count for kind, count in sorted(report.counts.items())},
        keys.INPUT_TOKENS: report.input_tokens,
        keys.OUTPUT_TOKENS: report.output_tokens,
        keys.INVALID_OUTPUTS: report.invalid_outputs,
        keys.URI: report.uri,
        keys.TABLE: dg.MetadataValue.path(report.uri),
    }
    if report.refused:
        metadata[keys.REFUSED_ANSWERS] = report.refused
    if report.truncated:
        metadata[keys.TRUNCATED_ANSWERS] = report.truncated
    if report.cost_usd is not None:
        metadata[keys.COST_USD] = report.cost_usd
    if done.problems:
        metadata[keys.PROBLEMS] = dg.MetadataValue.json(done.problems)
    return metadata


def _samples(root: Root, pipeline: Pipeline, partition: str, report: ResultsReport) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if report.schema is not None:
        found[keys.COLUMN_SCHEMA] = table_schema(report.schema)
    found[keys.SAMPLE] = sample_rows(root, pipeline, partition)
    if set(report.counts) - {"succeeded"}:
        found[keys.FAILED_ROWS] = failed_rows(root, pipeline, partition)
    return found
