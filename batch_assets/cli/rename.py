"""`batch-assets rename`: gives what a pipeline has in the root another name."""

from __future__ import annotations

import click

from batch_assets.cli.resource_option import resource_option, settings_of
from batch_assets.core.text import count


@click.command()
@click.argument("old")
@click.argument("new")
@resource_option
def rename(old: str, new: str, resource: str | None) -> None:
    """Renames the pipeline OLD to NEW in the root and the ledger.

    Use it after you have changed the name of a pipeline in its YAML file. Its answers, request files and open
    batches go on under the new name, and nothing is sent again. It may be repeated, also after it was killed.

    \b
    Example:
      batch-assets rename review_triage review_routing

    \b
    Exit code:
      0    it is renamed
      1    nothing is recorded under OLD, NEW has submissions of its own, or a run is working on one of them
    """
    from batch_assets.cli.ledger_view import no_ledger
    from batch_assets.core.open_root import open_root
    from batch_assets.core.recovery.rebuild import has_ledger
    from batch_assets.core.rename import rename

    settings = settings_of(resource)
    if not has_ledger(settings):
        raise click.ClickException(no_ledger(settings))
    with open_root(settings) as root:
        renamed = rename(root, old, new)
    click.echo(f"{count(renamed, 'submission')} of {old} and all files are now those of {new}.")
