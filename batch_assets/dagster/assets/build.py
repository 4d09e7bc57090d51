"""`build_message_batch_assets`: a pipeline as three Dagster assets."""

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from typing import Any, Unpack

import dagster as dg
import pyarrow as pa

from batch_assets.core.answers.parsed_answers import ParseMessage
from batch_assets.core.errors import SettingsError
from batch_assets.core.pipeline.hooks import NO_TOOLS, ToolFunctions
from batch_assets.core.pipeline.load import load_pipeline
from batch_assets.core.pipeline.pipeline import Hooks, Pipeline, RenderRequest
from batch_assets.core.remedies import Stage
from batch_assets.core.requests.confirmation import Confirmation
from batch_assets.core.requests.first_look import first_look
from batch_assets.core.settings import Settings, find_project, partitions_per_run_in
from batch_assets.dagster import keys
from batch_assets.dagster.assets.batches import materialize_batches, submit_in_spite_of_failures
from batch_assets.dagster.assets.op_settings import op_settings
from batch_assets.dagster.assets.plan import report_plan
from batch_assets.dagster.assets.requests import materialize_gathered, materialize_requests
from batch_assets.dagster.assets.requests_config import RequestsConfig
from batch_assets.dagster.assets.results import materialize_results
from batch_assets.dagster.assets.specs import default_asset_spec
from batch_assets.dagster.failures import explained
from batch_assets.dagster.loading import is_code_server, is_validation
from batch_assets.dagster.partitions import (
    Event,
    GivenPartitions,
    all_partitions,
    one_partition,
    partitions_definition,
    partitions_of,
)
from batch_assets.dagster.pipeline_fields import PipelineFields, given_fields
from batch_assets.dagster.pipelines import PipelineFile, upstream_key
from batch_assets.dagster.run_roots import root_for

_log = logging.getLogger("batch_assets")
SpecOf = Callable[[Pipeline, str], dg.AssetSpec]


def build_message_batch_assets(
    *,
    folder: str | Path,
    project: str | Path | None = None,
    render_request: RenderRequest | None = None,
    parse_message: ParseMessage | None = None,
    output_columns: pa.Schema | None = None,
    tool_functions: ToolFunctions = NO_TOOLS,
    **fields: Unpack[PipelineFields],
) -> list[dg.AssetsDefinition]:
    """Build the assets `<name>/requests`, `<name>/batches` and `<name>/results`.

    Also add `build_message_batch_sensor()` to the definitions: it brings the results back. From these assets,
    `build_message_batch_jobs` builds the jobs that cancel, retry and refresh, `build_message_batch_checks` builds
    the checks of the results, and `build_message_batch_schedules` and `build_message_batch_watch_sensors` build
    what the fields `schedule` and `watch` ask for.

    Args:
        folder: The folder of templates, prompts and schema files.
        project: The folder that relative dataset paths start from; by default the project that `folder` is in.
        render_request: As in `MessageBatchComponent`; called with (pipeline, row, params).
        parse_message: As in `MessageBatchComponent`; called with (message).
        output_columns: The columns that `parse_message` returns.
        tool_functions: As `MessageBatchComponent.tool_functions` returns them.
        **fields: The fields of a pipeline file; `name`, `dataset` and `params` are required. `output_schema` may
            be a pydantic model that can be imported from its module. `partitions` may be a Dagster partitions
            definition; then the dataset's path, query or asset determines which rows belong to a partition.

    Raises:
        ConfigError: When a field has a mistake that shows without reading the dataset. The error names the field.
    """
    values = given_fields(fields)
    partitions = None
    if isinstance(values.get("partitions"), dg.PartitionsDefinition):
        partitions = GivenPartitions(values.pop("partitions"))
    folder = Path(folder)
    pipeline = load_pipeline(
        values,
        folder=folder,
        project=Path(project) if project is not None else find_project(folder),
        source=f"build_message_batch_assets(name={values.get('name')!r})",
        partitions=partitions,
        hooks=Hooks(render_request, parse_message, output_columns, tool_functions),
    )
    return assets_of(pipeline)


def assets_of(pipeline: Pipeline, spec_of: SpecOf = default_asset_spec) -> list[dg.AssetsDefinition]:
    """Build a pipeline's assets, each of which depends on the one before it.

    Args:
        pipeline: The pipeline.
        spec_of: Returns the spec of a stage.
    """
    _warn_at_load(pipeline)
    specs: dict[Stage, dg.AssetSpec] = {}
    upstream = upstream_key(pipeline)
    deps: list[dg.AssetKey | dg.AssetDep] = [upstream] if upstream is not None else []
    partitions = partitions_definition(pipeline)
    for stage in Stage:
        spec = _wired(spec_of(pipeline, stage.value), pipeline, stage, deps)
        if partitions is not None:
            spec = spec.replace_attributes(partitions_def=partitions)
        specs[stage] = spec
        deps = [_results_dep(spec.key)] if partitions is not None and stage is Stage.BATCHES else [spec.key]

    requests = _requests(pipeline, specs, upstream)

    @dg.multi_asset(**_arguments(pipeline, Stage.BATCHES, specs[Stage.BATCHES]))
    def batches(context: dg.AssetExecutionContext) -> Iterator[Event]:
        yield from materialize_batches(context, pipeline)

    @dg.multi_asset(**_arguments(pipeline, Stage.RESULTS, specs[Stage.RESULTS]))
    def results(context: dg.AssetExecutionContext) -> Iterator[Event]:
        yield from materialize_results(context, pipeline)

    return [requests, batches, results]


def _requests(
    pipeline: Pipeline, specs: Mapping[Stage, dg.AssetSpec], upstream: dg.AssetKey | None
) -> dg.AssetsDefinition:
    spec, batches, results = specs[Stage.REQUESTS], specs[Stage.BATCHES].key, specs[Stage.RESULTS].key
    if upstream is None:

        @dg.multi_asset(**_arguments(pipeline, Stage.REQUESTS, spec))
        def requests(context: dg.AssetExecutionContext, config: RequestsConfig) -> Iterator[Event]:
            config.check_job(context.run.job_name, pipeline.name)
            if config.only_plans:
                report_plan(context, pipeline, results, config)
                return
            _mark_as_new(context)
            # One root for all partitions: what it keeps serves for all of them.
            confirmation = Confirmation(pipeline, is_approved=config.confirm)
            with explained(), root_for(context.run.run_id, pipeline, context.resources) as root:
                go_on = partial(submit_in_spite_of_failures, context, root, pipeline, batches)
                if pipeline.config.batching.across_partitions and len(partitions_of(context)) > 1:
                    yield from materialize_gathered(context, root, pipeline, config, confirmation, go_on)
                    return
                yield from all_partitions(
                    context,
                    lambda key: materialize_requests(context, root, pipeline, key, config, confirmation),
                    go_on,
                )

        return requests

    # The IO manager of the upstream asset loads the table.
    @dg.multi_asset(**_arguments(pipeline, Stage.REQUESTS, spec), ins={"dataset": dg.AssetIn(key=upstream)})
    def requests_of_asset(
        context: dg.AssetExecutionContext, config: RequestsConfig, dataset: Any
    ) -> Iterator[Event]:
        partition = one_partition(context)
        config.check_job(context.run.job_name, pipeline.name)
        if config.only_plans:
            report_plan(context, pipeline, results, config, dataset)
            return
        _mark_as_new(context)
        with explained(), root_for(context.run.run_id, pipeline, context.resources) as root:
            confirmation = Confirmation(pipeline, is_approved=config.confirm)
            yield materialize_requests(context, root, pipeline, partition, config, confirmation, dataset)

    return requests_of_asset


def _warn_at_load(pipeline: Pipeline) -> None:
    """Log what a first run would fail with. Runs do not repeat it, and our commands look closer themselves."""
    if not (is_code_server() or is_validation()):
        return
    try:
        settings = Settings.from_env(project=pipeline.project, needs_ledger=False)
    except SettingsError as error:  # whoever opens the root gets it
        _warn_once(str(error))
        return
    for warning in first_look(pipeline, settings.prices, datetime.now(UTC).date()):
        _log.warning(warning)


@cache
def _warn_once(text: str) -> None:
    """Log what is wrong for all pipelines. A process may load the definitions many times."""
    _log.warning(text)


def _mark_as_new(context: dg.AssetExecutionContext) -> None:
    """Give this materialization a new data version.

    Otherwise Dagster, which sees the same code version, would take it for the old data, although rows may be
    new: `batches` would look up to date.
    """
    context.set_data_version(context.asset_key, dg.DataVersion(context.run.run_id))


def _arguments(pipeline: Pipeline, stage: Stage, spec: dg.AssetSpec) -> dict[str, Any]:
    """Return the arguments of the decorator of a stage.

    A run of a backfill has many partitions, because a run spends nearly all of its time starting. Machines share
    its runs. It is a run for each partition if the dataset is an asset: an IO manager loads the table of one
    partition.
    """
    together = spec.partitions_def is not None and pipeline.config.dataset.asset is None
    policy = dg.BackfillPolicy.multi_run(_partitions_per_run()) if together else None
    return {"specs": [spec], "name": _op_name(spec), "backfill_policy": policy} | op_settings(pipeline, stage)


def _partitions_per_run() -> int:
    """Return the largest number of partitions in one run; the default one if the variable cannot be read."""
    try:
        return partitions_per_run_in(os.environ)
    except SettingsError:  # no file is wrong, and whoever opens the root gets it
        return Settings.partitions_per_run


def _results_dep(batches: dg.AssetKey) -> dg.AssetDep:
    """Return the dependency of `results` on `batches`, by which no partition follows from another.

    Dagster derives the partitions of a backfill from those of its first assets. So a backfill of all three assets
    has those of `requests` and `batches`, and ends when all are sent. Otherwise Dagster would count the partitions
    of `results` as failed, whose answers are still at the API when the runs of the backfill end. The sensor
    materializes them.
    """
    return dg.AssetDep(batches, partition_mapping=dg.SpecificPartitionsPartitionMapping([]))


def _wired(
    spec: dg.AssetSpec, pipeline: Pipeline, stage: Stage, deps: list[dg.AssetKey | dg.AssetDep]
) -> dg.AssetSpec:
    """Add the dependencies, and the metadata and tag by which the sensor and the command line find the asset."""
    return spec.replace_attributes(skippable=stage is not Stage.BATCHES).merge_attributes(
        deps=deps, metadata={keys.PIPELINE: PipelineFile(pipeline)}, tags={keys.STAGE: stage.value}
    )


def _op_name(spec: dg.AssetSpec) -> str:
    return "__".join(spec.key.path)
