"""`build_message_batch_sensor`: the sensor that watches the ledger of a code location, one for each root."""

import os
import re
from collections.abc import Sequence
from functools import cache

import dagster as dg

from batch_assets.core.remedies import Stage
from batch_assets.dagster import keys
from batch_assets.dagster.instance_settings import warn_of_differences
from batch_assets.dagster.sensors.ledger_sensor import LedgerSensor
from batch_assets.dagster.sensors.tick import watch

# The emulator ends batches in seconds, the API in minutes to hours.
_INTERVAL, _INTERVAL_EMULATED = 30, 5
# Pipelines have sensors `<name>_watch_sensor` and `<name>_partitions_sensor`. So no two sensors get the same name.
_HAS_RESULTS = re.compile(r"_(?:watch|partitions)(?:_results)*$")


def build_message_batch_sensor(
    *, name: str | None = None, pipelines: Sequence[str] | None = None, resource_key: str | None = None
) -> dg.SensorDefinition:
    """Build a sensor that polls open batches and starts runs that materialize `results` when they end.

    It watches one ledger, so pipelines with a `resource_key` need another sensor for their key: an account that
    is slow or unreachable then delays no other. The same arguments return the same object, so that every pipeline
    of a code location can define the sensor.

    Args:
        name: Name of the sensor; by default `message_batches_sensor`, with a key `message_batches_<key>_sensor`,
            or `message_batches_<key>_results_sensor` if the key ends as the sensors of pipelines do (`eu_watch`).
        pipelines: Names of the pipelines to watch; by default all pipelines of the code location with this key.
        resource_key: The `resource_key` of the pipelines; None for those that take root and API from the
            environment.
    """
    warn_of_differences()  # every code location with pipelines builds this sensor, and needs these settings
    if name is None:
        of_key = "" if resource_key is None else f"_{resource_key}"
        name = f"message_batches{of_key}{'_results' if _HAS_RESULTS.search(of_key) else ''}_sensor"
    interval = _INTERVAL_EMULATED if os.environ.get("BATCH_ASSETS_EMULATOR") else _INTERVAL
    return _build(name, tuple(pipelines) if pipelines is not None else None, resource_key, interval)


@cache
def _build(
    name: str, pipelines: tuple[str, ...] | None, resource_key: str | None, interval: int
) -> dg.SensorDefinition:
    # It is a selection, not a job, because a job cannot have pipelines with different partitions.
    watched = dg.AssetSelection.tag(keys.STAGE, Stage.BATCHES.value) | dg.AssetSelection.tag(
        keys.STAGE, Stage.RESULTS.value
    )

    def look(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        return watch(context, resource_key, pipelines)

    return LedgerSensor(
        name=name,
        evaluation_fn=look,
        asset_selection=watched,
        minimum_interval_seconds=interval,
        default_status=dg.DefaultSensorStatus.RUNNING,
        required_resource_keys=set() if resource_key is None else {resource_key},
        description="Polls open message batches and starts the runs that bring their results back.",
    )
