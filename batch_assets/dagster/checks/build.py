"""`build_message_batch_checks`: what is checked of a pipeline's results."""

from collections.abc import Iterable

import dagster as dg

from batch_assets.dagster.checks.deadline import deadline_check
from batch_assets.dagster.checks.results import results_checks
from batch_assets.dagster.pipelines import pipelines_in


def build_message_batch_checks(assets: Iterable[dg.AssetsDefinition]) -> list[dg.AssetChecksDefinition]:
    """The checks of `<name>/results` for every pipeline among assets.

    They run when the table is complete, behind the asset. `failed_rows_are_few` is blocking: with
    `AutomationCondition.eager() & AutomationCondition.all_deps_blocking_checks_passed()` what hangs on the table
    does not go on when it fails. The sensor itself evaluates `results_are_collected_in_time`.

    Args:
        assets: as `build_message_batch_assets` returns them.
    """
    specs = (spec for asset in assets for spec in asset.specs)
    pipelines = [found for found in pipelines_in(specs).values() if "results" in found.stages]
    return [check for found in pipelines for check in (results_checks(found), deadline_check(found))]
