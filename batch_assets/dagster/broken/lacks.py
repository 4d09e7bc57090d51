"""What pipelines name, and their code location as a whole does not have: resources, and assets as datasets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

import dagster as dg

from batch_assets.core.pipeline.config import PipelineConfig
from batch_assets.dagster.broken.missing_inputs import missing_inputs, specs_in
from batch_assets.dagster.broken_file import broken_in
from batch_assets.dagster.pipelines import pipeline_of
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
    datasets = {
        key: missing.problem
        for key, missing in missing_inputs(definitions).items()
        if any(pipeline_of(spec) is not None for spec in missing.needed_by)
    }
    return Lacks(_resources(definitions), datasets)


def _resources(definitions: dg.Definitions) -> dict[str, str]:
    known = definitions.resources or {}
    specs = specs_in(definitions)
    pipelines = (pipeline_of(spec) for spec in specs)
    keys = {pipeline.config.resource_key for pipeline in pipelines if pipeline is not None}
    keys |= {file.resource_key for file in broken_in(specs).values()}
    roots = ", ".join(sorted(name for name, value in known.items() if isinstance(value, MessageBatchResource)))
    return {
        key: f"the definitions have no resource {key!r}; those with a root: {roots or 'none'}"
        for key in keys
        if key is not None and key not in known
    }
