"""`<name>_schedule`: runs a pipeline by the clock."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import dagster as dg

from batch_assets.core.pipeline.automation import ScheduleConfig
from batch_assets.dagster.partitions import has_dynamic_keys
from batch_assets.dagster.pipelines import PipelineAssets, pipelines_in


def build_message_batch_schedules(assets: Iterable[dg.AssetsDefinition]) -> list[dg.ScheduleDefinition]:
    """A schedule `<name>_schedule` for every pipeline among assets that has the field `schedule`.

    With partitions of time it runs the newest one whose time is over, with others every one, each in a run of its
    own.

    Args:
        assets: as `build_message_batch_assets` returns them.

    Errors:
        ConfigError: `schedule` says no time.
    """
    found = pipelines_in(spec for asset in assets for spec in asset.specs)
    return [
        _schedule(assets, assets.pipeline.config.schedule)
        for assets in found.values()
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
            target=dg.AssetSelection.assets(*assets.stages.values()),
            cron_schedule=schedule.cron,
            execution_timezone=schedule.timezone or _timezone(partitions),
            execution_fn=due,
            # It stands in the pipeline's file, as the sensor does. Who stops it in the UI has the last word.
            default_status=dg.DefaultScheduleStatus.RUNNING,
            description=f"Asks what is not answered yet of {pipeline.config.dataset.location}.",
        )
    except dg.DagsterInvalidDefinitionError:
        raise pipeline.error(
            "schedule",
            f"{schedule.cron!r} is no time: give the five fields of cron (minute, hour, day of the month, month, "
            "day of the week), such as 0 2 * * * for every night at two",
        ) from None


def _due(partitions: dg.PartitionsDefinition[str]) -> list[str]:
    """The keys to run now."""
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
