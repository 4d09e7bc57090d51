"""The field of a pipeline file that says how Dagster runs a stage: `op`. The core itself has no use for it."""

from __future__ import annotations

import json
import re
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from batch_assets.core.config_block import ConfigBlock
from batch_assets.core.remedies import Stage


class RetryPolicyConfig(ConfigBlock):
    """How often Dagster repeats a step that failed, within its run."""

    max_retries: int = Field(default=1, ge=1, le=100, description="Maximum number of repetitions of the step.")
    delay: float | None = Field(default=None, ge=0, description="Seconds before a repetition. Default: none.")
    backoff: Literal["linear", "exponential"] | None = Field(
        default=None, description="How the delay grows: linear or exponential. Default: it does not grow."
    )
    jitter: Literal["full", "plus_minus"] | None = Field(
        default=None, description="How the delay is randomized: full or plus_minus. Default: not randomized."
    )

    @model_validator(mode="after")
    def _delay_to_change(self) -> RetryPolicyConfig:
        if self.delay is None and (self.backoff or self.jitter):
            raise ValueError("backoff and jitter change a delay: give `delay`, in seconds, as well")
        return self


class StageOpConfig(ConfigBlock):
    """How Dagster runs one stage."""

    tags: dict[str, Any] = Field(
        default={}, description="Tags of the step, which executors read, such as dagster-k8s/config."
    )
    pool: str | None = Field(
        default=None,
        description="Concurrency pool of the step. Default: message_batches for batches, no pool for the others.",
    )
    retry_policy: RetryPolicyConfig | None = Field(
        default=None, description="How often Dagster repeats a failed step. Default: never."
    )

    @field_validator("tags")
    @classmethod
    def _tags_have_a_json_form(cls, tags: dict[str, Any]) -> dict[str, Any]:
        for name, value in tags.items():
            try:
                same = json.loads(json.dumps(value)) == value
            except (TypeError, ValueError):
                same = False
            if not same:
                raise ValueError(
                    f"{name}: the value must be text, or JSON: put what YAML reads as another type in quotes"
                )
        return tags

    @field_validator("pool")
    @classmethod
    def _pool_is_one_word(cls, pool: str | None) -> str | None:
        if pool is not None and not re.fullmatch(r"\S+", pool):
            raise ValueError("the name of a pool has no spaces")
        return pool


AS_IT_IS = StageOpConfig()


class OpConfig(ConfigBlock):
    """How Dagster runs each stage."""

    requests: StageOpConfig = Field(default=AS_IT_IS, description="The step that writes the requests.")
    batches: StageOpConfig = Field(default=AS_IT_IS, description="The step that submits them.")
    results: StageOpConfig = Field(default=AS_IT_IS, description="The step that collects the answers.")

    def of(self, stage: Stage) -> StageOpConfig:
        """Return the settings of a stage."""
        config: StageOpConfig = getattr(self, stage.value)
        return config
