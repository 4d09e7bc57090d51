"""The command: all checks in their order."""

from __future__ import annotations

import click

from batch_assets.cli.resource_option import resource_option


@click.command()
@resource_option
@click.option(
    "--write",
    is_flag=True,
    help="Write the shipped dagster.yaml into DAGSTER_HOME, or into the project's folder if that is not set. A "
    "file that is there stays as it is.",
)
def doctor(resource: str | None, write: bool) -> None:
    """Check the deployment: root, ledger, key, clock, Dagster's settings, daemon and sensor.

    Each check is one line: `ok`, or `wrong` with the line or the command to change it; `skipped` if something
    else has to be changed first. It makes one call to the API, which lists one batch. To test the root, it writes
    a file of 64 KiB there and removes it. Run it where the runs are executed, with their environment.

    \b
    Examples:
      batch-assets doctor
      batch-assets doctor --write
      batch-assets doctor --resource eu

    \b
    Exit code:
      0    everything is as it must be
      1    something is wrong
    """
    from batch_assets.cli.doctor.finding import Mark
    from batch_assets.cli.doctor.findings import findings

    is_wrong = False
    for finding in findings(resource, write=write):
        click.echo(str(finding))
        is_wrong = is_wrong or finding.mark is Mark.WRONG
    if is_wrong:
        click.get_current_context().exit(1)
