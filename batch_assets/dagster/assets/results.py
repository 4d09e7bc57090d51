"""The step that materializes `<name>/results`, but only when every row has its final type."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import dagster as dg

from batch_assets.core.answers.result_types import failed_rows as number_failed
from batch_assets.core.batches.poll import try_poll
from batch_assets.core.erase.later import collect_and_erase
from batch_assets.core.ledger import batches, joins, leases, submissions
from batch_assets.core.ledger.downloads import collecting_name
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.planning.next_step import next_step
from batch_assets.core.planning.snapshot import Snapshot
from batch_assets.core.planning.steps import NeedsUser
from batch_assets.core.prices.prices import Prices
from batch_assets.core.remedies import Stage
from batch_assets.core.results.report import ResultsReport
from batch_assets.core.results.run import CollectedResults
from batch_assets.core.root import Root
from batch_assets.core.sink.write import write_sink
from batch_assets.core.text import count, counts, listed, size
from batch_assets.dagster import keys, rounds
from batch_assets.dagster.backfills import leave_to_the_sensor
from batch_assets.dagster.checks.settled import has_checks_of_others, settle_checks
from batch_assets.dagster.failures import explained
from batch_assets.dagster.metadata.columns import columns_of
from batch_assets.dagster.metadata.lineage import lineage_of
from batch_assets.dagster.metadata.progress import observation
from batch_assets.dagster.metadata.results import cost_unknown, results_metadata
from batch_assets.dagster.metadata.sample_rows import failed_rows, sample_rows, unusable_answers
from batch_assets.dagster.partitions import each_partition, materialized, partitions_of
from batch_assets.dagster.remedies import as_text, materialize
from batch_assets.dagster.run_roots import root_for
from batch_assets.dagster.sensors.situation import what_next
from batch_assets.dagster.spend_log import SpendLog

# A run that a user starts polls the batches itself, for at most this long: the sensor may be stopped.
_POLL_SECONDS = 20.0
# A text names this many partitions.
_SHOWN = 30


@dataclass(frozen=True)
class _Complete:
    """A complete table whose materialization is not in Dagster's log yet."""

    submission_id: str
    metadata: dict[str, Any]


@dataclass
class _Seen:
    """What the step has seen in its partitions.

    Attributes:
        news: The ids of the batches that the run has collected for whatever partition.
        unchanged: The partitions whose tables stay as they are, so that the checks have to be settled.
        not_submitted: The partitions of which nothing has been submitted.
        stopped: The partitions that have rows without an answer and do not continue without a user.
    """

    news: set[str] = field(default_factory=set)
    unchanged: set[str] = field(default_factory=set)
    not_submitted: list[str] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)


def materialize_results(
    context: dg.AssetExecutionContext, pipeline: Pipeline
) -> Iterator[dg.MaterializeResult[Any]]:
    """Collect the batches that have ended and rewrite the tables; yield only when all tables are complete.

    Downstream assets and checks start from the materialization, so it is logged once, for the whole table. Before
    that, an observation reports the progress, and the run succeeds.

    Dagster runs checks in a run that has the output of their asset, and this output covers all partitions of
    the run. If only some partitions are complete, none is materialized here: the sensor starts a run for each.

    Raises:
        dg.Failure: When partitions failed. It names them all. Also when a user started the run and nothing has
            been submitted of any of its partitions.
    """
    with explained(), root_for(context.run.run_id, pipeline, context.resources) as root, ExitStack() as stack:
        stack.enter_context(rounds.closing(root, pipeline.name, context.run.tags, when_done=True))
        if not rounds.is_unattended(context.run.tags):
            stack.enter_context(leases.mark(root.ledger, collecting_name(pipeline.name), pipeline.name))
            _poll(context, root)
        seen = _Seen()
        spent = SpendLog(context, root, pipeline.name)
        tables, failure = each_partition(
            context,
            lambda key: _table(context, root, pipeline, key, spent, seen),
            rounds.may_go_on(context),
        )
        complete = {partition: table for partition, table in tables.items() if table is not None}
        if failure is not None or len(complete) < len(partitions_of(context)):
            _announce_later(context, root, pipeline.name, spent, complete)
            if seen.unchanged:
                settle_checks(context, root, pipeline, context.asset_key)
        else:
            costs = spent.metadata(complete)
            yield materialized(context, {key: table.metadata | costs[key] for key, table in complete.items()})
            # The event is in Dagster's log only now. If the run is killed before this line, it is repeated.
            with root.ledger.write(pipeline.name) as tx:
                spent.logged(tx)
                for table in complete.values():
                    joins.announced(tx, table.submission_id)
        if failure is not None:
            raise failure
        _end_backfill(context, pipeline.name, len(complete), seen)


def _table(
    context: dg.AssetExecutionContext,
    root: Root,
    pipeline: Pipeline,
    partition: str,
    spent: SpendLog,
    seen: _Seen,
) -> _Complete | None:
    """Write a partition's table again. Return None if there is nothing to materialize; the log has the reason.

    Args:
        context: The context of the step.
        root: The root.
        pipeline: The pipeline.
        partition: The partition key.
        spent: The amounts that the step reports.
        seen: What the step has seen. What it sees in this partition is added.
    """
    with explained():
        collected = _collect(context, root, pipeline, partition)
        seen.news |= {batch.batch_id for batch in collected.collected}
        report = collected.results
        if report is None:
            seen.not_submitted.append(partition)
            return None
        metadata = results_metadata(root, pipeline, collected, report, partition)
        if not report.final or not report.is_complete:
            if report.left_out:  # a trial: its answers are what the user waits for
                metadata |= _shown_rows(root, pipeline, partition, report)
            if _log_incomplete(context, root, pipeline.name, report):
                seen.stopped.append(partition)
            if report.held_back:
                seen.unchanged.add(partition)
            _observe(context, root, pipeline.name, spent, {partition: metadata})
            if report.final:
                with root.ledger.write(pipeline.name) as tx:
                    joins.announced(tx, report.submission_id)
            return None
        is_old = rounds.is_unattended(context.run.tags) and not seen.news and _is_announced(root, report)
        if is_old and not has_checks_of_others(context, pipeline, context.asset_key):
            # Another run materialized it while this one was queued, so nothing downstream has to run again.
            seen.unchanged.add(partition)
            context.log.info("Nothing is new: these results are already materialized.")
            return None
        metadata |= _samples(root, pipeline, partition, report)
        metadata |= _copied_to_sink(context, root, pipeline, partition, report.submission_id)
        return _Complete(report.submission_id, metadata)


def _collect(
    context: dg.AssetExecutionContext, root: Root, pipeline: Pipeline, partition: str
) -> CollectedResults:
    """Collect the batches that have ended and write the partition's table again. Log what was collected."""
    unattended = rounds.is_unattended(context.run.tags)
    collected = collect_and_erase(
        root,
        pipeline.name,
        partition,
        pipeline=pipeline,
        retention=pipeline.config.retention,
        # All partitions of the run at once, so that downloads are side by side. The sensor requests runs for the
        # others: thousands may have ended at the same time.
        partitions=partitions_of(context) if unattended else None,
        due_only=unattended,
        seconds=rounds.seconds_left(context),
        answers=pipeline.own_answers,
    )
    _log(context, collected, root.settings.prices)
    if collected.collected and not unattended:  # the sensor may be stopped, too
        _observe_batches(context, root, pipeline.name, partition)
    return collected


def _copied_to_sink(
    context: dg.AssetExecutionContext, root: Root, pipeline: Pipeline, partition: str, submission_id: str
) -> dict[str, Any]:
    """Write the table into the pipeline's sink, if it has one, and return the metadata about that."""
    if (written := write_sink(root, pipeline, partition, submission_id)) is not None:
        context.log.info(f"Table {written.table}: {count(written.rows, 'row')} inserted or updated.")
        return {keys.SINK: written.table, keys.TABLE_NAME: written.table}
    if pipeline.config.sink is not None:
        context.log.info("The sink was not written: a newer submission is in force, and its run writes it.")
    return {}


def _announce_later(
    context: dg.AssetExecutionContext,
    root: Root,
    pipeline: str,
    spent: SpendLog,
    complete: dict[str, _Complete],
) -> None:
    _observe(context, root, pipeline, spent, {key: table.metadata for key, table in complete.items()})
    if complete and not rounds.is_unattended(context.run.tags):
        with root.ledger.write(pipeline) as tx:
            for table in complete.values():
                joins.announce_again(tx, table.submission_id)
        context.log.info(
            f"{len(complete)} of {len(partitions_of(context))} partitions are complete. The sensor starts a run "
            "for each, so that its checks run too."
        )


def _end_backfill(context: dg.AssetExecutionContext, pipeline: str, complete: int, seen: _Seen) -> None:
    """Report the partitions of which nothing has been submitted, and end the run's backfill if it is the last run.

    Args:
        context: The context of the step.
        pipeline: The name of the pipeline.
        complete: How many partitions have complete tables.
        seen: What the step has seen in its partitions.

    Raises:
        dg.Failure: When a user started the run, and nothing has been submitted of any of its partitions.
    """
    partitions = partitions_of(context)
    missing = len(seen.not_submitted)
    stopped = missing + len(seen.stopped)
    left = len(partitions) - stopped if complete < len(partitions) else 0
    leave_to_the_sensor(context, pipeline, left, stopped)
    if not missing:
        return
    of_several = f" for {missing} of {len(partitions)} partitions, {listed(seen.not_submitted, _SHOWN)}"
    which = of_several if len(partitions) > 1 else " yet"
    text = (
        f"Nothing has been submitted{which}: {materialize(Stage.REQUESTS, pipeline)} and "
        f"{pipeline}/{Stage.BATCHES} first."
    )
    if missing == len(partitions) and rounds.is_started_by_user(context.run.tags):
        raise dg.Failure(description=text, allow_retries=False)
    context.log.warning(text)


def _observe(
    context: dg.AssetExecutionContext,
    root: Root,
    pipeline: str,
    spent: SpendLog,
    metadata: dict[str, dict[str, Any]],
) -> None:
    """Log an observation with the metadata of each partition."""
    costs = spent.metadata(metadata)
    for partition, entries in metadata.items():
        entries = entries | costs[partition]
        context.log_event(dg.AssetObservation(context.asset_key, partition=partition or None, metadata=entries))
    if spent.has_news:
        with root.ledger.write(pipeline) as tx:
            spent.logged(tx)


def _observe_batches(context: dg.AssetExecutionContext, root: Root, pipeline: str, partition: str) -> None:
    """Log an observation of `<name>/batches`, so that none is shown in progress after its end."""
    with root.ledger.read() as tx:
        submission = submissions.newest(tx, pipeline, partition)
        if submission is None:
            return
        waited_on, now = batches.waited_on(tx, submission.id), tx.now
    key = dg.AssetKey([*context.asset_key.path[:-1], Stage.BATCHES.value])
    context.log_event(observation(key, submission, waited_on, now))


def _is_announced(root: Root, report: ResultsReport) -> bool:
    with root.ledger.read() as tx:
        return submissions.by_id(tx, report.submission_id).announced_at is not None


def _poll(context: dg.AssetExecutionContext, root: Root) -> None:
    polled = try_poll(root, budget=_POLL_SECONDS, now=True)  # the table can be written without the API
    for problem in [*polled.problems, *map(as_text, polled.remedies)]:
        context.log.warning(problem)


def _log(context: dg.AssetExecutionContext, report: CollectedResults, prices: Prices) -> None:
    for batch in report.collected:
        context.log.info(f"collected {batch.batch_id}: {count(batch.requests, 'request')}, {size(batch.bytes)}")
    for problem in [*report.problems, *map(as_text, report.remedies)]:
        context.log.warning(problem)
    if report.results is not None and (unknown := cost_unknown(report.results, prices)) is not None:
        context.log.warning(unknown)


def _log_incomplete(context: dg.AssetExecutionContext, root: Root, pipeline: str, report: ResultsReport) -> bool:
    """Log why a table is not complete, and what happens next. Return whether nothing does without a user."""
    rows_by_type = counts(dict(sorted(report.counts.items())), nothing="no rows")
    is_stopped = report.final
    if report.final:
        left = f"A cancel left {count(report.left_by_cancel, 'row')} without an answer"
        remedy = materialize(Stage.REQUESTS, pipeline)
        context.log.info(f"{left}: {rows_by_type}. To send the rest again, {remedy} and the assets after it.")
    else:
        snapshot = _snapshot(root, report)
        is_stopped = isinstance(next_step(snapshot), NeedsUser)
        log = context.log.warning if is_stopped else context.log.info
        log(f"Not complete yet: {rows_by_type}. {what_next(snapshot)}")
    if report.left_out:
        context.log.info(f"A limit left out {count(report.left_out, 'request')}.")
    if report.held_back:
        context.log.info(f"The complete table stays as it is until this one is complete: {report.uri}")
    return is_stopped


def _snapshot(root: Root, report: ResultsReport) -> Snapshot:
    """Return what determines the next step after this run."""
    with root.ledger.read() as tx:
        snapshot = Snapshot.of(tx, submissions.by_id(tx, report.submission_id))
    # This run may hold the lease that shows a run collecting, and it has collected what it could.
    return replace(snapshot, is_collecting=False)


def _samples(root: Root, pipeline: Pipeline, partition: str, report: ResultsReport) -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    if report.schema is not None:
        metadata[keys.COLUMN_SCHEMA] = columns_of(pipeline, report.schema)
        if (lineage := lineage_of(pipeline, report.schema.names)) is not None:
            metadata[keys.COLUMN_LINEAGE] = lineage
    return metadata | _shown_rows(root, pipeline, partition, report)


def _shown_rows(root: Root, pipeline: Pipeline, partition: str, report: ResultsReport) -> dict[str, Any]:
    """Return some answers, and some of the rows that failed or cannot be used, with their reasons."""
    is_waiting = report.held_back
    shown: dict[str, Any] = {keys.SAMPLE: sample_rows(root, pipeline, partition, is_waiting=is_waiting)}
    if number_failed(report.counts):
        shown[keys.FAILED_ROWS] = failed_rows(root, pipeline, partition, is_waiting=is_waiting)
    if report.unusable:
        shown[keys.UNUSABLE_ANSWERS] = unusable_answers(root, pipeline, partition, is_waiting=is_waiting)
    return shown
