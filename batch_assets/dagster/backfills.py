"""How a backfill of `<name>/results` alone ends while answers are missing.

Such a run materializes nothing: the sensor does it when the answers are complete. Dagster would look once more at
the backfill, and then mark all partitions without a materialization as failed. So the last run of the backfill
ends it first, as failed only if a partition gets no answers without a user, for example because nothing was
submitted.
"""

from __future__ import annotations

import time
from contextlib import suppress

import dagster as dg
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from dagster_shared.error import SerializableErrorInfo

from batch_assets.core.remedies import Stage
from batch_assets.core.text import count
from batch_assets.dagster import keys
from batch_assets.dagster.partitions import keys_of
from batch_assets.dagster.remedies import materialize

_OVER = frozenset({dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED})
_UNFINISHED = [status for status in dg.DagsterRunStatus if status not in _OVER]
# With more unfinished runs, some have not begun, so this one is not the last.
_AT_ONCE = 100
# Dagster's tags of runs.
_BACKFILL, _PARTITION = "dagster/backfill", "dagster/partition"
_RANGE = keys.RANGE_START, keys.RANGE_END


def leave_to_the_sensor(context: dg.AssetExecutionContext, pipeline: str, left: int, stopped: int) -> None:
    """Note what a run of a backfill left undone. The last run of the backfill ends it, if any left something.

    Args:
        context: The context of the step that materializes `results`.
        pipeline: The name of the pipeline.
        left: How many partitions the sensor will materialize.
        stopped: How many partitions get no answers without a user.
    """
    backfill_id = context.run.tags.get(_BACKFILL)
    if backfill_id is None:
        return
    # Written before the other runs are read: of two runs that end together, one sees the other's tag.
    context.instance.add_run_tags(context.run.run_id, {keys.LEFT: str(left), keys.STOPPED: str(stopped)})
    of_backfill = {_BACKFILL: backfill_id}
    unfinished = context.instance.get_runs(dg.RunsFilter(tags=of_backfill, statuses=_UNFINISHED), limit=_AT_ONCE)
    if len(unfinished) < _AT_ONCE and all(keys.LEFT in run.tags for run in unfinished):
        with suppress(NotImplementedError):  # an instance whose runs may not change backfills
            _end(context, pipeline, backfill_id, context.instance.get_runs(dg.RunsFilter(tags=of_backfill)))


def _end(context: dg.AssetExecutionContext, pipeline: str, backfill_id: str, runs: list[dg.DagsterRun]) -> None:
    """End a backfill whose runs have all done their work, unless Dagster ends it as it should."""
    backfill = context.instance.get_backfill(backfill_id)
    if (
        backfill is None
        or not backfill.is_asset_backfill  # that of a job: Dagster only looks at its runs
        or list(backfill.asset_selection or ())
        != [context.asset_key]  # Dagster continues with the assets downstream
        or backfill.status is not BulkActionStatus.REQUESTED
        or backfill.submitting_run_requests
        or any(keys.LEFT not in run.tags for run in runs)  # it failed early, and its partitions with it
    ):
        return
    left, stopped = (sum(int(run.tags[key]) for run in runs) for key in (keys.LEFT, keys.STOPPED))
    if not left:
        return
    status, come = BulkActionStatus.COMPLETED_SUCCESS, f"{count(left, 'partition')} when the answers are complete"
    if stopped:
        status = BulkActionStatus.COMPLETED_FAILED
        text = (
            f"{count(stopped, 'partition gets', 'partitions get')} no answers without a user: the logs of the "
            f"runs name them and say why. If nothing was submitted, {materialize(Stage.REQUESTS, pipeline)} and "
            f"{pipeline}/{Stage.BATCHES}. The sensor materializes {come}."
        )
        backfill = backfill.with_error(SerializableErrorInfo(text, [], None))
    backfill = _with_materialized(context, backfill, [run for run in runs if run.tags[keys.LEFT] == "0"])
    context.instance.update_backfill(backfill._replace(status=status, backfill_end_timestamp=time.time()))
    context.log.info(f"The backfill ends here: the sensor materializes {come}.")


def _with_materialized(
    context: dg.AssetExecutionContext, backfill: PartitionBackfill, runs: list[dg.DagsterRun]
) -> PartitionBackfill:
    """Return a backfill that counts what its runs have materialized since the daemon looked last.

    Args:
        context: The context of the step.
        backfill: The backfill.
        runs: Its runs that left nothing to the sensor.
    """
    definition, data = context.assets_def.partitions_def, backfill.asset_backfill_data
    if definition is None or data is None or context.asset_key not in data.target_subset.asset_keys:
        return backfill
    ordered = keys_of(definition, context.instance)
    position = {key: number for number, key in enumerate(ordered)}
    done: list[str] = []
    for run in runs:
        first, last = (run.tags.get(tag, run.tags.get(_PARTITION, "")) for tag in _RANGE)
        if run.tags[keys.STOPPED] == "0" and first in position and last in position:
            done += ordered[position[first] : position[last] + 1]
    empty = data.target_subset.get_partitions_subset(context.asset_key).empty_subset()
    counted = data.materialized_subset.partitions_subsets_by_asset_key.get(context.asset_key, empty)
    materialized = data.materialized_subset._replace(
        partitions_subsets_by_asset_key={context.asset_key: counted.with_partition_keys(done)}
    )
    return backfill.with_asset_backfill_data(
        data._replace(materialized_subset=materialized), context.instance, context.job_def.asset_layer.asset_graph
    )
