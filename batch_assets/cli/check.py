"""`batch-assets check` checks the project's pipeline files."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from batch_assets.cli.definitions_error import loading
from batch_assets.core.quoting import printable
from batch_assets.core.text import count

if TYPE_CHECKING:
    from batch_assets.cli.project import LoadedProject
    from batch_assets.dagster.broken_file import BrokenFile


@click.command()
@click.argument("names", metavar="[NAME]...", nargs=-1)
def check(names: tuple[str, ...]) -> None:
    """Check the pipeline files of the project, or those of the pipelines NAME.

    The command prints a line for each mistake: file, line, field, what is wrong and what to do. Dagster loads a
    broken file as a failing asset, and all other pipelines go on. This command is strict. It needs no key, reads
    no dataset, and sends nothing.

    \b
    Examples:
      batch-assets check
      batch-assets check review_triage

    \b
    Exit code:
      0    all files are right
      1    a file is broken
    """
    from batch_assets.cli.project import load_project

    with loading():
        project = load_project()
    broken = _chosen(project, names)
    for file in broken:
        for fault in file.faults:
            click.echo(printable(str(fault), lines=True))
    if broken:
        total = len(names) or len(project.pipelines) + len(project.broken)
        click.echo(f"{len(broken)} of {count(total, 'pipeline file')} broken", err=True)
        sys.exit(1)
    click.echo(f"{count(len(names) or len(project.pipelines), 'pipeline file is', 'pipeline files are')} right")


def _chosen(project: LoadedProject, names: tuple[str, ...]) -> list[BrokenFile]:
    """Return the broken files, or those of some pipelines.

    Raises:
        UnknownPipelineError: When there is no pipeline of one of the names.
    """
    from batch_assets.cli.find_pipeline import UnknownPipelineError

    for name in names:
        if name not in project.pipelines and name not in project.broken:
            known = ", ".join(sorted([*project.pipelines, *project.broken])) or "none"
            raise UnknownPipelineError(f"there is no pipeline {name!r} in this project; its pipelines: {known}")
    return [file for name, file in project.broken.items() if not names or name in names]
