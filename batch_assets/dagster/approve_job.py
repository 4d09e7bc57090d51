"""`<name>_approve`: the job that lets the held request files of a pipeline go."""

from functools import cache

import dagster as dg

from batch_assets.core.batches.approve import approve
from batch_assets.core.open_root import open_root
from batch_assets.core.text import count
from batch_assets.dagster.failures import explained
from batch_assets.dagster.resource import settings_for

_SUFFIX = "_approve"


class ApproveConfig(dg.Config):
    """The target of an approval: one partition or, by default, the whole pipeline."""

    partition: str | None = None


def build_approve_job(name: str, resource_key: str | None) -> dg.JobDefinition:
    """Build the job `<name>_approve` of a pipeline.

    Args:
        name: The name of the pipeline.
        resource_key: The key of its resource.
    """
    approve_op = _approve_op(resource_key)

    @dg.job(
        name=name + _SUFFIX,
        description=f"Lets the request files of {name} go that wait for approval. The sensor sends them.",
    )
    def approve_job() -> None:
        approve_op()

    return approve_job


# All jobs of a resource share one op, because building an op takes a millisecond at every load of every pipeline.
@cache
def _approve_op(resource_key: str | None) -> dg.OpDefinition:
    @dg.op(
        name="approve_files" if resource_key is None else f"approve_files_of_{resource_key}",
        description="Lets held request files go.",
        required_resource_keys=set() if resource_key is None else {resource_key},
    )
    def approve_files(context: dg.OpExecutionContext, config: ApproveConfig) -> None:
        pipeline = context.job_name.removesuffix(_SUFFIX)
        with explained(), open_root(settings_for(resource_key, context.resources)) as root:
            approved = approve(root, pipeline, config.partition)
        requests = sum(file.requests for file in approved)
        files = count(len(approved), "request file", "request files")
        context.log.info(f"{files} with {count(requests, 'request')} approved")

    return approve_files
