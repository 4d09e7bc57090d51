"""`build_message_batch_checks`: the asset checks of a pipeline's results."""

from collections.abc import Iterable

import dagster as dg

from batch_assets.core.remedies import Stage
from batch_assets.dagster.checks.deadline import deadline_check
from batch_assets.dagster.checks.results import results_checks
from batch_assets.dagster.pipelines import pipelines_of_assets


def build_message_batch_checks(assets: Iterable[dg.AssetsDefinition]) -> list[dg.AssetChecksDefinition]:
    """Build the checks of `<name>/results` for every pipeline among the assets.

    They run after the asset, when the table is complete. `failed_rows_are_few` is blocking, for each partition
    by itself: if it fails, downstream assets with `AutomationCondition.eager() &
    AutomationCondition.all_deps_blocking_checks_passed()` do not run. The sensor evaluates
    `results_are_collected_in_time`.

    Args:
        assets: Assets as `build_message_batch_assets` returns them.
    """
    pipelines = [
        pipeline_assets
        for pipeline_assets in pipelines_of_assets(assets).values()
        if Stage.RESULTS in pipeline_assets.stages
    ]
    return [
        check
        for pipeline_assets in pipelines
        for check in (results_checks(pipeline_assets), deadline_check(pipeline_assets))
    ]
