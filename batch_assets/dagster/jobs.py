"""The jobs of a pipeline: run it, plan it, cancel it, send failed requests again, send all requests again."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING, Any

import dagster as dg

from batch_assets.core.pipeline.config import PipelineConfig
from batch_assets.core.remedies import Stage
from batch_assets.dagster.approve_job import build_approve_job
from batch_assets.dagster.cancel_job import build_message_batch_cancel_jobs
from batch_assets.dagster.pipelines import PipelineAssets, given_assets, pipelines_of_assets

if TYPE_CHECKING:
    from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

# Names that Dagster refuses for a job, and endings of the names of a pipeline's other jobs.
_REFUSED = (
    *keyword.kwlist,
    *("context", "conf", "config", "meta", "arg_dict", "dict", "input_arg_dict", "output_arg_dict", "int", "str"),
    *("float", "bool", "input", "output", "type"),
)
_ENDINGS = ("plan", "cancel", "approve", "retry_failed", "refresh")
# Pipelines whose job is `<name>_run`, and those that have such a name themselves. So no two jobs get the same.
_HAS_RUN = re.compile(rf"(?:{'|'.join(_REFUSED)}|\w*_(?:{'|'.join(_ENDINGS)}))(?:_run)*")
_RUN = "Runs {name}: sends the requests of rows that have no answer. The sensor brings the answers back."
_RETRY_FAILED = (
    "Sends again the requests of {name} that failed permanently or used up their attempts. It also sends the "
    "requests of rows that are new or have changed. The sensor brings the answers back. The log has their "
    "estimated cost before anything is sent; {name}_plan with `retry_failed: true` reports it without sending."
)
_PLAN = (
    "Reports what a run of {name} would send and what it would cost. Nothing is written, and no batch is made. "
    "The plan is in the log, and in the metadata of an observation of its requests."
)
_REFRESH = (
    "Sends all requests of {name} again, answered or not. By default it sends nothing and only reports how many "
    "requests that is and about what they cost. Set `confirm: true` in the Launchpad to send them. The table does "
    "not change until every row has its new answer; a row whose new request fails permanently keeps the old "
    "answer. Refresh several partitions in one backfill: otherwise requests that they share are paid for in each."
)


def build_message_batch_jobs(
    assets: Iterable[dg.AssetsDefinition],
) -> list[dg.JobDefinition | UnresolvedAssetJobDefinition]:
    """Build the jobs of each pipeline.

    `<name>` runs the whole pipeline. `<name>_plan`, `<name>_retry_failed` and `<name>_refresh` run its assets with
    another config of `requests`, and `<name>_cancel` cancels its batches. A pipeline whose requests may be held
    for approval has a job `<name>_approve` too. If the pipeline has partitions, the user chooses one at launch.

    Args:
        assets: Assets as `build_message_batch_assets` returns them.
    """
    assets = given_assets(assets)
    pipelines = pipelines_of_assets(assets)
    op_of = {key: asset.op.name for asset in assets for key in asset.keys}
    jobs: list[dg.JobDefinition | UnresolvedAssetJobDefinition] = [*build_message_batch_cancel_jobs(assets)]
    jobs += [
        build_approve_job(name, pipeline.pipeline.config.resource_key)
        for name, pipeline in pipelines.items()
        if _may_need_approval(pipeline.pipeline.config)
    ]
    for name, pipeline in pipelines.items():
        op = op_of[pipeline.stages[Stage.REQUESTS]]
        stages = [*pipeline.stages.values()]
        planned = [pipeline.stages[Stage.REQUESTS]]
        refresh = {"refresh": True, "confirm": False}
        jobs.append(pipeline_run_job(pipeline))
        jobs.append(_job(f"{name}_plan", name, planned, op, _PLAN, {"plan": True}))
        jobs.append(_job(f"{name}_retry_failed", name, stages, op, _RETRY_FAILED, {"retry_failed": True}))
        jobs.append(_job(f"{name}_refresh", name, stages, op, _REFRESH, refresh))
    return jobs


def pipeline_run_job(assets: PipelineAssets) -> UnresolvedAssetJobDefinition:
    """Build the job `<name>`, which runs the three assets of a pipeline.

    If the name ends as the names of the other jobs do, or is a word that Dagster refuses, it is `<name>_run`: a
    pipeline `trip_plan` has another job than the plan of a pipeline `trip`.

    The pipeline's schedule and its watch sensor run it too, so its row in Dagster's list of jobs shows their runs.

    Args:
        assets: The pipeline and its assets.
    """
    return _run_job(assets.pipeline.name, tuple(assets.stages.values()))


@cache
def _run_job(name: str, stages: tuple[dg.AssetKey, ...]) -> UnresolvedAssetJobDefinition:
    """Build the job once: Dagster refuses two jobs of one name, though they are equal."""
    selection = dg.AssetSelection.assets(*stages)
    job = f"{name}_run" if _HAS_RUN.fullmatch(name) else name
    return dg.define_asset_job(job, selection=selection, description=_RUN.format(name=name))


def _may_need_approval(config: PipelineConfig) -> bool:
    """Whether request files may be held until a user approves them: for what they cost, or for their pilot."""
    return config.confirm_above is not None or config.pilot is not None


def _job(
    name: str, pipeline: str, stages: list[dg.AssetKey], op: str, description: str, config: dict[str, Any]
) -> UnresolvedAssetJobDefinition:
    return dg.define_asset_job(
        name,
        selection=dg.AssetSelection.assets(*stages),
        description=description.format(name=pipeline),
        config={"ops": {op: {"config": config}}},
    )
