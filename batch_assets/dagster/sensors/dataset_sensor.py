"""`<name>_watch_sensor`: runs a pipeline when files of its dataset are new or have changed."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable

import dagster as dg

from batch_assets.core.dataset.changes import fingerprints
from batch_assets.core.errors import BatchAssetsError
from batch_assets.core.io.storage import Storage
from batch_assets.core.pipeline.partitions import key_problem
from batch_assets.core.text import listed
from batch_assets.dagster.jobs import pipeline_run_job
from batch_assets.dagster.partitions import is_partition, keys_of
from batch_assets.dagster.pipelines import PipelineAssets, pipelines_of_assets
from batch_assets.dagster.remedies import error_as_text
from batch_assets.dagster.resource import required_keys, settings_for
from batch_assets.dagster.sensors.dataset_cursor import DatasetCursor
from batch_assets.dagster.sensors.partition_sensor import requests_to_add

_INTERVAL, _INTERVAL_EMULATED = 30, 5
# The daemon needs part of a second for each run request, and Dagster ends a sensor's evaluation after 60 s.
_RUNS_AT_ONCE = 25
_SHOWN = 5


def build_message_batch_watch_sensors(assets: Iterable[dg.AssetsDefinition]) -> list[dg.SensorDefinition]:
    """Build a sensor `<name>_watch_sensor` for every pipeline among the assets that has `watch: true`.

    The sensor compares names, sizes and times of the dataset's files. If a file is new or has changed, and is the
    same at the next tick, the sensor runs the pipeline. With `{partition}` in the path, it runs the partitions of
    such files.

    Args:
        assets: Assets as `build_message_batch_assets` returns them.
    """
    pipelines = pipelines_of_assets(assets)
    return [_sensor(assets) for assets in pipelines.values() if assets.pipeline.config.watch]


def _sensor(assets: PipelineAssets) -> dg.SensorDefinition:
    def look(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        try:
            return _look(context, assets)
        except BatchAssetsError as error:
            return dg.SkipReason(error_as_text(error))

    name = assets.pipeline.name
    return dg.SensorDefinition(
        name=f"{name}_watch_sensor",
        evaluation_fn=look,
        job=pipeline_run_job(assets),
        minimum_interval_seconds=_INTERVAL_EMULATED if os.environ.get("BATCH_ASSETS_EMULATOR") else _INTERVAL,
        default_status=dg.DefaultSensorStatus.RUNNING,
        required_resource_keys=required_keys(assets.pipeline),
        description=f"Runs {name} when files of {assets.pipeline.config.dataset.location} are new or changed.",
    )


def _look(context: dg.SensorEvaluationContext, assets: PipelineAssets) -> dg.SensorResult | dg.SkipReason:
    pipeline, partitions = assets.pipeline, assets.partitions
    location = pipeline.config.dataset.location
    current = fingerprints(pipeline)
    settings = settings_for(pipeline.config.resource_key, context.resources)
    storage = Storage.of(settings)
    before = DatasetCursor.read(context.cursor, storage, pipeline.name)
    unchanged = {key for key, fingerprint in current.items() if before.asked.get(key) == fingerprint}
    keys = _keys_among(partitions, current, unchanged, context.instance)
    files = {key: fingerprint for key, fingerprint in current.items() if key in keys}
    left_out = [key for key in current if key not in keys]
    if not files:
        return dg.SkipReason(f"There is no file {location} yet.{_of_no_partition(left_out)}")
    changed = [key for key in files if files[key] != before.asked.get(key)]
    due = [key for key in changed if files[key] == before.seen.get(key)][:_RUNS_AT_ONCE]
    # Files that are gone are forgotten: if they come back, they are new.
    asked = {key: old for key, old in before.asked.items() if key in files} | {key: files[key] for key in due}
    seen = {key: files[key] for key in changed if key not in due}
    cursor = DatasetCursor(seen, asked).write(context.cursor, storage, pipeline.name)
    if not due:
        reason = f"No file of {location} is new or has changed."
        if changed:
            reason = f"New or changed, run if they are the same at the next tick: {_listed(changed, location)}."
        return dg.SensorResult(skip_reason=reason + _of_no_partition(left_out), cursor=cursor)
    return dg.SensorResult(
        # There is no run_key: Dagster stores the cursor and the runs of a tick together, and a file that returns
        # to an earlier content must run again.
        run_requests=[dg.RunRequest(partition_key=key or None) for key in due],
        dynamic_partitions_requests=(
            requests_to_add(context.instance, partitions, due)
            if isinstance(partitions, dg.DynamicPartitionsDefinition)
            else []
        ),
        cursor=cursor,
    )


def _keys_among(
    partitions: dg.PartitionsDefinition[str] | None,
    keys: Collection[str],
    unchanged: Collection[str],
    instance: dg.DagsterInstance,
) -> set[str]:
    """Return those of the keys that are partition keys.

    Args:
        partitions: The partitions of the pipeline.
        keys: The keys to look up.
        unchanged: Keys that were partition keys before and do not run now. They are not looked up again, because
            Dagster needs a millisecond for each key of time partitions.
        instance: The Dagster instance, which knows the keys of dynamic partitions.
    """
    if partitions is None:
        return set(keys)
    if isinstance(partitions, dg.DynamicPartitionsDefinition):
        return {key for key in keys if key_problem(key) is None}
    if isinstance(partitions, dg.TimeWindowPartitionsDefinition):
        return {key for key in keys if key in unchanged or is_partition(partitions, key, instance)}
    return set(keys_of(partitions, instance)).intersection(keys)


def _of_no_partition(keys: list[str]) -> str:
    return f" In no partition, or in one whose time is not over: {_listed(keys, '')}." if keys else ""


def _listed(keys: list[str], location: str) -> str:
    return listed([key or location for key in keys], _SHOWN)
