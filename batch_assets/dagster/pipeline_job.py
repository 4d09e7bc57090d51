"""Jobs of one op that do something to a pipeline, which they find by their own name."""

from collections.abc import Callable
from typing import Any

import dagster as dg


def pipeline_job(name: str, description: str, op: dg.OpDefinition) -> dg.JobDefinition:
    """Build a job that runs one op.

    Args:
        name: The name of the job.
        description: What the job does, for the UI.
        op: The op.
    """

    @dg.job(name=name, description=description)
    def job() -> None:
        op()

    return job


def op_of_resource(name: str, resource_key: str | None, description: str) -> Callable[[Callable[..., Any]], Any]:
    """Return the decorator of an op that all jobs of a resource share.

    Building an op takes a millisecond at every load of every pipeline, so cache what it returns.

    Args:
        name: The name of the op, without that of the resource.
        resource_key: The key of the resource; `None` for the environment.
        description: What the op does, for the UI.
    """
    return dg.op(
        name=name if resource_key is None else f"{name}_of_{resource_key}",
        description=description,
        required_resource_keys=set() if resource_key is None else {resource_key},
    )
