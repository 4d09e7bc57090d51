"""How Dagster runs the step of a stage: its resource, and the tags, pool and retry policy from the field `op`."""

from __future__ import annotations

from typing import Any

import dagster as dg

from batch_assets.core.pipeline.op import RetryPolicyConfig
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.remedies import Stage
from batch_assets.dagster.pools import pool_of
from batch_assets.dagster.resource import required_keys

_BACKOFFS = {"linear": dg.Backoff.LINEAR, "exponential": dg.Backoff.EXPONENTIAL}
_JITTERS = {"full": dg.Jitter.FULL, "plus_minus": dg.Jitter.PLUS_MINUS}


def op_settings(pipeline: Pipeline, stage: Stage) -> dict[str, Any]:
    """Return the arguments of `dg.multi_asset` that determine how the step of one stage runs.

    Args:
        pipeline: The pipeline.
        stage: The stage.
    """
    op = pipeline.config.op.of(stage)
    return {
        "op_tags": op.tags,
        "pool": pool_of(pipeline, stage),
        "required_resource_keys": required_keys(pipeline),
        "retry_policy": _retry_policy(op.retry_policy) if op.retry_policy is not None else None,
    }


def _retry_policy(policy: RetryPolicyConfig) -> dg.RetryPolicy:
    return dg.RetryPolicy(
        max_retries=policy.max_retries,
        delay=policy.delay,
        backoff=_BACKOFFS[policy.backoff] if policy.backoff is not None else None,
        jitter=_JITTERS[policy.jitter] if policy.jitter is not None else None,
    )
