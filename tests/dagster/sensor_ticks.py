"""The sensor of all pipelines, ticked on demand, and the runs that it asks for."""

from __future__ import annotations

from typing import Any

import dagster as dg
from sqlalchemy import text

from batch_assets import build_message_batch_jobs, build_message_batch_sensor
from batch_assets.core.open_root import open_root


def location_of(assets: list[dg.AssetsDefinition]) -> dg.Definitions:
    """A code location with the assets of pipelines, their jobs and the sensor."""
    sensor = build_message_batch_sensor()
    return dg.Definitions(assets=assets, jobs=build_message_batch_jobs(assets), sensors=[sensor])


def tick(location: dg.Definitions, instance: dg.DagsterInstance, cursor: str | None = None) -> Any:
    """What a tick of the sensor decides."""
    repository = location.get_repository_def()
    with dg.build_sensor_context(instance=instance, repository_def=repository, cursor=cursor) as context:
        return build_message_batch_sensor().evaluate_tick(context)


def poll_and_tick(location: dg.Definitions, instance: dg.DagsterInstance) -> Any:
    """What a tick decides when all open batches are due to be polled."""
    with open_root() as root, root.ledger.write() as tx:
        tx.execute(text("update batch set next_poll_at = 0"))
    return tick(location, instance)


def run_requested(
    request: dg.RunRequest, assets: list[dg.AssetsDefinition], instance: dg.DagsterInstance
) -> dg.ExecuteInProcessResult:
    """Run what a tick asked for."""
    return dg.materialize(
        assets,
        selection=request.asset_selection,
        instance=instance,
        tags=request.tags,
        partition_key=request.partition_key,
    )
