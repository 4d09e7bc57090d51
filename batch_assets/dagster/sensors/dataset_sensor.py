"""`<name>_watch_sensor`: runs a pipeline when files of its dataset are new or have changed."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable

import dagster as dg

from batch_assets.core.dataset.changes import fingerprints
from batch_assets.core.errors import BatchAssetsError
from batch_assets.core.io.storage import Storage
from batch_assets.core.pipeline.partitions import key_problem
from batch_assets.dagster.partitions import is_partition, keys_of
from batch_assets.dagster.pipelines import PipelineAssets, pipelines_in
from batch_assets.dagster.resource import required_keys, settings_for
from batch_assets.dagster.sensors.dataset_cursor import DatasetCursor
from batch_assets.dagster.sensors.partition_sensor import requests_to_add

_INTERVAL, _INTERVAL_EMULATED = 30, 5
# Each takes the daemon a part of a second, and Dagster ends the evaluation of a sensor after 60 s.
_RUNS_AT_ONCE = 25
_SHOWN = 5


def build_message_batch_watch_sensors(assets: Iterable[dg.AssetsDefinition]) -> list[dg.SensorDefinition]:
    """A sensor `<name>_watch_sensor` for every pipeline among assets that has `watch: true`.

    It looks at names, sizes and times of the dataset's files. What is new or has changed, and is the same at the
    next look, is run: with `{partition}` in the path those partitions, else the pipeline.

    Args:
        assets: as `build_message_batch_assets` returns them.
    """
    found = pipelines_in(spec for asset in assets for spec in asset.specs)
    return [_sensor(assets) for assets in found.values() if assets.pipeline.config.watch]


def _sensor(assets: PipelineAssets) -> dg.SensorDefinition:
    def look(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        try:
            return _look(context, assets)
        except BatchAssetsError as error:
            return dg.SkipReason(str(error))

    name = assets.pipeline.name
    return dg.SensorDefinition(
        name=f"{name}_watch_sensor",
        evaluation_fn=look,
        asset_selection=dg.AssetSelection.assets(*assets.stages.values()),
        minimum_interval_seconds=_INTERVAL_EMULATED if os.environ.get("BATCH_ASSETS_EMULATOR") else _INTERVAL,
        default_status=dg.DefaultSensorStatus.RUNNING,
        required_resource_keys=required_keys(assets.pipeline),
        description=f"Runs {name} when files of {assets.pipeline.config.dataset.location} are new or changed.",
    )


def _look(context: dg.SensorEvaluationContext, assets: PipelineAssets) -> dg.SensorResult | dg.SkipReason:
    pipeline, partitions = assets.pipeline, assets.partitions
    place = pipeline.config.dataset.location
    there = fingerprints(pipeline)
    storage = Storage(settings_for(pipeline.config.resource_key, context.resources).root)
    before = DatasetCursor.read(context.cursor, storage, pipeline.name)
    unchanged = {key for key, found in there.items() if before.asked.get(key) == found}
    keys = _keys_among(partitions, there, unchanged, context.instance)
    files = {key: found for key, found in there.items() if key in keys}
    left_out = [key for key in there if key not in keys]
    if not files:
        return dg.SkipReason(f"There is no file {place} yet.{_of_no_partition(left_out)}")
    changed = [key for key in files if files[key] != before.asked.get(key)]
    now = [key for key in changed if files[key] == before.seen.get(key)][:_RUNS_AT_ONCE]
    # What is gone is forgotten: should it come back, it is new.
    asked = {key: found for key, found in before.asked.items() if key in files} | {key: files[key] for key in now}
    seen = {key: files[key] for key in changed if key not in now}
    cursor = DatasetCursor(seen, asked).write(context.cursor, storage, pipeline.name)
    if not now:
        said = f"No file of {place} is new or has changed."
        if changed:
            said = f"New or changed, and run if they are the same at the next look: {_listed(changed, place)}."
        return dg.SensorResult(skip_reason=said + _of_no_partition(left_out), cursor=cursor)
    return dg.SensorResult(
        # No run_key: Dagster keeps the cursor and the runs of a look together, and files that come back as they
        # once were are to be run.
        run_requests=[dg.RunRequest(partition_key=key or None) for key in now],
        dynamic_partitions_requests=(
            requests_to_add(context.instance, partitions, now)
            if isinstance(partitions, dg.DynamicPartitionsDefinition)
            else []
        ),
        cursor=cursor,
    )


def _keys_among(
    partitions: dg.PartitionsDefinition[str] | None,
    given: Collection[str],
    unchanged: Collection[str],
    instance: dg.DagsterInstance,
) -> set[str]:
    """Those that are keys of partitions.

    Args:
        unchanged: of the given ones, those that were keys before and are not run now. Dagster takes a millisecond
            for each key of partitions of time.
    """
    if partitions is None:
        return set(given)
    if isinstance(partitions, dg.DynamicPartitionsDefinition):
        return {key for key in given if key_problem(key) is None}
    if isinstance(partitions, dg.TimeWindowPartitionsDefinition):
        return {key for key in given if key in unchanged or is_partition(partitions, key, instance)}
    return set(keys_of(partitions, instance)).intersection(given)


def _of_no_partition(keys: list[str]) -> str:
    return f" Of no partition, or of one whose time is not over: {_listed(keys, '')}." if keys else ""


def _listed(keys: list[str], place: str) -> str:
    more = f" and {len(keys) - _SHOWN:,} more" if len(keys) > _SHOWN else ""
    return ", ".join(key or place for key in keys[:_SHOWN]) + more
