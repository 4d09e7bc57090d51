"""Log the checks of a run that does not materialize the table."""

from __future__ import annotations

import dagster as dg

from batch_assets.core.ledger.deadlines import ending_soon
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.root import Root
from batch_assets.dagster.checks.deadline import DEADLINE_CHECK, deadline_result
from batch_assets.dagster.checks.events import evaluation
from batch_assets.dagster.checks.results import results_check_names, results_evaluations
from batch_assets.dagster.partitions import partitions_of


def settle_checks(context: dg.AssetExecutionContext, root: Root, pipeline: Pipeline, results: dg.AssetKey) -> None:
    """Evaluate the pipeline's checks on the table as it is, if there is one, and log the events in this run.

    Dagster plans the checks together with the run, and skips the checks of an asset that is not materialized. It
    shows the newest run: "Skipped" would replace the passed checks of an earlier run, and whatever waits for the
    checks would wait indefinitely.
    """
    planned = _planned(context, results)
    if not planned:
        return
    with root.ledger.read() as tx:
        in_time = deadline_result(results, ending_soon(tx, pipeline.name))
    on_table = results_evaluations(context.instance, root, pipeline, results, partitions_of(context))
    for event in [*on_table, evaluation(in_time)]:
        if event.asset_check_key in planned:
            context.log_event(event)


def has_checks_of_others(context: dg.AssetExecutionContext, pipeline: Pipeline, results: dg.AssetKey) -> bool:
    """Return whether the run also has checks that are not the pipeline's: only Dagster can run these."""
    return not {key.name for key in _planned(context, results)} <= {DEADLINE_CHECK, *results_check_names(pipeline)}


def _planned(context: dg.AssetExecutionContext, results: dg.AssetKey) -> set[dg.AssetCheckKey]:
    """Return the checks of the results that were planned with the run."""
    events = context.instance.all_logs(
        context.run.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED
    )
    planned = (event.get_dagster_event().asset_check_planned_data.asset_check_key for event in events)
    return {key for key in planned if key.asset_key == results}
