"""`batch-assets move`: pairs a root and a ledger after one of them was moved, restored or replaced."""

from __future__ import annotations

import sys

import click

from batch_assets.cli.resource_option import resource_option, settings_of


@click.command()
@click.option("--yes", is_flag=True, help="Pair them without confirmation.")
@resource_option
def move(yes: bool, resource: str | None) -> None:
    """Pair the root and the ledger that are set, whatever they belonged to before.

    A root and its ledger know each other, and any other pair is refused, because everything would be sent and
    paid for again. Use this command if the ledger was lost and gets a new location, if the root or the ledger was
    restored from a backup, or if files are gone for good. It first shows what it would change. A new ledger is
    filled from the submissions under the root.

    A root that was copied keeps its identity. Do not send from both: in one workspace, each may take batches of
    the other for its own.

    It moves no file. If only the path or the URL of the root or the ledger has changed, nothing has to be done.

    \b
    Examples:
      export BATCH_ASSETS_LEDGER=postgresql+psycopg2://user@host/name
      batch-assets move

    \b
    Exit code:
      0    they are a pair
      1    you did not agree, or one of them is damaged; the reason is on standard error
    """
    from batch_assets.cli.confirm import NotConfirmedError
    from batch_assets.core.recovery.move import move, plan_move

    settings = settings_of(resource)
    plan = plan_move(settings)
    for line in plan.lines:
        click.echo(line)
    if plan.is_done:
        click.echo("They are a pair already: nothing was changed.")
        return
    for warning in plan.warnings:
        click.echo(f"warning: {warning}", err=True)
    if not yes:
        if not sys.stdin.isatty():
            raise NotConfirmedError("nothing was changed: there is no terminal to ask on. Pass --yes to pair them")
        if not click.confirm("Pair them?"):
            raise NotConfirmedError("nothing was changed")
    move(settings)
    click.echo(
        "They are a pair now. The ledger and the root that they belonged to before are refused from now on."
    )
