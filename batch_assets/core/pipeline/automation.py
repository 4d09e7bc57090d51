"""The field `schedule` of a pipeline file, which runs the pipeline at certain times."""

from __future__ import annotations

from pydantic import Field, field_validator

from batch_assets.core.config_block import ConfigBlock
from batch_assets.core.pipeline.timezones import check_timezone


class ScheduleConfig(ConfigBlock):
    """The times at which a pipeline runs."""

    cron: str = Field(description="Five fields, such as 0 2 * * * for every night at two.")
    timezone: str | None = Field(
        default=None,
        description="Time zone of the schedule, such as Europe/Berlin. Default: that of the partitions, or UTC.",
    )

    @field_validator("timezone")
    @classmethod
    def _is_a_zone(cls, name: str | None) -> str | None:
        return None if name is None else check_timezone(name)
