"""A step of `<name>/requests` that only reports what a run would send and what that would cost."""

from __future__ import annotations

from typing import Any

import dagster as dg

from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.prices.range import Range
from batch_assets.core.requests.confirmation import Confirmation
from batch_assets.core.requests.estimate import Estimate
from batch_assets.core.requests.plan import Plan, plan_requests
from batch_assets.core.text import count, size
from batch_assets.dagster.assets.requests_config import RequestsConfig
from batch_assets.dagster.checks.settled import settle_checks
from batch_assets.dagster.failures import explained
from batch_assets.dagster.metadata.estimate import plan_metadata
from batch_assets.dagster.partitions import partitions_of
from batch_assets.dagster.run_roots import root_for


def report_plan(
    context: dg.AssetExecutionContext,
    pipeline: Pipeline,
    results: dg.AssetKey,
    config: RequestsConfig,
    table: Any = None,
) -> None:
    """Report what would be sent, in the log and in an observation of the asset. No batch is made.

    Args:
        context: The context of the step.
        pipeline: The pipeline.
        results: The key of the pipeline's results, which do not change.
        config: The config of the run.
        table: The value of the upstream asset, if the dataset is an asset.
    """
    estimates: list[Estimate | None] = []
    partitions, confirmation = partitions_of(context), Confirmation(pipeline)
    with explained(), root_for(context.run.run_id, pipeline, context.resources) as root:
        for partition in partitions:
            plan = plan_requests(
                root, pipeline, partition, config.ask_again, confirmation=confirmation, table=table
            )
            metadata = plan_metadata(plan)
            context.log_event(
                dg.AssetObservation(context.asset_key, partition=partition or None, metadata=metadata)
            )
            estimates.append(plan.estimate)
            _log(context, f"{pipeline.name} [{partition}]" if partition else pipeline.name, config, plan)
        settle_checks(context, root, pipeline, results)
    if len(partitions) > 1:
        context.log.warning(
            f"All {len(partitions)} partitions: {_sum_as_text(estimates)}. "
            "Requests that partitions share are counted in each, and sent once by each run."
        )


def _log(context: dg.AssetExecutionContext, subject: str, config: RequestsConfig, plan: Plan) -> None:
    report = plan.report
    context.log.info(
        f"{count(report.rows, 'row')}, {report.rejected:,} rejected; "
        f"{count(report.requests, 'distinct request')}: {report.written:,} to send in "
        f"{count(plan.batches, 'batch', 'batches')} ({size(report.bytes)}), {report.reused:,} reused, "
        f"{report.in_flight:,} in flight"
    )
    for warning in plan.warnings:
        context.log.warning(warning)
    if report.rest is not None:
        context.log.warning(f"Beyond the limit: {report.rest.as_text}.")
    action, how = "send", f"Materialize {context.asset_key.to_user_string()} and the assets after it to send it."
    if config.refresh:
        action, how = "refresh", "Launch the job again with `confirm: true` in the config to send it."
    context.log.warning(f"Nothing was sent. To {action} {subject}: {plan.cost_as_text}. {how}")


def _sum_as_text(estimates: list[Estimate | None]) -> str:
    known = [estimate for estimate in estimates if estimate is not None]
    ranges = [estimate.batch for estimate in known if estimate.batch is not None]
    requests = count(sum(estimate.requests for estimate in known), "request")
    if not ranges:
        return f"{requests}, cost unknown" if known else "nothing would be sent"
    text = sum(ranges, Range(0, 0, 0)).as_text
    unknown = sum(not estimate.is_known for estimate in known)
    return f"{requests}, {text}" + (f", without unknown prices in {unknown} of them" if unknown else "")
