"""The checks of a run that does not materialize the table they are of."""

from __future__ import annotations

import dagster as dg

from batch_assets.core.config import Pipeline
from batch_assets.core.root import Root
from batch_assets.dagster.check_events import evaluation
from batch_assets.dagster.deadline_check import deadline_result
from batch_assets.dagster.partitions import partitions_of
from batch_assets.dagster.results_checks import results_evaluations


def settle_checks(context: dg.AssetExecutionContext, root: Root, pipeline: Pipeline, results: dg.AssetKey) -> bool:
    """Logs in this run what the pipeline's checks say of the table, if there is one; False when there are other
    checks of it, which only Dagster can run.

    Dagster plans the checks together with the run, and skips those behind an asset that is not materialized. The
    newest run counts: "Skipped" would stand where an earlier run's checks have passed, and what waits for them
    would wait for ever.
    """
    planned = _planned(context, results)
    if not planned:
        return True
    with root.ledger.read() as tx:
        in_time = deadline_result(tx, pipeline.name, results)
    found = [*results_evaluations(pipeline, results, partitions_of(context)), evaluation(in_time)]
    said = {one.asset_check_key: one for one in found}
    for key in sorted(planned & said.keys()):
        context.log_event(said[key])
    return planned <= said.keys()


def _planned(context: dg.AssetExecutionContext, results: dg.AssetKey) -> set[dg.AssetCheckKey]:
    """The checks of the results that were planned with the run."""
    events = context.instance.all_logs(
        context.run.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED
    )
    planned = (event.get_dagster_event().asset_check_planned_data.asset_check_key for event in events)
    return {key for key in planned if key.asset_key == results}
