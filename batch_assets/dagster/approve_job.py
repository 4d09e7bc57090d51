"""`<name>_approve`: the job that lets the held request files of a pipeline go."""

from functools import cache
from typing import Any

import dagster as dg

from batch_assets.core.batches.approve import approve, describe_approved
from batch_assets.core.open_root import open_root
from batch_assets.dagster.failures import explained
from batch_assets.dagster.pipeline_job import op_of_resource, pipeline_job
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
    description = (
        f"Lets the request files of {name} go that wait for approval. The sensor sends them. Why they wait, and "
        f"what they may cost, is in the metadata of {name}/requests and in the log of this job."
    )
    return pipeline_job(name + _SUFFIX, description, _approve_op(resource_key))


@cache
def _approve_op(resource_key: str | None) -> Any:
    @op_of_resource("approve_files", resource_key, "Lets held request files go.")
    def approve_files(context: dg.OpExecutionContext, config: ApproveConfig) -> None:
        pipeline = context.job_name.removesuffix(_SUFFIX)
        with explained(), open_root(settings_for(resource_key, context.resources)) as root:
            approved = approve(root, pipeline, config.partition)
        for line in describe_approved(approved):
            context.log.info(line)

    return approve_files
