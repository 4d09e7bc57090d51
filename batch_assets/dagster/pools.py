"""The pools that limit how many steps run at a time."""

from __future__ import annotations

from collections.abc import Iterable

from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.remedies import Stage

# With this pool, an instance that limits pools runs the `batches` steps of all pipelines one after the other.
_DEFAULTS = {Stage.BATCHES: "message_batches"}


def pool_of(pipeline: Pipeline, stage: Stage) -> str | None:
    """Return the concurrency pool of a step; None if it has none."""
    return pipeline.config.op.of(stage).pool or _DEFAULTS.get(stage)


def pools_of(pipelines: Iterable[Pipeline]) -> list[str]:
    """Return the names of all pools of the steps of pipelines, in alphabetical order."""
    return sorted({pool for pipeline in pipelines for stage in Stage if (pool := pool_of(pipeline, stage))})
