"""`build_message_batch_assets`: a pipeline as three Dagster assets."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
from pydantic import BaseModel

from batch_assets.core.answers.parsed_answers import ParseMessage
from batch_assets.core.pipeline.automation import ScheduleConfig
from batch_assets.core.pipeline.blocks import BatchingConfig, RetentionConfig, RetryConfig, SinkConfig
from batch_assets.core.pipeline.dataset import DatasetConfig
from batch_assets.core.pipeline.load import load_pipeline
from batch_assets.core.pipeline.notify import NotifyConfig
from batch_assets.core.pipeline.partitions import PartitionsConfig
from batch_assets.core.pipeline.pipeline import Hooks, Pipeline, RenderRequest
from batch_assets.core.settings import find_project
from batch_assets.dagster import keys
from batch_assets.dagster.assets.batches import materialize_batches
from batch_assets.dagster.assets.requests import materialize_requests, say_costs
from batch_assets.dagster.assets.requests_config import RequestsConfig
from batch_assets.dagster.assets.results import materialize_results
from batch_assets.dagster.assets.specs import default_asset_spec
from batch_assets.dagster.partitions import (
    Event,
    GivenPartitions,
    all_partitions,
    one_partition,
    partitions_definition,
)
from batch_assets.dagster.pipelines import STAGES, PipelineFile, upstream_key

# Submissions of one deployment go one after the other, where the instance limits pools.
_POOL = "message_batches"

SpecOf = Callable[[Pipeline, str], dg.AssetSpec]


def build_message_batch_assets(
    *,
    name: str,
    dataset: Mapping[str, Any] | DatasetConfig,
    params: Mapping[str, Any],
    folder: str | Path,
    project: str | Path | None = None,
    partitions: Mapping[str, Any] | PartitionsConfig | dg.PartitionsDefinition[Any] | None = None,
    schedule: str | Mapping[str, Any] | ScheduleConfig | None = None,
    watch: bool | None = None,
    output_schema: str | Mapping[str, Any] | type[BaseModel] | None = None,
    batching: Mapping[str, Any] | BatchingConfig | None = None,
    retry: Mapping[str, Any] | RetryConfig | None = None,
    retention: Mapping[str, Any] | RetentionConfig | None = None,
    sink: Mapping[str, Any] | SinkConfig | None = None,
    notify: Sequence[Mapping[str, Any] | NotifyConfig] | None = None,
    max_failed: float | None = None,
    max_invalid: float | None = None,
    betas: Sequence[str] | None = None,
    anthropic_version: str | None = None,
    allow_unknown_params: bool | None = None,
    render_request: RenderRequest | None = None,
    parse_message: ParseMessage | None = None,
    output_columns: pa.Schema | None = None,
) -> list[dg.AssetsDefinition]:
    """The assets `<name>/requests`, `<name>/batches` and `<name>/results`.

    The arguments are the fields of a pipeline file. Add `build_message_batch_sensor()` to the definitions
    as well: it brings the results back. `build_message_batch_jobs` and `build_message_batch_checks` make
    of the assets the jobs that cancel, retry and refresh, and the checks of the results;
    `build_message_batch_schedules` and `build_message_batch_watch_sensors` what `schedule` and `watch` say.

    Args:
        output_schema: a pydantic model may also be given itself, if it is to be had from its module.
        folder: where templates, prompts and schema files are looked up.
        project: what a relative dataset path is relative to; default the project `folder` lies in.
        partitions: the field of a pipeline file, or a definition of Dagster's; which rows belong to a partition of
            the latter the dataset's path, query or asset must say.
        render_request: as the method of `MessageBatchComponent`; called with (pipeline, row, params).
        parse_message: as the method of `MessageBatchComponent`; called with (message).
        output_columns: the columns that `parse_message` makes.

    Errors:
        ConfigError: any mistake that shows without reading the dataset, naming the field.
    """
    definition = partitions if isinstance(partitions, dg.PartitionsDefinition) else None
    given = {
        "name": name,
        "dataset": dataset,
        "partitions": partitions if definition is None else None,
        "schedule": schedule,
        "watch": watch,
        "params": dict(params),
        "output_schema": _schema(output_schema),
        "batching": batching,
        "retry": retry,
        "retention": retention,
        "sink": sink,
        "notify": list(notify) if notify is not None else None,
        "max_failed": max_failed,
        "max_invalid": max_invalid,
        "betas": list(betas) if betas is not None else None,
        "anthropic_version": anthropic_version,
        "allow_unknown_params": allow_unknown_params,
    }
    folder = Path(folder)
    pipeline = load_pipeline(
        {field: value for field, value in given.items() if value is not None},
        folder=folder,
        project=Path(project) if project is not None else find_project(folder),
        source=f"build_message_batch_assets(name={name!r})",
        partitions=GivenPartitions(definition) if definition is not None else None,
        hooks=Hooks(render_request, parse_message, output_columns),
    )
    return assets_of(pipeline)


def _schema(given: str | Mapping[str, Any] | type[BaseModel] | None) -> str | dict[str, Any] | None:
    """What a pipeline file would say: of a model where it is found."""
    if isinstance(given, type):
        return f"{given.__module__}:{given.__qualname__}"
    return dict(given) if isinstance(given, Mapping) else given


def assets_of(pipeline: Pipeline, spec_of: SpecOf = default_asset_spec) -> list[dg.AssetsDefinition]:
    """A pipeline's assets, presented as `spec_of` says, in a chain."""
    specs: dict[str, dg.AssetSpec] = {}
    upstream = upstream_key(pipeline)
    before = [upstream] if upstream is not None else []
    partitions = partitions_definition(pipeline)
    for stage in STAGES:
        spec = _wired(spec_of(pipeline, stage), pipeline, stage, before)
        if partitions is not None:
            spec = spec.replace_attributes(partitions_def=partitions)
        specs[stage] = spec
        before = [spec.key]

    requests = _requests(pipeline, specs["requests"], upstream, specs["results"].key)

    @dg.multi_asset(**_arguments(pipeline, specs["batches"]), pool=_POOL)
    def batches(context: dg.AssetExecutionContext) -> Iterator[Event]:
        yield from all_partitions(context, lambda key: materialize_batches(context, pipeline, key))

    @dg.multi_asset(**_arguments(pipeline, specs["results"]))
    def results(context: dg.AssetExecutionContext) -> Iterator[Event]:
        yield from materialize_results(context, pipeline)

    return [requests, batches, results]


def _requests(
    pipeline: Pipeline, spec: dg.AssetSpec, upstream: dg.AssetKey | None, results: dg.AssetKey
) -> dg.AssetsDefinition:
    if upstream is None:

        @dg.multi_asset(**_arguments(pipeline, spec))
        def requests(context: dg.AssetExecutionContext, config: RequestsConfig) -> Iterator[Event]:
            if config.only_says_cost:
                say_costs(context, pipeline, results, config)
                return
            yield from all_partitions(context, lambda key: materialize_requests(context, pipeline, key, config))

        return requests

    # Its IO manager loads the table.
    @dg.multi_asset(**_arguments(pipeline, spec), ins={"dataset": dg.AssetIn(key=upstream)})
    def requests_of_asset(
        context: dg.AssetExecutionContext, config: RequestsConfig, dataset: Any
    ) -> Iterator[Event]:
        partition = one_partition(context)
        if config.only_says_cost:
            say_costs(context, pipeline, results, config, dataset)
            return
        yield materialize_requests(context, pipeline, partition, config, dataset)

    return requests_of_asset


def _arguments(pipeline: Pipeline, spec: dg.AssetSpec) -> dict[str, Any]:
    """What the decorator of every stage is given.

    A backfill takes one run for all of its partitions, not one for each: nearly all of a run's seconds go into its
    start. But an IO manager gives the table of one partition.
    """
    together = spec.partitions_def is not None and pipeline.config.dataset.asset is None
    policy = dg.BackfillPolicy.single_run() if together else None
    return {"specs": [spec], "name": _op_name(spec), "backfill_policy": policy}


def _wired(spec: dg.AssetSpec, pipeline: Pipeline, stage: str, after: list[dg.AssetKey]) -> dg.AssetSpec:
    """The spec with what the sensor and the command line find it by, behind the stage before it."""
    return spec.replace_attributes(skippable=stage in ("requests", "results")).merge_attributes(
        deps=after, metadata={keys.PIPELINE: PipelineFile(pipeline)}, tags={keys.STAGE: stage}
    )


def _op_name(spec: dg.AssetSpec) -> str:
    return "__".join(spec.key.path)
