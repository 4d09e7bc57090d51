"""What the command line takes from the definitions of its project."""

from __future__ import annotations

from typing import Any

import dagster as dg

from batch_assets.core.config import Pipeline
from batch_assets.core.errors import DatasetError
from batch_assets.dagster.pipelines import PipelineAssets, pipelines_in, upstream_key
from batch_assets.definitions import defs


def load_pipeline_assets() -> dict[str, PipelineAssets]:
    """Loads the project's definitions and returns its pipelines by name.

    Errors:
        ConfigError: a pipeline file is wrong.
    """
    return dict(sorted(pipelines_in(defs().resolve_all_asset_specs()).items()))


def load_dataset_table(pipeline: Pipeline, partition: str) -> Any:
    """The table of the asset that is a pipeline's dataset, as its IO manager loads it; None for other datasets.

    Errors:
        DatasetError: there is no Dagster instance to load it from, or it was never materialized.
    """
    key = upstream_key(pipeline)
    if key is None:
        return None
    where = f"{pipeline.source}: dataset.asset"
    try:
        instance = dg.DagsterInstance.get()
    except dg.DagsterError:
        raise DatasetError(
            f"{where}: set DAGSTER_HOME to the instance that holds {key.to_user_string()}, or run it in the UI"
        ) from None
    try:
        with instance:
            definitions = defs()
            upstream = definitions.resolve_asset_graph().get(key)
            return definitions.load_asset_value(
                key, instance=instance, partition_key=partition if upstream.is_partitioned else None
            )
    except Exception as error:  # whatever an IO manager raises
        why = f"{type(error).__name__}: {error}"
        raise DatasetError(
            f"{where}: the table of {key.to_user_string()} cannot be loaded ({why}). Is it materialized?"
        ) from error
