"""The pipelines of the project, by name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from batch_assets.cli.definitions_error import loading
from batch_assets.core.errors import BatchAssetsError, FinalError
from batch_assets.core.quoting import printable

if TYPE_CHECKING:
    from batch_assets.dagster.broken_file import BrokenFile
    from batch_assets.dagster.pipelines import PipelineAssets


class UnknownPipelineError(BatchAssetsError):
    """The project has no pipeline of that name. Names those that exist.

    Args:
        name: The name.
        known: The names of the pipelines.
    """

    def __init__(self, name: str, known: Iterable[str]) -> None:
        pipelines = ", ".join(known) or "none"
        super().__init__(f"there is no pipeline {name!r} in this project; its pipelines: {pipelines}")


class BrokenPipelineError(FinalError):
    """The file of the pipeline is broken. Says what is wrong with it."""


def find_pipeline(name: str) -> PipelineAssets:
    """Return the project's pipeline of that name. Other files that are broken are named on standard error.

    Raises:
        BrokenPipelineError: When its file is wrong.
        UnknownPipelineError: When there is no such pipeline. The error names those that exist.
        DefinitionsError: When the project's definitions do not load.
    """
    pipelines, assets = _find(name)
    if assets is None:
        raise UnknownPipelineError(name, pipelines)
    return assets


def find_pipeline_or_none(name: str) -> PipelineAssets | None:
    """Return the project's pipeline of that name; None if the project does not have it.

    Raises:
        BrokenPipelineError: When its file is wrong.
        DefinitionsError: When the project's definitions do not load.
    """
    return _find(name)[1]


def _find(name: str) -> tuple[dict[str, PipelineAssets], PipelineAssets | None]:
    from batch_assets.cli.project import load_project

    with loading():
        project = load_project()
    if name in project.broken:
        raise BrokenPipelineError(str(project.broken[name]))
    _name_broken(project.broken.values())
    return project.pipelines, project.pipelines.get(name)


def _name_broken(files: Iterable[BrokenFile]) -> None:
    for file in files:
        click.echo(printable(f"{file.name} is left out, because its file is broken: {file}", lines=True), err=True)
