"""`<name>_partitions_sensor`: adds a partition for every new value of a pipeline's column."""

from __future__ import annotations

from collections.abc import Iterable

import dagster as dg

from batch_assets.core.dataset.changes import column_fingerprint
from batch_assets.core.dataset.dataset import Dataset
from batch_assets.core.dataset.partition_keys import partition_keys_of
from batch_assets.core.errors import BatchAssetsError
from batch_assets.core.pipeline.partitions import PartitionsConfig
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.text import count, listed
from batch_assets.dagster.pipelines import pipelines_of_assets
from batch_assets.dagster.remedies import error_as_text

_INTERVAL = 60
# Dagster ends the evaluation of a sensor after 60 s.
_SECONDS = 40.0
_SHOWN = 5


def build_message_batch_partitions_sensors(assets: Iterable[dg.AssetsDefinition]) -> list[dg.SensorDefinition]:
    """Build a sensor `<name>_partitions_sensor` for every pipeline whose partitions are values of a file column.

    The sensor adds new partitions and starts no run: a user, a schedule or a condition does. It compares names,
    sizes and times of the files, and reads the column when a file has changed. It does not watch a query or an
    asset: add their keys by hand or in a sensor of your own.

    Args:
        assets: Assets as `build_message_batch_assets` returns them.
    """
    return [
        _sensor(pipeline_assets.pipeline, pipeline_assets.pipeline.config.partitions, pipeline_assets.partitions)
        for pipeline_assets in pipelines_of_assets(assets).values()
        if pipeline_assets.pipeline.config.partitions is not None
        and pipeline_assets.pipeline.config.partitions.by_value
        and pipeline_assets.pipeline.config.dataset.kind.is_files
        and isinstance(pipeline_assets.partitions, dg.DynamicPartitionsDefinition)
    ]


def _sensor(
    pipeline: Pipeline, partitions: PartitionsConfig, definition: dg.DynamicPartitionsDefinition
) -> dg.SensorDefinition:
    column = partitions.column or ""

    def look(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        try:
            # Computed before the files are read: the next tick sees what is written meanwhile.
            fingerprint = column_fingerprint(pipeline, column)
            if fingerprint == context.cursor:
                return dg.SkipReason(f"No file of {pipeline.config.dataset.location} has changed.")
            with Dataset(pipeline) as dataset:
                values = partition_keys_of(dataset, column, seconds=_SECONDS)
        except BatchAssetsError as error:
            return dg.SkipReason(error_as_text(error))
        added = requests_to_add(context.instance, definition, values.keys)
        new = [key for request in added for key in request.partition_keys]
        return dg.SensorResult(
            skip_reason=_reason(column, len(values.keys), new, values.unusable),
            dynamic_partitions_requests=added,
            cursor=fingerprint,
        )

    return dg.SensorDefinition(
        name=f"{pipeline.name}_partitions_sensor",
        evaluation_fn=look,
        minimum_interval_seconds=_INTERVAL,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Adds a partition for every new value of {column} in {pipeline.config.dataset.location}.",
    )


def requests_to_add(
    instance: dg.DagsterInstance, definition: dg.DynamicPartitionsDefinition, keys: Iterable[str]
) -> list[dg.AddDynamicPartitionsRequest]:
    """Return the requests that make all of the keys partitions: one request, or none if all are known."""
    existing = set(instance.get_dynamic_partitions(definition.name or ""))
    new = [key for key in keys if key not in existing]
    return [definition.build_add_request(new)] if new else []


def _reason(column: str, values: int, new: list[str], unusable: list[str]) -> str:
    reason = f"The column {column} has {count(values, 'value')}"
    if new:
        reason += f"; new partitions: {listed(new, _SHOWN)}"
    return ". ".join([reason, *(f"Left out: {problem}" for problem in unusable)])
