"""The pipelines of the project, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batch_assets.cli.definitions_error import loading
from batch_assets.core.errors import BatchAssetsError

if TYPE_CHECKING:
    from batch_assets.dagster.pipelines import PipelineAssets


class UnknownPipelineError(BatchAssetsError):
    """The project has no pipeline of that name."""


def find_pipeline(name: str) -> PipelineAssets:
    """Return the project's pipeline of that name.

    Raises:
        UnknownPipelineError: When there is no such pipeline. The error names those that exist.
        DefinitionsError: When one of the project's files is wrong.
    """
    from batch_assets.cli.project import load_pipeline_assets

    with loading():
        pipelines = load_pipeline_assets()
    if name not in pipelines:
        names = ", ".join(sorted(pipelines)) or "none"
        raise UnknownPipelineError(f"there is no pipeline {name!r} in this project; its pipelines: {names}")
    return pipelines[name]
