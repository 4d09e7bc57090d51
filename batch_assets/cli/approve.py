"""`batch-assets approve` lets the held request files of a pipeline go."""

from __future__ import annotations

import click

from batch_assets.cli import text
from batch_assets.cli.resource_option import resource_option, settings_of
from batch_assets.core.quoting import printable


@click.command()
@click.argument("name")
@click.option("--partition", metavar="KEY", help="Approve only this partition.")
@resource_option
def approve(name: str, partition: str | None, resource: str | None) -> None:
    """Let the request files of the pipeline NAME go that are held until a user approves them.

    The sensor, or the next `batch-assets run`, sends them.

    \b
    Examples:
      batch-assets approve review_triage
      batch-assets approve review_triage --partition 2026-11-20

    \b
    Exit code:
      0    nothing is left that waits for approval
      1    there is no such pipeline or partition, or no API is set; the reason is on standard error
    """
    from batch_assets.cli.ledger_view import no_ledger
    from batch_assets.core.batches.approve import approve as approve_files
    from batch_assets.core.batches.approve import describe_approved
    from batch_assets.core.batches.targets import UnknownTargetError
    from batch_assets.core.open_root import open_root
    from batch_assets.core.recovery.rebuild import has_ledger

    settings = settings_of(resource)
    if not has_ledger(settings):
        raise click.ClickException(no_ledger(settings))
    with open_root(settings) as root:
        try:
            approved = approve_files(root, name, partition)
        except UnknownTargetError as error:
            raise UnknownTargetError(f"{error}{text.resource_hint(resource)}") from None
    if not approved:
        click.echo("Nothing waits for approval.")
        return
    for line in describe_approved(approved):
        click.echo(printable(line))
    click.echo("The sensor or the next run sends them.")
