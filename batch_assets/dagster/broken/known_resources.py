"""The resources that pipelines may name while a whole code location is loaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import dagster as dg

from batch_assets.dagster.broken_file import broken_in
from batch_assets.dagster.pipelines import pipeline_of
from batch_assets.dagster.resource import MessageBatchResource

_known: ContextVar[Mapping[str, Any] | None] = ContextVar("known resources", default=None)


@contextmanager
def only_resources_of(definitions: dg.Definitions) -> Iterator[None]:
    """Let a pipeline be broken if it names a resource that these definitions do not have."""
    token = _known.set(definitions.resources or {})
    try:
        yield
    finally:
        _known.reset(token)


def lacks_resources(definitions: dg.Definitions) -> bool:
    """Whether a pipeline of the definitions, or a broken file, names a resource that they do not have."""
    assets = [asset for asset in definitions.assets or () if isinstance(asset, dg.AssetsDefinition)]
    specs = [spec for asset in assets for spec in asset.specs]
    pipelines = (pipeline_of(spec) for spec in specs)
    keys = {pipeline.config.resource_key for pipeline in pipelines if pipeline is not None}
    keys |= {file.resource_key for file in broken_in(specs).values()}
    return not keys - {None} <= set(definitions.resources or {})


def resource_problem(key: str | None) -> str | None:
    """Return why a pipeline may not name a resource; None if it may, or if not all resources are known yet."""
    known = _known.get()
    if known is None or key is None or key in known:
        return None
    roots = ", ".join(sorted(name for name, value in known.items() if isinstance(value, MessageBatchResource)))
    return f"the definitions have no resource {key!r}; those with a root: {roots or 'none'}"
