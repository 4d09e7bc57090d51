"""The pipelines of the project, by name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from batch_assets.cli.definitions_error import loading
from batch_assets.core.errors import BatchAssetsError, FinalError
from batch_assets.core.quoting import printable
from batch_assets.core.text import listed, nearest

if TYPE_CHECKING:
    from batch_assets.dagster.broken_file import BrokenFile
    from batch_assets.dagster.pipelines import PipelineAssets


_NAMED = 10  # pipelines in an error


class UnknownPipelineError(BatchAssetsError):
    """The project has no pipeline of that name. Names some that exist, and the one that was probably meant.

    Args:
        name: The name.
        known: The names of the pipelines.
    """

    def __init__(self, name: str, known: Iterable[str]) -> None:
        names = list(known)
        meant = nearest(name, names)
        hint = f"did you mean {meant!r}? Its" if meant is not None else "its"
        pipelines = listed(names, _NAMED) or "none"
        super().__init__(f"there is no pipeline {name!r} in this project; {hint} pipelines: {pipelines}")


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
    name_broken(project.broken.values())
    return project.pipelines, project.pipelines.get(name)


def name_broken(files: Iterable[BrokenFile]) -> None:
    """Print which pipelines are missing because their files are broken, and what is wrong with these."""
    for file in files:
        click.echo(printable(f"{file.name} is left out, because its file is broken: {file}", lines=True), err=True)
