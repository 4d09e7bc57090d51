"""Find the pipelines of Dagster definitions, and the assets that belong to each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import dagster as dg

from batch_assets.core.errors import ConfigError, SettingsError
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.remedies import Stage
from batch_assets.dagster import keys


@dataclass(frozen=True)
class PipelineFile:
    """A pipeline as metadata of its assets. Dagster treats it as a path, and shows the path of the pipeline file.

    Attributes:
        pipeline: The pipeline as the core runs it. It never leaves the process that loaded the definitions.
    """

    pipeline: Pipeline

    def __fspath__(self) -> str:
        return self.pipeline.source


def pipeline_of(spec: dg.AssetSpec) -> Pipeline | None:
    """Return the pipeline that an asset belongs to; None for other assets."""
    file = spec.metadata.get(keys.PIPELINE)
    return file.pipeline if isinstance(file, PipelineFile) else None


@dataclass(frozen=True)
class PipelineAssets:
    """A pipeline and the keys of its assets, which a subclass may have changed.

    Attributes:
        pipeline: The pipeline as the core runs it.
        stages: Map of stage to asset key.
        partitions: The partitions definition of the assets.
    """

    pipeline: Pipeline
    stages: dict[Stage, dg.AssetKey]
    partitions: dg.PartitionsDefinition[Any] | None = None


def pipelines_in(specs: Iterable[dg.AssetSpec]) -> dict[str, PipelineAssets]:
    """Return every pipeline among asset specs, by name, no matter whether YAML or Python declares it."""
    pipelines: dict[str, PipelineAssets] = {}
    for spec in specs:
        pipeline, stage = pipeline_of(spec), spec.tags.get(keys.STAGE)
        if pipeline is not None and stage in set(Stage):
            new = PipelineAssets(pipeline, {}, spec.partitions_def)
            pipelines.setdefault(pipeline.name, new).stages[Stage(stage)] = spec.key
    return pipelines


def given_assets(assets: Iterable[dg.AssetsDefinition]) -> list[dg.AssetsDefinition]:
    """Return the assets that a user gives to a function of ours, after checking what they are.

    Raises:
        SettingsError: When they are something else, such as one asset in place of a list.
    """
    if not isinstance(assets, Iterable):
        raise _no_list(assets)
    given = list(assets)
    for asset in given:
        if not isinstance(asset, dg.AssetsDefinition):
            raise _no_list(asset)
    return given


def _no_list(given: object) -> SettingsError:
    kind = type(given).__name__
    return SettingsError(f"give a list of assets, as build_message_batch_assets returns it, not {kind}")


def pipelines_of_assets(assets: Iterable[dg.AssetsDefinition]) -> dict[str, PipelineAssets]:
    """Return every pipeline among assets that a user gives, by name. See `given_assets`."""
    return pipelines_in(spec for asset in given_assets(assets) for spec in asset.specs)


def upstream_key(pipeline: Pipeline) -> dg.AssetKey | None:
    """Return the key of the asset that is the dataset; None if the dataset is not an asset."""
    asset = pipeline.config.dataset.asset
    return dg.AssetKey.from_user_string(asset) if asset is not None else None


def with_unique_names(definitions: dg.Definitions) -> dg.Definitions:
    """Return the definitions after checking that no two pipelines share a name, which is also their folder's name.

    Raises:
        ConfigError: When two pipelines share a name. The error names both files; Dagster would name the asset keys
            or notice nothing.
    """
    by_name: dict[str, Pipeline] = {}
    for pipeline in map(pipeline_of, specs_in(definitions)):
        if pipeline is None:
            continue
        other = by_name.setdefault(pipeline.name, pipeline)
        if other is not pipeline:
            raise ConfigError(pipeline.source, "name", f"{pipeline.name!r} is taken by {other.source}")
    return definitions


def made_by_code(definitions: dg.Definitions) -> list[dg.AssetsDefinition]:
    """Return the assets that code of the definitions makes."""
    return [asset for asset in definitions.assets or () if isinstance(asset, dg.AssetsDefinition)]


def specs_in(definitions: dg.Definitions) -> list[dg.AssetSpec]:
    """Return the specs of the assets that code of the definitions makes, before Dagster resolves them."""
    return [spec for asset in made_by_code(definitions) for spec in asset.specs]
