"""`batch-assets erase`: erases rows of a pipeline wherever this project has put them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from batch_assets.cli.find_pipeline import find_pipeline_or_none
from batch_assets.cli.resource_option import resource_option, settings_of
from batch_assets.core.text import count

if TYPE_CHECKING:
    from batch_assets.core.erase.report import EraseReport
    from batch_assets.dagster.pipelines import PipelineAssets

_OF_EVENTS = "Events in Dagster may show the rows, in sample rows, prompts and errors"


@click.command()
@click.argument("name")
@click.option("--key", "keys", metavar="KEY", multiple=True, required=True, help="The row key. May be repeated.")
@resource_option
def erase(name: str, keys: tuple[str, ...], resource: str | None) -> None:
    """Erase rows of the pipeline NAME, in all its partitions.

    The command removes each row from request files, indexes, rejected rows, answers, results, the ledger and the
    sink, and deletes the batches at the API that hold it. A salted hash of its key stays on record: as long as the
    dataset has the row, it is `rejected` with the reason `erased` and is never sent. At the end, the command
    searches the root and the ledger for the key.

    A row whose request is in flight is on record at once, and is erased by the run that stores its answer.
    Repeating the command does no harm, even after it was killed.

    \b
    Examples:
      batch-assets erase review_triage --key R-1042
      batch-assets erase review_triage --key R-1042 --key R-1043

    \b
    Exit code:
      0    nothing of the rows is left under the root, in the ledger, in the sink or at the API
      1    something is left; standard error says what, where, and until when
    """
    from batch_assets.cli.ledger_view import no_ledger
    from batch_assets.core.erase.run import erase
    from batch_assets.core.open_root import open_root
    from batch_assets.core.recovery.rebuild import has_ledger

    settings = settings_of(resource)
    if not has_ledger(settings):
        raise click.ClickException(no_ledger(settings))
    assets = find_pipeline_or_none(name)
    with open_root(settings) as root:
        report = erase(root, name, keys, assets.pipeline if assets is not None else None)
    for line in _lines(report):
        click.echo(line)
    for line in report.open_ends():
        click.echo(f"left: {line}", err=True)
    if report.waiting:
        click.echo("The run that stores the answers erases these rows too. They are not sent again.", err=True)
    for line in _events(name, assets):
        click.echo(line)
    sys.exit(0 if report.is_complete else 1)


def _lines(report: EraseReport) -> Iterator[str]:
    """Yield what was done and searched, as sentences."""
    for line in report.done():
        yield f"{line[0].upper()}{line[1:]}."
    if report.unsearched:
        short = ", ".join(key or "''" for key in report.unsearched)
        yield f"Too short to be searched for in texts: {short}. Row keys and custom_ids were compared."
    if report.elsewhere:
        yield "Files of other pipelines have the key: erase it there too:"
        yield from (f"  {where}" for where in report.elsewhere)


def _events(name: str, assets: PipelineAssets | None) -> Iterator[str]:
    """Yield the runs whose events may show a row, with the commands that delete them."""
    import dagster as dg

    from batch_assets.core.remedies import Stage
    from batch_assets.dagster.erased_runs import runs_of

    keys = list(assets.stages.values()) if assets is not None else [dg.AssetKey([name, stage]) for stage in Stage]
    try:
        instance = dg.DagsterInstance.get()
    except dg.DagsterError:
        shown = ", ".join(key.to_user_string() for key in keys)
        yield (
            f"{_OF_EVENTS}. Set DAGSTER_HOME and repeat this command to list the runs, or delete those of {shown} "
            "in the UI."
        )
        return
    with instance:
        runs = runs_of(instance, keys)
    if runs:
        yield f"{_OF_EVENTS}. These commands delete {count(len(runs), 'run')}; then materialize the assets again:"
        yield from (f"  dagster run delete --force {run_id}" for run_id in runs)
