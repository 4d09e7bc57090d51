"""The pipelines of a code location, and those that no sensor watches."""

from __future__ import annotations

import dagster as dg

from batch_assets.dagster.pipelines import PipelineAssets, pipelines_in
from batch_assets.dagster.sensors.ledger_sensor import LedgerSensor


def specs_of_location(context: dg.SensorEvaluationContext) -> list[dg.AssetSpec]:
    """Return the specs of the assets of the sensor's code location. One may be there several times."""
    repository = context.repository_def
    if repository is None:
        return []
    return [spec for assets in repository.assets_defs_by_key.values() for spec in assets.specs]


def pipelines_of_location(context: dg.SensorEvaluationContext) -> dict[str, PipelineAssets]:
    """Return every pipeline of the sensor's code location, by name."""
    return pipelines_in(specs_of_location(context))


def unwatched(context: dg.SensorEvaluationContext) -> list[str]:
    """Return sentences that name the pipelines whose root no sensor of the code location watches."""
    repository = context.repository_def
    if repository is None:
        return []
    watched = {sensor.resource_key for sensor in repository.sensor_defs if isinstance(sensor, LedgerSensor)}
    names: dict[str | None, list[str]] = {}
    for name, assets in pipelines_of_location(context).items():
        if (key := assets.pipeline.config.resource_key) not in watched:
            names.setdefault(key, []).append(name)
    return [
        f"No sensor watches {', '.join(of_key)}: add build_message_batch_sensor"
        f"({'' if key is None else f'resource_key={key!r}'}) to the definitions."
        for key, of_key in names.items()
    ]
