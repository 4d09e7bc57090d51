"""`batch-assets check` checks the project's pipeline files, and that pipelines fit their datasets."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from batch_assets.cli.definitions_error import loading
from batch_assets.cli.find_pipeline import UnknownPipelineError, name_broken
from batch_assets.cli.resource_option import settings_of_pipeline
from batch_assets.core.errors import BatchAssetsError
from batch_assets.core.quoting import printable
from batch_assets.core.text import count

if TYPE_CHECKING:
    from batch_assets.cli.project import LoadedProject
    from batch_assets.dagster.broken_file import BrokenFile
    from batch_assets.dagster.pipelines import PipelineAssets


@click.command()
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option(
    "--partition", metavar="KEY", default="", help="The partition to read, of pipelines with partitions."
)
def check(names: tuple[str, ...], partition: str) -> None:
    """Check the pipeline files of the project, or the pipelines NAME with their datasets.

    The project is that of the current folder, and the last line names it. The command prints a line for each
    mistake: file, line, field, what is wrong and what to do. Dagster loads a broken file as a failing asset, and
    all other pipelines go on. This command is strict. It needs no key and sends nothing.

    With a NAME it also opens the dataset, looks for the columns that the pipeline needs, and renders rows until
    one has a request. Of a pipeline with partitions it does so with --partition only. Without a NAME it reads no
    dataset.

    \b
    Examples:
      batch-assets check
      batch-assets check review_triage
      batch-assets check review_triage --partition 2026-11-20

    \b
    Exit code:
      0    all is right; there may be warnings
      1    a file is broken, or does not fit its dataset
    """
    from batch_assets.cli.project import load_project

    if partition and not names:
        raise click.UsageError("--partition needs a NAME: without one, no dataset is read")
    with loading():
        project = load_project()
    broken = _chosen(project, names)
    for file in broken:
        for fault in file.faults:
            click.echo(printable(str(fault), lines=True))
    total = len(names) or len(project.pipelines) + len(project.broken)
    if broken:
        click.echo(f"{project.folder}: {len(broken)} of {count(total, 'pipeline file')} broken", err=True)
    misfits = [
        name for name in names if name in project.pipelines and not _fits(project.pipelines[name], partition)
    ]
    if misfits:
        problem = "does not fit its dataset" if len(misfits) == 1 else "do not fit their datasets"
        click.echo(f"{len(misfits)} of {count(total, 'pipeline')} {problem}", err=True)
    if broken or misfits:
        sys.exit(1)
    right = count(len(names) or len(project.pipelines), "pipeline file is", "pipeline files are")
    click.echo(f"{project.folder}: {right} right")


def _fits(assets: PipelineAssets, partition: str) -> bool:
    """Try a pipeline with its dataset, and print what is wrong. Return whether nothing is."""
    from batch_assets.cli.project import load_dataset_table
    from batch_assets.core.pipeline.faults import with_line
    from batch_assets.core.requests.trial import try_pipeline
    from batch_assets.dagster.partitions import check_partition

    pipeline = assets.pipeline
    its_file = pipeline.source, pipeline.project, pipeline.name
    if assets.partitions is not None and not partition:
        click.echo(f"{pipeline.source}: its dataset was not read: name a partition with --partition", err=True)
        return True
    try:
        check_partition(pipeline.name, assets.partitions, partition)
        settings = settings_of_pipeline(pipeline)
        table = load_dataset_table(pipeline, partition)
        trial = try_pipeline(settings, pipeline, partition, table, datetime.now(UTC).date())
    except BatchAssetsError as error:
        click.echo(printable(with_line(str(error), *its_file), lines=True))
        return False
    for fault in trial.faults:
        click.echo(printable(with_line(fault, *its_file)))
    for warning in trial.warnings:
        click.echo(printable(f"warning: {with_line(warning, *its_file)}"), err=True)
    return not trial.faults


def _chosen(project: LoadedProject, names: tuple[str, ...]) -> list[BrokenFile]:
    """Return the broken files, or those of some pipelines.

    Raises:
        UnknownPipelineError: When there is no pipeline of one of the names.
    """
    for name in names:
        if name not in project.pipelines and name not in project.broken:
            # It may be the name of one of them, which is not known if that is what is broken.
            name_broken(project.broken.values())
            raise UnknownPipelineError(name, sorted([*project.pipelines, *project.broken]))
    return [file for name, file in project.broken.items() if not names or name in names]
