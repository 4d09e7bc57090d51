"""What pipelines name, and their code location as a whole does not have: resources, and assets as datasets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

import dagster as dg

from batch_assets.core.pipeline.config import PipelineConfig
from batch_assets.core.text import nearest
from batch_assets.dagster.broken_file import BrokenFile, broken_in
from batch_assets.dagster.pipelines import pipeline_of, upstream_key
from batch_assets.dagster.resource import MessageBatchResource


@dataclass(frozen=True)
class Lacks:
    """What is missing, and why nothing may name it.

    Attributes:
        resources: Map of the key of a resource to what is wrong.
        assets: Map of the key of an asset to what is wrong.
    """

    resources: Mapping[str, str] = field(default_factory=dict)
    assets: Mapping[dg.AssetKey, str] = field(default_factory=dict)

    def __or__(self, more: Lacks) -> Lacks:
        return Lacks({**more.resources, **self.resources}, {**more.assets, **self.assets})


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
    asset = pipeline.dataset.asset
    if asset is not None and (problem := _refused.get().assets.get(dg.AssetKey.from_user_string(asset))):
        return "dataset.asset", problem
    return None


def resource_problem(key: str | None) -> str | None:
    """Return why a pipeline may not name a resource; `None` if it may, or if not all resources are known yet."""
    return _refused.get().resources.get(key) if key is not None else None


def lacks_in(definitions: dg.Definitions) -> Lacks:
    """Return what pipelines of the definitions, or broken files, name and the definitions do not have."""
    assets = [asset for asset in definitions.assets or () if isinstance(asset, dg.AssetsDefinition)]
    specs = [spec for asset in assets for spec in asset.specs]
    broken = broken_in(specs)
    return Lacks(_resources(definitions, specs, broken), _assets(definitions, specs, broken))


def _resources(
    definitions: dg.Definitions, specs: list[dg.AssetSpec], broken: Mapping[str, BrokenFile]
) -> dict[str, str]:
    known = definitions.resources or {}
    pipelines = (pipeline_of(spec) for spec in specs)
    keys = {pipeline.config.resource_key for pipeline in pipelines if pipeline is not None}
    keys |= {file.resource_key for file in broken.values()}
    roots = ", ".join(sorted(name for name, value in known.items() if isinstance(value, MessageBatchResource)))
    return {
        key: f"the definitions have no resource {key!r}; those with a root: {roots or 'none'}"
        for key in keys
        if key is not None and key not in known
    }


def _assets(
    definitions: dg.Definitions, specs: list[dg.AssetSpec], broken: Mapping[str, BrokenFile]
) -> dict[dg.AssetKey, str]:
    """Return the assets that are datasets of pipelines and that Dagster would not resolve."""
    known = set[dg.AssetKey]()
    for asset in definitions.assets or ():
        if isinstance(asset, dg.AssetsDefinition):
            known |= set(asset.keys)
        elif isinstance(asset, dg.AssetSpec | dg.SourceAsset):
            known.add(asset.key)
        else:  # it has keys that only the definitions as a whole tell
            return {}
    # Dagster finds an asset by the last part of its key too, if it is the only one of the group.
    in_groups = Counter((spec.group_name, spec.key.path[-1]) for spec in specs)
    missing = set[dg.AssetKey]()
    for spec in specs:
        pipeline = pipeline_of(spec)
        key = upstream_key(pipeline) if pipeline is not None else None
        if key is None or key in known or key not in {dep.asset_key for dep in spec.deps}:
            continue
        if len(key.path) > 1 or in_groups[spec.group_name, key.path[0]] != 1:
            missing.add(key)
    files = ", ".join(file.source for file in broken.values() if file.defines_unknown_assets)
    return {key: _no_asset(key, known, files) for key in missing}


def _no_asset(key: dg.AssetKey, known: Iterable[dg.AssetKey], broken_files: str) -> str:
    name = key.to_user_string()
    names = sorted(other.to_user_string() for other in known)
    of_last_part = (other for other in names if other.split("/")[-1] == key.path[-1])
    if meant := next(of_last_part, None) or nearest(name, names):
        remedy = f"did you mean {meant}?"
    elif broken_files:
        remedy = f"correct the file that defines it; these are broken: {broken_files}"
    else:
        remedy = "give the key of an asset that the code location has, such as schema/table"
    return f"there is no asset {name}: {remedy}"
