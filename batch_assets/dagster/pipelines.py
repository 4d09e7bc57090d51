"""From Dagster definitions back to pipelines: which assets belong to which pipeline."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import dagster as dg

from batch_assets.core.errors import ConfigError
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.dagster import keys

STAGES = ("requests", "batches", "results")


@dataclass(frozen=True)
class PipelineFile:
    """A pipeline as metadata of its assets: Dagster takes it for the path of its file, and shows that.

    Attributes:
        pipeline: as the core runs it. It stays in the process that loaded the definitions.
    """

    pipeline: Pipeline

    def __fspath__(self) -> str:
        return self.pipeline.source


def pipeline_of(spec: dg.AssetSpec) -> Pipeline | None:
    """The pipeline that an asset belongs to; None for an asset of another kind."""
    file = spec.metadata.get(keys.PIPELINE)
    return file.pipeline if isinstance(file, PipelineFile) else None


@dataclass(frozen=True)
class PipelineAssets:
    """A pipeline and the keys of its assets, whatever a subclass has named them.

    Attributes:
        pipeline: as the core runs it.
        stages: stage to asset key.
        partitions: of the assets, wherever they were declared.
    """

    pipeline: Pipeline
    stages: dict[str, dg.AssetKey]
    partitions: dg.PartitionsDefinition[Any] | None = None


def pipelines_in(specs: Iterable[dg.AssetSpec]) -> dict[str, PipelineAssets]:
    """Every pipeline among asset specs, by name: from YAML and from Python alike."""
    found: dict[str, PipelineAssets] = {}
    for spec in specs:
        pipeline, stage = pipeline_of(spec), spec.tags.get(keys.STAGE)
        if pipeline is not None and stage in STAGES:
            new = PipelineAssets(pipeline, {}, spec.partitions_def)
            found.setdefault(pipeline.name, new).stages[stage] = spec.key
    return found


def upstream_key(pipeline: Pipeline) -> dg.AssetKey | None:
    """The asset whose table is the dataset, None for a dataset that is none."""
    asset = pipeline.config.dataset.asset
    return dg.AssetKey.from_user_string(asset) if asset is not None else None


def with_unique_names(definitions: dg.Definitions) -> dg.Definitions:
    """The definitions as they are, if no two of their pipelines share a name: it is where their data lies.

    Errors:
        ConfigError: naming both files. Dagster itself would name the asset keys, or notice nothing.
    """
    found: dict[str, Pipeline] = {}
    for pipeline in _pipelines_of(definitions):
        other = found.setdefault(pipeline.name, pipeline)
        if other is not pipeline:
            raise ConfigError(pipeline.source, "name", f"{pipeline.name!r} is taken by {other.source}")
    return definitions


def _pipelines_of(definitions: dg.Definitions) -> Iterator[Pipeline]:
    """Of every asset, before Dagster puts them together."""
    for asset in definitions.assets or ():
        for spec in asset.specs if isinstance(asset, dg.AssetsDefinition) else ():
            if (pipeline := pipeline_of(spec)) is not None:
                yield pipeline
