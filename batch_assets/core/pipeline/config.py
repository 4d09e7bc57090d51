"""The fields of a pipeline file, validated."""

from __future__ import annotations

import re
from datetime import date
from typing import Any, Literal

from pydantic import Field, field_validator

from batch_assets.core.config_block import ConfigBlock
from batch_assets.core.pipeline.automation import ScheduleConfig
from batch_assets.core.pipeline.blocks import (
    KEEP_EVERYTHING,
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
from batch_assets.core.pipeline.notify import NotifyConfig, one_entry_a_target
from batch_assets.core.pipeline.op import OpConfig
from batch_assets.core.pipeline.partitions import PartitionsConfig
from batch_assets.core.pipeline.time_span import seconds_of
from batch_assets.core.template.batch_rules import OLD_VERSION

SHORT_FORMS = {"schedule": 'a text such as "0 2 * * *"', "pilot": "a number of rows", "rescue": "live"}
"""What may be written in place of a block, by its field."""


class PipelineConfig(ConfigBlock):
    """The attributes of a pipeline file, field by field."""

    name: str = Field(description="The pipeline's name. Asset keys are name/requests, name/batches, name/results.")
    dataset: DatasetConfig = Field(description="The input table.")
    partitions: PartitionsConfig | None = Field(
        default=None, description="The partitions of the assets and the rows of each. Default: no partitions."
    )
    schedule: ScheduleConfig | None = Field(
        default=None,
        description="When the pipeline runs: a cron expression such as 0 2 * * *, or {cron, timezone}.",
    )
    watch: bool = Field(
        default=False,
        description="Run the pipeline when files of dataset.path or dataset.files are new or changed.",
    )
    params: dict[str, Any] = Field(
        description="The body of a Messages API request. Every string is a Jinja template over the row."
    )
    output_schema: str | dict[str, Any] | None = Field(
        default=None,
        description="JSON Schema (a file in the pipeline's folder, or inline) or module:PydanticModel. Its "
        "properties become typed columns.",
    )
    batching: BatchingConfig = Field(
        default=BatchingConfig(), description="How requests are divided into batches."
    )
    retry: RetryConfig = Field(
        default=RetryConfig(), description="How often failed requests are sent, and which answers are asked again."
    )
    retention: RetentionConfig = Field(
        default=KEEP_EVERYTHING, description="How long batches and request files are kept. Default: without limit."
    )
    sink: SinkConfig | None = Field(
        default=None, description="A database table that gets a copy of complete results."
    )
    notify: list[NotifyConfig] = Field(
        default=[],
        description="Targets to notify when results are complete, too many rows failed, or a deadline is near.",
    )
    resource_key: str | None = Field(
        default=None,
        description="Key of the MessageBatchResource that gives the root and the API.",
    )
    client: ClientConfig = Field(
        default=ClientConfig(),
        description="How the API is called: its provider and workspace, a user profile, a timeout.",
    )
    op: OpConfig = Field(
        default=OpConfig(), description="How Dagster runs the step of each stage: tags, pool and retry policy."
    )
    budget: BudgetConfig | None = Field(
        default=None,
        description="The most that the pipeline may spend in a run, a day or a month. Default: no cap.",
    )
    confirm_above: float | None = Field(
        default=None,
        ge=0,
        description="Dollars. Requests that may cost more are held until a user approves them. Default: no limit.",
    )
    cache: Literal["auto"] | None = Field(
        default=None,
        description="auto: one request is sent first, and the others read what they share with it from the prompt "
        "cache. Default: off.",
    )
    cost_center: str | None = Field(
        default=None, min_length=1, description="Who pays, as a text for the table of what was spent."
    )
    pilot: PilotConfig | None = Field(
        default=None,
        description="Number of random requests of a new prompt that are sent and judged before the rest, such as "
        "20, or {rows, then}. Default: no pilot.",
    )
    deadline: str | None = Field(
        default=None,
        description="How long after the first run of batches rows are asked by `rescue` that have no answer, such "
        "as 90m, 6h or 1d. Default: never.",
    )
    rescue: RescueConfig | None = Field(
        default=None,
        description="live, or {live: {max_in_flight}}: how rows are asked when the deadline has passed. Default: "
        "they are not.",
    )
    max_failed: float = Field(default=0.01, ge=0, le=1, description="Share of rows that may have no answer.")
    max_invalid: float = Field(
        default=0.01,
        ge=0,
        le=1,
        description="Share of answers that may be refused, cut off, or not match the output schema.",
    )
    betas: list[str] = Field(
        default=[],
        description="Beta features, sent as the anthropic-beta header; each may be a Jinja template over the row.",
    )
    anthropic_version: str | None = Field(default=None, description="Pins the anthropic-version header.")
    allow_unknown_params: bool = Field(
        default=False, description="Accepts params that the installed SDK does not know yet."
    )

    @field_validator("name")
    @classmethod
    def _name_is_an_asset_key(cls, name: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9_]{1,100}", name):
            raise ValueError("use letters, digits and underscores only, at most 100")
        return name

    @field_validator("resource_key")
    @classmethod
    def _resource_key_is_a_name(cls, key: str | None) -> str | None:
        if key is not None and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", key):
            raise ValueError("use letters, digits and underscores only, as keys of Dagster's resources do")
        return key

    @field_validator("schedule", mode="before")
    @classmethod
    def _cron_alone(cls, schedule: Any) -> Any:
        return {"cron": schedule} if isinstance(schedule, str) else schedule

    @field_validator("pilot", mode="before")
    @classmethod
    def _rows_alone(cls, pilot: Any) -> Any:
        return {"rows": pilot} if isinstance(pilot, int) and not isinstance(pilot, bool) else pilot

    @field_validator("deadline", mode="after")
    @classmethod
    def _deadline_is_a_time_span(cls, deadline: str | None) -> str | None:
        if deadline is not None:
            seconds_of(deadline)
        return deadline

    @field_validator("rescue", mode="before")
    @classmethod
    def _live_alone(cls, rescue: Any) -> Any:
        if isinstance(rescue, str) and rescue != "live":
            raise ValueError(f"give live, not {rescue}")
        return {"live": {}} if rescue == "live" else rescue

    @field_validator("notify")
    @classmethod
    def _one_entry_a_target(cls, entries: list[NotifyConfig]) -> list[NotifyConfig]:
        return one_entry_a_target(entries)

    @field_validator("betas")
    @classmethod
    def _names_betas(cls, betas: list[str]) -> list[str]:
        if not all(betas):
            raise ValueError("the name of a beta feature is empty: give it, or leave the entry out")
        return betas

    @field_validator("anthropic_version", mode="before")
    @classmethod
    def _version_is_a_date(cls, version: Any) -> Any:
        text = version.isoformat() if isinstance(version, date) else version  # YAML turns it into a date
        if isinstance(text, str) and not re.fullmatch(r"\d{4}-\d{2}-\d{2}", text):
            raise ValueError(f"an API version is a date like {OLD_VERSION}")
        return text
