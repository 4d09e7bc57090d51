"""The fields of a pipeline as keyword arguments, for `build_message_batch_assets`."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Required, TypedDict

import dagster as dg
from pydantic import BaseModel

from batch_assets.core.pipeline.automation import ScheduleConfig
from batch_assets.core.pipeline.blocks import (
    BatchingConfig,
    BudgetConfig,
    ClientConfig,
    PilotConfig,
    RescueConfig,
    RetentionConfig,
    RetryConfig,
    SinkConfig,
)
from batch_assets.core.pipeline.dataset import DatasetConfig
from batch_assets.core.pipeline.notify import NotifyConfig
from batch_assets.core.pipeline.op import OpConfig
from batch_assets.core.pipeline.partitions import PartitionsConfig


class PipelineFields(TypedDict, total=False):
    """The fields of `PipelineConfig`, with the types that Python code may use. None means the default."""

    name: Required[str]
    dataset: Required[Mapping[str, Any] | DatasetConfig]
    partitions: Mapping[str, Any] | PartitionsConfig | dg.PartitionsDefinition[Any] | None
    schedule: str | Mapping[str, Any] | ScheduleConfig | None
    watch: bool | None
    params: Required[Mapping[str, Any]]
    output_schema: str | Mapping[str, Any] | type[BaseModel] | None
    batching: Mapping[str, Any] | BatchingConfig | None
    retry: Mapping[str, Any] | RetryConfig | None
    retention: Mapping[str, Any] | RetentionConfig | None
    sink: Mapping[str, Any] | SinkConfig | None
    notify: Sequence[Mapping[str, Any] | NotifyConfig] | None
    resource_key: str | None
    client: Mapping[str, Any] | ClientConfig | None
    op: Mapping[str, Any] | OpConfig | None
    budget: Mapping[str, Any] | BudgetConfig | None
    confirm_above: float | None
    cache: Literal["auto"] | None
    cost_center: str | None
    pilot: int | Mapping[str, Any] | PilotConfig | None
    deadline: str | None
    rescue: Literal["live"] | Mapping[str, Any] | RescueConfig | None
    max_failed: float | None
    max_invalid: float | None
    betas: Sequence[str] | None
    anthropic_version: str | None
    allow_unknown_params: bool | None


def given_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields as a pipeline file would have them, without those that are None."""
    return {name: _as_in_a_file(value) for name, value in fields.items() if value is not None}


def _as_in_a_file(value: Any) -> Any:
    if isinstance(value, type):  # a pydantic model, which a pipeline file names by its import path
        return f"{value.__module__}:{value.__qualname__}"
    if isinstance(value, Mapping):
        return dict(value)
    # Plain sequences only: some of Dagster's partitions definitions are tuples as well, and refuse to be iterated.
    return list(value) if type(value) in (list, tuple) else value
