"""`<name>_cancel`: the job that cancels a pipeline in the UI."""

from collections.abc import Iterable
from functools import cache
from typing import Any

import dagster as dg

from batch_assets.core.batches.cancel import CancelReport
from batch_assets.core.cancel import cancel
from batch_assets.core.open_root import open_root
from batch_assets.dagster.failures import explained
from batch_assets.dagster.pipeline_job import op_of_resource, pipeline_job
from batch_assets.dagster.pipelines import pipelines_of_assets
from batch_assets.dagster.remedies import as_text
from batch_assets.dagster.resource import settings_for

_SUFFIX = "_cancel"


class CancelConfig(dg.Config):
    """The target of a cancel: one partition, one batch or, by default, the whole pipeline."""

    partition: str | None = None
    batch_id: str | None = None


def build_message_batch_cancel_jobs(assets: Iterable[dg.AssetsDefinition]) -> list[dg.JobDefinition]:
    """Build a job `<name>_cancel` for every pipeline among the assets.

    The job ends the pipeline's open batches at the API and sends no more requests. Answers that arrived before
    are kept; the next run of the pipeline sends the other requests. The job's config may name one partition or
    one batch.

    Args:
        assets: Assets as `build_message_batch_assets` returns them.
    """
    return [
        _job(name, pipeline_assets.pipeline.config.resource_key)
        for name, pipeline_assets in pipelines_of_assets(assets).items()
    ]


def _job(name: str, resource_key: str | None) -> dg.JobDefinition:
    description = (
        f"Cancels {name}: ends its open batches and sends no more requests. Answers that arrived before are kept; "
        "materialize requests and batches to send the other requests."
    )
    return pipeline_job(name + _SUFFIX, description, _cancel_op(resource_key))


@cache
def _cancel_op(resource_key: str | None) -> Any:
    @op_of_resource("cancel_batches", resource_key, "Ends the pipeline's batches at the API.")
    def cancel_batches(context: dg.OpExecutionContext, config: CancelConfig) -> None:
        pipeline = context.job_name.removesuffix(_SUFFIX)
        with explained(), open_root(settings_for(resource_key, context.resources)) as root:
            report = cancel(root, config.batch_id or pipeline, config.partition)
        _log(context, report)

    return cancel_batches


def _log(context: dg.OpExecutionContext, report: CancelReport) -> None:
    for line in report.done():
        context.log.info(line)
    for line in report.left():
        context.log.warning(line)
    if report.problems:
        raise dg.Failure(
            description="; ".join([*report.problems, *map(as_text, report.remedies)]), allow_retries=True
        )
