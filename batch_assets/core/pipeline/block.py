"""The base class of all blocks of a pipeline file."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class ConfigBlock(BaseModel):
    """A block of a pipeline file. Unknown fields are errors, and its values cannot be changed."""

    model_config = ConfigDict(extra="forbid", frozen=True)
