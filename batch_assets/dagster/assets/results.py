"""The step behind `<name>/results`: materialized only when every row has its final type."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import dagster as dg

from batch_assets.core.batches.poll import try_poll
from batch_assets.core.ledger import leases, submissions
from batch_assets.core.ledger.downloads import collecting_name
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.results.report import ResultsReport
from batch_assets.core.results.run import CollectedResults, collect_results
from batch_assets.core.root import Root
from batch_assets.core.sink.write import write_sink
from batch_assets.dagster import keys, rounds
from batch_assets.dagster.checks.settled import has_checks_of_others, settle_checks
from batch_assets.dagster.failures import explained
from batch_assets.dagster.metadata.columns import columns_of
from batch_assets.dagster.metadata.results import cost_unknown, results_metadata
from batch_assets.dagster.metadata.sample_rows import failed_rows, sample_rows
from batch_assets.dagster.partitions import each_partition, materialized, partitions_of
from batch_assets.dagster.resource import root_for

# Of a person's run, which looks at the batches itself: the sensor may be stopped.
_LOOK_SECONDS = 20.0


@dataclass(frozen=True)
class _Complete:
    """A table that is complete, and whose materialization is not in Dagster's log yet."""

    submission_id: str
    metadata: dict[str, Any]


def materialize_results(
    context: dg.AssetExecutionContext, pipeline: Pipeline
) -> Iterator[dg.MaterializeResult[Any]]:
    """Collects what has ended and refreshes the tables; yields only when all tables of the run are complete.

    Downstream assets and checks hang on the materialization, so it comes once and on the whole. Before that an
    observation says how far it is, and the run stays green.

    Checks run in a run that has the output of their asset, and that stands for all partitions of the run. So of
    several of which only some are complete none is materialized here: the sensor asks for a run of each.

    Errors:
        dg.Failure: of every partition that failed.
    """
    with explained(), root_for(pipeline, context.resources) as root, ExitStack() as stack:
        stack.enter_context(rounds.closing(root, context.run.tags, when_done=True))
        if not rounds.is_unattended(context.run.tags):
            stack.enter_context(leases.mark(root.ledger, collecting_name(pipeline.name)))
            _look(context, root)
        found, failure = each_partition(context, lambda key: _table(context, root, pipeline, key))
        done = {partition: table for partition, table in found.items() if table is not None}
        if failure is not None or len(done) < len(found):
            _leave_to_the_sensor(context, root, done)
        else:
            yield materialized(context, {partition: table.metadata for partition, table in done.items()})
            # Only now is the event in Dagster's log: a run killed before this line is repeated.
            with root.ledger.write() as tx:
                for table in done.values():
                    submissions.announced(tx, table.submission_id)
        if failure is not None:
            raise failure


def _table(context: dg.AssetExecutionContext, root: Root, pipeline: Pipeline, partition: str) -> _Complete | None:
    """Joins a partition's table anew; None when there is nothing to materialize, which the log says."""
    with explained():
        unattended = rounds.is_unattended(context.run.tags)
        done = collect_results(
            root,
            pipeline.name,
            partition,
            retention=pipeline.config.retention,
            due_only=unattended,
            answers=pipeline.own_answers,
        )
        _log(context, done)
        report = done.results
        if report is None:
            context.log.info(f"Nothing was submitted yet: materialize {pipeline.name}/requests first.")
            return None
        metadata = results_metadata(root, done, report, partition)
        if not report.final:
            context.log.info(f"Not complete yet: {_in_words(report)}. The sensor goes on when more has ended.")
            if report.left_out:
                context.log.info(f"{report.left_out} requests were left out by a limit.")
            if report.held_back:
                context.log.info("The table stays as it was until the refresh is complete.")
                settle_checks(context, root, pipeline, context.asset_key)
            _observe(context, partition, metadata)
            return None
        is_old = unattended and not done.collected and _is_announced(root, report)
        if is_old and not has_checks_of_others(context, pipeline, context.asset_key):
            # Another run did it while this one waited for its turn: what hangs on the table need not run again.
            settle_checks(context, root, pipeline, context.asset_key)
            context.log.info("Nothing is new: these results were materialized before.")
            return None
        metadata |= _samples(root, pipeline, partition, report)
        if (written := write_sink(root, pipeline, partition, report.submission_id)) is not None:
            context.log.info(f"Table {written.table}: {written.rows} rows inserted or updated.")
            metadata[keys.SINK] = metadata[keys.TABLE_NAME] = written.table
        elif pipeline.config.sink is not None:
            context.log.info("The sink was left alone: a newer submission is in force, and its run writes it.")
        return _Complete(report.submission_id, metadata)


def _leave_to_the_sensor(context: dg.AssetExecutionContext, root: Root, done: dict[str, _Complete]) -> None:
    for partition, table in done.items():
        _observe(context, partition, table.metadata)
    if done and not rounds.is_unattended(context.run.tags):
        with root.ledger.write() as tx:
            for table in done.values():
                submissions.announce_again(tx, table.submission_id)
        context.log.info(
            f"{len(done)} of {len(partitions_of(context))} partitions are complete. The sensor asks for a run of "
            "each, so that its checks run with it."
        )


def _observe(context: dg.AssetExecutionContext, partition: str, metadata: dict[str, Any]) -> None:
    context.log_event(dg.AssetObservation(context.asset_key, partition=partition or None, metadata=metadata))


def _is_announced(root: Root, report: ResultsReport) -> bool:
    with root.ledger.read() as tx:
        return submissions.by_id(tx, report.submission_id).announced_at is not None


def _look(context: dg.AssetExecutionContext, root: Root) -> None:
    for problem in try_poll(root, budget=_LOOK_SECONDS, now=True):  # the table can be joined anew without the API
        context.log.warning(problem)


def _log(context: dg.AssetExecutionContext, done: CollectedResults) -> None:
    for batch in done.collected:
        context.log.info(f"collected {batch.batch_id}: {batch.requests} requests, {batch.bytes} bytes")
    for problem in done.problems:
        context.log.warning(problem)
    if done.results is not None and (unknown := cost_unknown(done.results)) is not None:
        context.log.warning(unknown)


def _in_words(report: ResultsReport) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in sorted(report.counts.items())) or "no rows"


def _samples(root: Root, pipeline: Pipeline, partition: str, report: ResultsReport) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if report.schema is not None:
        found[keys.COLUMN_SCHEMA] = columns_of(pipeline, report.schema)
    found[keys.SAMPLE] = sample_rows(root, pipeline, partition)
    if set(report.counts) - {"succeeded"}:
        found[keys.FAILED_ROWS] = failed_rows(root, pipeline, partition)
    return found
