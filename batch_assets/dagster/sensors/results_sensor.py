"""`build_message_batch_sensor`: the one sensor that watches the ledger of a code location."""

import os
from collections.abc import Sequence
from functools import cache
from typing import Any

import dagster as dg

from batch_assets.dagster import keys
from batch_assets.dagster.sensors.tick import watch

# The emulator ends batches in seconds, the API in minutes to hours.
_INTERVAL, _INTERVAL_EMULATED = 30, 5


def build_message_batch_sensor(
    *, name: str = "message_batches_sensor", pipelines: Sequence[str] | None = None
) -> dg.SensorDefinition:
    """A sensor that looks at open batches and has `results` materialized as they end.

    The same arguments give the same object, so that every pipeline of a code location can bring it along.

    Args:
        name: of the sensor.
        pipelines: names of the pipelines it watches; default all of the code location.
    """
    interval = _INTERVAL_EMULATED if os.environ.get("BATCH_ASSETS_EMULATOR") else _INTERVAL
    return _build(name, tuple(pipelines) if pipelines is not None else None, interval)


@cache
def _build(name: str, pipelines: tuple[str, ...] | None, interval: int) -> dg.SensorDefinition:
    # A selection, not a job: it is resolved late, and pipelines may differ in their partitions.
    watched = dg.AssetSelection.tag(keys.STAGE, "batches") | dg.AssetSelection.tag(keys.STAGE, "results")

    def look(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        return watch(context, pipelines)

    return _SharedSensor(
        name=name,
        evaluation_fn=look,
        asset_selection=watched,
        minimum_interval_seconds=interval,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Looks at open message batches and asks for the runs that bring their results back.",
    )


class _SharedSensor(dg.SensorDefinition):
    """Stays one object: Dagster copies the sensors of a component to note in each where it came from, and
    would then see as many sensors of one name as there are pipelines.
    """

    def with_attributes(self, *, jobs: Any = None, metadata: Any = None) -> dg.SensorDefinition:
        return self if not jobs else super().with_attributes(jobs=jobs, metadata=metadata)
