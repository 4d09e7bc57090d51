"""`build_message_batch_assets`: a pipeline as three Dagster assets."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg

from batch_assets.core.config import Pipeline, load_pipeline
from batch_assets.core.config_blocks import BatchingConfig, RetentionConfig, RetryConfig, SinkConfig
from batch_assets.core.datasets.dataset_config import DatasetConfig
from batch_assets.core.settings import find_project
from batch_assets.dagster import keys
from batch_assets.dagster.batches_stage import materialize_batches
from batch_assets.dagster.pipelines import STAGES, PipelineFile, upstream_key
from batch_assets.dagster.requests_stage import materialize_requests
from batch_assets.dagster.results_stage import materialize_results
from batch_assets.dagster.specs import default_asset_spec

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
    output_schema: str | Mapping[str, Any] | None = None,
    batching: Mapping[str, Any] | BatchingConfig | None = None,
    retry: Mapping[str, Any] | RetryConfig | None = None,
    retention: Mapping[str, Any] | RetentionConfig | None = None,
    sink: Mapping[str, Any] | SinkConfig | None = None,
    max_failed: float | None = None,
    max_invalid: float | None = None,
    betas: Sequence[str] | None = None,
    anthropic_version: str | None = None,
    allow_unknown_params: bool | None = None,
) -> list[dg.AssetsDefinition]:
    """The assets `<name>/requests`, `<name>/batches` and `<name>/results`.

    The arguments are the fields of a pipeline file. Add `build_message_batch_sensor()` to the definitions
    as well: it brings the results back. `build_message_batch_cancel_jobs` and `build_message_batch_checks` make
    of the assets a job that cancels, and the checks of the results.

    Args:
        folder: where templates, prompts and schema files are looked up.
        project: what a relative dataset path is relative to; default the project `folder` lies in.

    Errors:
        ConfigError: any mistake that shows without reading the dataset, naming the field.
    """
    given = {
        "name": name,
        "dataset": dataset,
        "params": dict(params),
        "output_schema": dict(output_schema) if isinstance(output_schema, Mapping) else output_schema,
        "batching": batching,
        "retry": retry,
        "retention": retention,
        "sink": sink,
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
    )
    return assets_of(pipeline)


def assets_of(pipeline: Pipeline, spec_of: SpecOf = default_asset_spec) -> list[dg.AssetsDefinition]:
    """A pipeline's assets, presented as `spec_of` says, in a chain."""
    specs: dict[str, dg.AssetSpec] = {}
    upstream = upstream_key(pipeline)
    before = [upstream] if upstream is not None else []
    for stage in STAGES:
        specs[stage] = _wired(spec_of(pipeline, stage), pipeline, stage, before)
        before = [specs[stage].key]

    requests = _requests(pipeline, specs["requests"], upstream)

    @dg.multi_asset(specs=[specs["batches"]], name=_op_name(specs["batches"]), pool=_POOL)
    def batches(context: dg.AssetExecutionContext) -> dg.MaterializeResult[Any]:
        return materialize_batches(context, pipeline)

    @dg.multi_asset(specs=[specs["results"]], name=_op_name(specs["results"]))
    def results(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult[Any]]:
        yield from materialize_results(context, pipeline)

    return [requests, batches, results]


def _requests(pipeline: Pipeline, spec: dg.AssetSpec, upstream: dg.AssetKey | None) -> dg.AssetsDefinition:
    if upstream is None:

        @dg.multi_asset(specs=[spec], name=_op_name(spec))
        def requests(context: dg.AssetExecutionContext) -> dg.MaterializeResult[Any]:
            return materialize_requests(context, pipeline)

        return requests

    # Its IO manager loads the table.
    @dg.multi_asset(specs=[spec], name=_op_name(spec), ins={"dataset": dg.AssetIn(key=upstream)})
    def requests_of_asset(context: dg.AssetExecutionContext, dataset: Any) -> dg.MaterializeResult[Any]:
        return materialize_requests(context, pipeline, dataset)

    return requests_of_asset


def _wired(spec: dg.AssetSpec, pipeline: Pipeline, stage: str, after: list[dg.AssetKey]) -> dg.AssetSpec:
    """The spec with what the sensor and the command line find it by, behind the stage before it."""
    return spec.replace_attributes(skippable=stage == "results").merge_attributes(
        deps=after, metadata={keys.PIPELINE: PipelineFile(pipeline)}, tags={keys.STAGE: stage}
    )


def _op_name(spec: dg.AssetSpec) -> str:
    return "__".join(spec.key.path)
