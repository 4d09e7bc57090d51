"""The step that materializes `<name>/batches`."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from typing import Any

import dagster as dg

from batch_assets.core.batches.caps import record_caps
from batch_assets.core.batches.consent import begin_all
from batch_assets.core.batches.feeding import ask_account
from batch_assets.core.batches.submit import Outcome, submit_partitions
from batch_assets.core.batches.submit_report import SubmitReport
from batch_assets.core.errors import BatchAssetsError
from batch_assets.core.ledger import batches, submissions
from batch_assets.core.ledger.records import Batch, RequestFile
from batch_assets.core.ledger.states import PilotVerdict
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.remedies import RunStage, Stage
from batch_assets.core.root import Root
from batch_assets.core.text import count, size
from batch_assets.dagster import keys, rounds
from batch_assets.dagster.failures import explained, result_of
from batch_assets.dagster.metadata.batch_table import batch_table
from batch_assets.dagster.metadata.console import console_link
from batch_assets.dagster.metadata.numbers import without_zeros
from batch_assets.dagster.metadata.progress import observation, paid_twice_of
from batch_assets.dagster.partitions import Event, all_partitions, partitions_of
from batch_assets.dagster.remedies import as_text, materialize
from batch_assets.dagster.run_roots import root_for


def materialize_batches(context: dg.AssetExecutionContext, pipeline: Pipeline) -> Iterator[Event]:
    """Submit the request files of every partition of the run that are ready. It does not wait for the answers."""
    tags, partitions = context.run.tags, partitions_of(context)
    # `results` closes the rounds. If this step fails, `results` does not run, so they are closed here.
    with (
        explained(),
        root_for(context.run.run_id, pipeline, context.resources) as root,
        rounds.closing(root, pipeline.name, tags, when_done=False),
    ):
        submitted = submit(context, root, pipeline, partitions, context.asset_key)
        yield from all_partitions(context, submitted)


def submit(
    context: dg.AssetExecutionContext, root: Root, pipeline: Pipeline, partitions: list[str], batches: dg.AssetKey
) -> Callable[[str], dg.MaterializeResult[Any]]:
    """Submit the request files of some partitions of a run.

    Args:
        context: The context of the step.
        root: The root.
        pipeline: The pipeline.
        partitions: The partition keys.
        batches: The asset `<name>/batches`.

    Returns:
        A function that reports what became of one of the partitions, and fails if it failed.
    """
    tags = context.run.tags
    record_caps(root, [pipeline])
    ask_account(root)
    if len(partitions_of(context)) > 1 and not rounds.is_unattended(tags):
        with suppress(BatchAssetsError):  # each partition reports it
            begin_all(root, pipeline.name, partitions)
    outcomes = submit_partitions(
        root,
        pipeline.name,
        partitions,
        unattended=rounds.is_unattended(tags),
        waits_for_more=not rounds.is_started_by_user(tags),
        seconds=rounds.seconds_left(context),
        on_file=lambda file: context.log.info(_sending(file)),
        own_answers=pipeline.own_answers,
        tools=pipeline.hooks.tool_functions,
    )
    return lambda key: _submitted(context, root, pipeline, key, outcomes[key], batches)


def submit_in_spite_of_failures(
    context: dg.AssetExecutionContext, root: Root, pipeline: Pipeline, batches: dg.AssetKey, partitions: list[str]
) -> Generator[dg.AssetMaterialization, None, str]:
    """Submit the partitions of a run that were built although others failed, if the run has `batches`, too.

    Dagster skips `batches` for all partitions of a run in which `requests` failed for one of them. So this is done
    in the step of `requests`, outside of the pool of `batches`.

    Args:
        context: The context of the step of `requests`.
        root: The root.
        pipeline: The pipeline.
        batches: The asset `<name>/batches`.
        partitions: The partitions that were built.

    Yields:
        The materializations of `batches`.

    Returns:
        What became of these partitions; "" if the run was to build requests only.
    """
    kind = dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED
    planned = context.instance.all_logs(context.run.run_id, of_type=kind)
    if all(event.get_dagster_event().asset_key != batches for event in planned):
        return ""
    sent, failed = 0, list[str]()
    try:
        with explained():
            submitted = submit(context, root, pipeline, partitions, batches)
        for key in partitions:
            try:
                result = submitted(key)
            except dg.Failure as failure:
                context.log.error(f"partition {key}: {failure.description}")
                failed.append(f"{key}: {failure.description}")
                continue
            sent += 1
            yield dg.AssetMaterialization(batches, partition=key, metadata=result.metadata)
    except dg.Failure as failure:
        failed.append(str(failure.description))
    asset = f"{pipeline.name}/{Stage.BATCHES}"
    lines = [f"{asset} went on for {count(sent, 'other partition')}."] if sent else []
    if failed:
        lines += [f"{asset} failed for {count(len(partitions) - sent, 'other partition')}. {failed[0]}"]
    return "\n".join(lines)


def _sending(file: RequestFile) -> str:
    """Describe a file that is about to be sent. Those of several partitions are sent side by side."""
    partition = f" of partition {file.partition}" if file.partition else ""
    return f"sending {file.id}{partition}: {count(file.requests, 'request')}, {size(file.bytes)}"


def _submitted(
    context: dg.AssetExecutionContext,
    root: Root,
    pipeline: Pipeline,
    partition: str,
    outcome: Outcome,
    batches_key: dg.AssetKey,
) -> dg.MaterializeResult[Any]:
    """Report what became of a partition."""
    with explained():
        report = result_of(outcome)
        if report is None:
            raise dg.Failure(
                description=f"Nothing to submit yet: {materialize(Stage.REQUESTS, pipeline.name)} first.",
                allow_retries=False,
            )
        for pilot in report.pilots:
            log = context.log.info if pilot.verdict is PilotVerdict.GO else context.log.warning
            log("\n".join([*pilot.lines, *(f"  {id_}: {text}" for id_, text in pilot.sample)]))
        if report.live_calls:
            context.log.info(f"the deadline has passed; {report.live_calls}")
        for file_id, reason in report.waiting.items():
            context.log.warning(f"{file_id} has to wait: {reason}")
        for remedy in report.remedies:
            context.log.warning(as_text(remedy))
        for file_id, reason in report.given_up.items():
            context.log.warning(f"the row of {file_id} is errored: its request alone is too large: {reason}")
        with root.ledger.read() as tx:
            submission = submissions.by_id(tx, report.submission_id)
            submitted = batches.waited_on(tx, report.submission_id)
            now = tx.now
        # The counts change later, and this materialization does not, so they go into an observation.
        context.log_event(observation(batches_key, submission, submitted, now))
        metadata = _metadata(root, report, submitted, now)
        if report.refused:
            raise dg.Failure(
                description="The API refused request files: "
                + "; ".join(f"{file_id}: {text}" for file_id, text in report.refused.items())
                + f". {as_text(RunStage(Stage.REQUESTS, pipeline.name, partition))}",
                metadata=metadata,
                allow_retries=False,
            )
    return dg.MaterializeResult(metadata=metadata)


def _metadata(root: Root, report: SubmitReport, submitted: list[Batch], now: float) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        keys.SUBMISSION_ID: report.submission_id,
        keys.SUBMITTED: len(report.submitted),
        keys.BATCH_IDS: dg.MetadataValue.json([batch.id for batch in submitted]),
        keys.BATCH_TABLE: batch_table(submitted, now, lasting=True),
        **without_zeros({keys.ASKED_AGAIN: report.planned_again}),
        **paid_twice_of(submitted),
        **console_link(root.settings, submitted),
    }
    if report.pilots:
        metadata[keys.PILOT] = "\n".join(line for pilot in report.pilots for line in pilot.lines)
    if report.live_calls:
        metadata[keys.LIVE_CALLS] = str(report.live_calls)
    if report.waiting:
        metadata[keys.WAITING] = dg.MetadataValue.json(report.waiting)
    if report.refused:
        metadata[keys.REFUSED] = dg.MetadataValue.json(report.refused)
    return metadata
