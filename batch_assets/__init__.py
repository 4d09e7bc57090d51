"""Turns a dataset into Anthropic Message Batches and the answers into Parquet, as Dagster assets.

The public names are imported on demand: importing Dagster takes seconds, and the core does not need it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from batch_assets.core.pipeline.hooks import RowRejected, ToolCall, ToolFailed
    from batch_assets.core.reading.read import read_results
    from batch_assets.dagster.assets.build import build_message_batch_assets
    from batch_assets.dagster.assets.spend import build_message_batch_spend
    from batch_assets.dagster.broken.load import load_from_defs_folder
    from batch_assets.dagster.cancel_job import build_message_batch_cancel_jobs
    from batch_assets.dagster.checks.build import build_message_batch_checks
    from batch_assets.dagster.component import MessageBatchComponent
    from batch_assets.dagster.jobs import build_message_batch_jobs
    from batch_assets.dagster.resource import MessageBatchResource
    from batch_assets.dagster.schedule import build_message_batch_schedules
    from batch_assets.dagster.sensors.dataset_sensor import build_message_batch_watch_sensors
    from batch_assets.dagster.sensors.partition_sensor import build_message_batch_partitions_sensors
    from batch_assets.dagster.sensors.results_sensor import build_message_batch_sensor

__version__ = "0.1.0"
__all__ = [
    "MessageBatchComponent",
    "MessageBatchResource",
    "RowRejected",
    "ToolCall",
    "ToolFailed",
    "build_message_batch_assets",
    "build_message_batch_cancel_jobs",
    "build_message_batch_checks",
    "build_message_batch_jobs",
    "build_message_batch_partitions_sensors",
    "build_message_batch_schedules",
    "build_message_batch_sensor",
    "build_message_batch_spend",
    "build_message_batch_watch_sensors",
    "load_from_defs_folder",
    "read_results",
]

_HOMES = {
    "MessageBatchComponent": "batch_assets.dagster.component",
    "MessageBatchResource": "batch_assets.dagster.resource",
    "RowRejected": "batch_assets.core.pipeline.hooks",
    "ToolCall": "batch_assets.core.pipeline.hooks",
    "ToolFailed": "batch_assets.core.pipeline.hooks",
    "build_message_batch_assets": "batch_assets.dagster.assets.build",
    "build_message_batch_cancel_jobs": "batch_assets.dagster.cancel_job",
    "build_message_batch_checks": "batch_assets.dagster.checks.build",
    "build_message_batch_jobs": "batch_assets.dagster.jobs",
    "build_message_batch_partitions_sensors": "batch_assets.dagster.sensors.partition_sensor",
    "build_message_batch_schedules": "batch_assets.dagster.schedule",
    "build_message_batch_sensor": "batch_assets.dagster.sensors.results_sensor",
    "build_message_batch_spend": "batch_assets.dagster.assets.spend",
    "build_message_batch_watch_sensors": "batch_assets.dagster.sensors.dataset_sensor",
    "load_from_defs_folder": "batch_assets.dagster.broken.load",
    "read_results": "batch_assets.core.reading.read",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
