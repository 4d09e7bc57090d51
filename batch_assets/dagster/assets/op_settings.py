"""How Dagster runs the step of a stage: its resource, and tags, pool and retry policy, as the field `op` says."""

from __future__ import annotations

from typing import Any

import dagster as dg

from batch_assets.core.pipeline.op import RetryPolicyConfig
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.dagster.resource import required_keys

# Submissions of one deployment go one after the other, where the instance limits pools.
_POOLS = {"batches": "message_batches"}
_BACKOFFS = {"linear": dg.Backoff.LINEAR, "exponential": dg.Backoff.EXPONENTIAL}
_JITTERS = {"full": dg.Jitter.FULL, "plus_minus": dg.Jitter.PLUS_MINUS}


def op_settings(pipeline: Pipeline, stage: str) -> dict[str, Any]:
    """The arguments of `dg.multi_asset` that say how the step of one stage is run.

    Args:
        stage: requests, batches or results.
    """
    given = pipeline.config.op.of(stage)
    return {
        "op_tags": given.tags,
        "pool": given.pool or _POOLS.get(stage),
        "required_resource_keys": required_keys(pipeline),
        "retry_policy": _retry_policy(given.retry_policy) if given.retry_policy is not None else None,
    }


def _retry_policy(given: RetryPolicyConfig) -> dg.RetryPolicy:
    return dg.RetryPolicy(
        max_retries=given.max_retries,
        delay=given.delay,
        backoff=_BACKOFFS[given.backoff] if given.backoff is not None else None,
        jitter=_JITTERS[given.jitter] if given.jitter is not None else None,
    )
