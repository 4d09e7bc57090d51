"""What all blocks of a pipeline file have in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class ConfigBlock(BaseModel):
    """Fields that nobody declared are mistakes, and nothing changes what was read."""

    model_config = ConfigDict(extra="forbid", frozen=True)
