"""What pipelines name, and their code location as a whole cannot give them: resources, and assets as datasets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

import dagster as dg

from batch_assets.core.pipeline.config import PipelineConfig
from batch_assets.dagster.broken.missing_inputs import missing_inputs
from batch_assets.dagster.broken_file import broken_in, broken_of
from batch_assets.dagster.pipelines import pipeline_of, specs_in, upstream_key
from batch_assets.dagster.resource import no_resource


@dataclass(frozen=True)
class Lacks:
    """What is missing or goes in a circle, and why nothing may name it.

    Attributes:
        resources: Map of the key of a resource to what is wrong.
        assets: Map of the key of an asset to what is wrong.
        circles: Map of the name of a pipeline, whose dataset is made from its own answers, to what is wrong.
        names: Map of the name of a pipeline, whose asset keys others have too, to what is wrong.
    """

    resources: Mapping[str, str] = field(default_factory=dict)
    assets: Mapping[dg.AssetKey, str] = field(default_factory=dict)
    circles: Mapping[str, str] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)

    def __or__(self, more: Lacks) -> Lacks:
        return Lacks(
            {**more.resources, **self.resources},
            {**more.assets, **self.assets},
            {**more.circles, **self.circles},
            {**more.names, **self.names},
        )


_NOTHING = Lacks()
_refused: ContextVar[Lacks] = ContextVar("what is missing", default=_NOTHING)


@contextmanager
def refusing(lacks: Lacks) -> Iterator[None]:
    """Let a pipeline be broken if it names what is missing."""
    token = _refused.set(lacks)
    try:
        yield
    finally:
        _refused.reset(token)


def lack_of(pipeline: PipelineConfig) -> tuple[str, str] | None:
    """Return the field of a pipeline that names what is missing, and the problem; `None` if there is none."""
    if problem := resource_problem(pipeline.resource_key):
        return "resource_key", problem
    refused = _refused.get()
    if problem := refused.names.get(pipeline.name):
        return "name", problem
    if (asset := pipeline.dataset.asset) is None:
        return None
    problem = refused.assets.get(dg.AssetKey.from_user_string(asset)) or refused.circles.get(pipeline.name)
    return ("dataset.asset", problem) if problem else None


def resource_problem(key: str | None) -> str | None:
    """Return why a pipeline may not name a resource; `None` if it may, or if not all resources are known yet."""
    return _refused.get().resources.get(key) if key is not None else None


def refused_names() -> set[str]:
    """Return the names that no pipeline or broken file may have, since assets of other files have their keys."""
    return set(_refused.get().names)


def lacks_in(definitions: dg.Definitions) -> Lacks:
    """Return what pipelines of the definitions, or broken files, name and the definitions do not have."""
    datasets = {
        key: missing.problem
        for key, missing in missing_inputs(definitions).items()
        if any(pipeline_of(spec) is not None for spec in missing.needed_by)
    }
    return Lacks(_resources(definitions), datasets, _circles(definitions), _names(definitions))


def _resources(definitions: dg.Definitions) -> dict[str, str]:
    known = definitions.resources or {}
    specs = specs_in(definitions)
    pipelines = (pipeline_of(spec) for spec in specs)
    keys = {pipeline.config.resource_key for pipeline in pipelines if pipeline is not None}
    keys |= {file.resource_key for file in broken_in(specs).values()}
    return {
        key: f"the definitions have {no_resource(key, known)}"
        for key in keys
        if key is not None and key not in known
    }


def _names(definitions: dg.Definitions) -> dict[str, str]:
    # One object may be there many times, such as the asset of what was spent.
    assets = {id(asset): asset for asset in definitions.assets or ()}.values()
    of_code = [asset for asset in assets if isinstance(asset, dg.AssetsDefinition)]
    others = [asset.key for asset in assets if isinstance(asset, dg.AssetSpec | dg.SourceAsset)]
    uses = Counter([*others, *(key for asset in of_code for key in asset.keys)])
    return {
        file.name: f"another asset has the key {spec.key.to_user_string()} too: give one of them another name"
        for spec in specs_in(definitions)
        if uses[spec.key] > 1 and (file := pipeline_of(spec) or broken_of(spec)) is not None
    }


def _circles(definitions: dg.Definitions) -> dict[str, str]:
    specs = specs_in(definitions)
    sources = {spec.key: [dep.asset_key for dep in spec.deps] for spec in specs}
    circles = {}
    for spec in specs:
        pipeline = pipeline_of(spec)
        dataset = upstream_key(pipeline) if pipeline is not None else None
        if pipeline is None or dataset is None or dataset not in sources[spec.key]:
            continue
        if steps := _steps(sources, dataset, spec.key):
            made_from = " from ".join(key.to_user_string() for key in steps)
            remedy = "name an asset that is not made from this pipeline's answers"
            circles[pipeline.name] = f"the assets form a circle, {made_from}: {remedy}"
    return circles


def _steps(
    sources: Mapping[dg.AssetKey, list[dg.AssetKey]], start: dg.AssetKey, end: dg.AssetKey
) -> list[dg.AssetKey]:
    """Return the assets from one to another that it is made from; empty if it is not."""
    made = {start: start}
    left = [start]
    while left:
        key = left.pop()
        if key == end:
            steps = [key]
            while key != start:
                key = made[key]
                steps.append(key)
            return steps[::-1]
        new = [source for source in sources.get(key, []) if source not in made]
        made |= dict.fromkeys(new, key)
        left += new
    return []
