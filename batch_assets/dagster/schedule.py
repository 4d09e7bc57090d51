"""`<name>_schedule`: runs a pipeline at fixed times."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import dagster as dg

from batch_assets.core.pipeline.automation import ScheduleConfig
from batch_assets.dagster.jobs import pipeline_run_job
from batch_assets.dagster.partitions import has_dynamic_keys
from batch_assets.dagster.pipelines import PipelineAssets, pipelines_of_assets


def build_message_batch_schedules(assets: Iterable[dg.AssetsDefinition]) -> list[dg.ScheduleDefinition]:
    """Build a schedule `<name>_schedule` for every pipeline among the assets that has the field `schedule`.

    With time partitions, it runs the newest partition whose time is over. With other partitions, it runs all of
    them, each in its own run.

    Args:
        assets: Assets as `build_message_batch_assets` returns them.

    Raises:
        ConfigError: When `schedule` is not a valid cron expression.
    """
    pipelines = pipelines_of_assets(assets)
    return [
        _schedule(assets, assets.pipeline.config.schedule)
        for assets in pipelines.values()
        if assets.pipeline.config.schedule is not None
    ]


def _schedule(assets: PipelineAssets, schedule: ScheduleConfig) -> dg.ScheduleDefinition:
    pipeline, partitions = assets.pipeline, assets.partitions

    def due(context: dg.ScheduleEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
        if partitions is None:
            yield dg.RunRequest()
            return
        store = context.instance if has_dynamic_keys(partitions) else None
        with dg.partition_loading_context(
            effective_dt=context.scheduled_execution_time, dynamic_partitions_store=store
        ):
            keys = _due(partitions)
        if not keys:
            yield dg.SkipReason(f"{pipeline.name} has no partition yet.")
        for key in keys:
            yield dg.RunRequest(run_key=key, partition_key=key)

    try:
        return dg.ScheduleDefinition(
            name=f"{pipeline.name}_schedule",
            job=pipeline_run_job(assets),
            cron_schedule=schedule.cron,
            execution_timezone=schedule.timezone or _timezone(partitions),
            execution_fn=due,
            # The pipeline file asks for the schedule, so it starts running. Users can stop it in the UI.
            default_status=dg.DefaultScheduleStatus.RUNNING,
            description=f"Sends the requests for rows of {pipeline.config.dataset.location} without an answer.",
        )
    except dg.DagsterInvalidDefinitionError:
        raise pipeline.error(
            "schedule",
            f"{schedule.cron!r} is not a cron expression: give the five fields of cron (minute, hour, day of the "
            "month, month, day of the week), such as 0 2 * * * for every night at two",
        ) from None


def _due(partitions: dg.PartitionsDefinition[str]) -> list[str]:
    """Return the partition keys to run now."""
    if isinstance(partitions, dg.TimeWindowPartitionsDefinition):
        newest = partitions.get_last_partition_key()
        return [] if newest is None else [newest]
    if isinstance(partitions, dg.MultiPartitionsDefinition):
        for dimension in partitions.partitions_defs:
            if isinstance(dimension.partitions_def, dg.TimeWindowPartitionsDefinition):
                newest = dimension.partitions_def.get_last_partition_key()
                if newest is None:
                    return []
                return list(partitions.get_multipartition_keys_with_dimension_value(dimension.name, newest))
    return list(partitions.get_partition_keys())


def _timezone(partitions: dg.PartitionsDefinition[str] | None) -> str | None:
    return partitions.timezone if isinstance(partitions, dg.TimeWindowPartitionsDefinition) else None
