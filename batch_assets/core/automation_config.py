"""The fields of a pipeline file that start it: `schedule`, and what `watch` needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field, field_validator

from batch_assets.core.config_block import ConfigBlock
from batch_assets.core.partition_config import check_timezone
from batch_assets.core.partitions import PLACEHOLDER

if TYPE_CHECKING:
    from batch_assets.core.config import Pipeline


class ScheduleConfig(ConfigBlock):
    """When a pipeline is run."""

    cron: str = Field(description="Five fields, such as 0 2 * * * for every night at two.")
    timezone: str | None = Field(
        default=None,
        description="Whose clock counts, such as Europe/Berlin. Default: that of the partitions, else UTC.",
    )

    @field_validator("timezone")
    @classmethod
    def _is_a_zone(cls, name: str | None) -> str | None:
        return None if name is None else check_timezone(name)


def watch_problem(pipeline: Pipeline) -> str | None:
    """Why the dataset cannot be watched; None when it can, or need not be."""
    if not pipeline.config.watch:
        return None
    dataset = pipeline.config.dataset
    if dataset.kind == "sql":
        return "only files can be watched; when a query gives other rows, nobody says: use `schedule`"
    if dataset.kind == "asset":
        return (
            f"only files can be watched; to follow {dataset.place} set an automation condition, "
            "AutomationCondition.eager(), on requests and batches by `post_processing`"
        )
    if pipeline.partitions is not None and PLACEHOLDER not in (dataset.path or dataset.files or ""):
        return (
            f"files do not say which partitions have changed unless {PLACEHOLDER} stands in "
            f"dataset.{dataset.kind}: put it there, or use `schedule`"
        )
    return None
