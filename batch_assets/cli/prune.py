"""`batch-assets prune`: removes old answers from the response store, and says what asking again would cost."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from batch_assets.cli.resource_option import resource_option, settings_of
from batch_assets.core.text import about_dollars, count, size

if TYPE_CHECKING:
    from batch_assets.core.prune import PruneReport

_SECONDS = {"d": 86400.0, "w": 7 * 86400.0}


def _age(context: click.Context, parameter: click.Parameter, value: str) -> float:
    """Read an age in seconds: `90d` or `12w`."""
    matched = re.fullmatch(r"(\d{1,5})([dw])", value)
    if matched is None or not int(matched[1]):
        raise click.BadParameter("give a number of days or weeks, such as 90d or 12w")
    return int(matched[1]) * _SECONDS[matched[2]]


@click.command()
@click.argument("name")
@click.option(
    "--older-than",
    "seconds",
    metavar="AGE",
    required=True,
    callback=_age,
    help="Days or weeks since the batch ended, such as 90d or 12w.",
)
@click.option("--in-force", is_flag=True, help="Also the answers that a current table has.")
@click.option("--yes", is_flag=True, help="Prune them. Without it, the command only says what it would prune.")
@resource_option
def prune(name: str, seconds: float, in_force: bool, yes: bool, resource: str | None) -> None:
    """Prune old answers of the pipeline NAME that no current table has, such as those to earlier prompts.

    It removes the texts of answers from the response store, and keeps what they cost. It first says what asking
    again would cost: if a prompt is changed back, its answers are no longer there.

    With --in-force it also prunes answers that a table has. The table keeps them until its results are next
    written; then these rows are `canceled` with the reason `pruned`, and the next run asks for them again.

    \b
    Examples:
      batch-assets prune review_triage --older-than 90d
      batch-assets prune review_triage --older-than 90d --yes
    """
    from batch_assets.cli.ledger_view import no_ledger
    from batch_assets.core.open_root import open_root
    from batch_assets.core.prune import prune
    from batch_assets.core.recovery.rebuild import has_ledger

    settings = settings_of(resource)
    if not has_ledger(settings):
        raise click.ClickException(no_ledger(settings))
    with open_root(settings) as root:
        report = prune(root, name, seconds, in_force=in_force, is_dry=not yes)
    for line in _lines(report, is_dry=not yes):
        click.echo(line)


def _lines(report: PruneReport, *, is_dry: bool) -> Iterator[str]:
    """Yield what was or would be pruned, as sentences."""
    from batch_assets.core.prices.money import usd

    if not report.answers:
        yield "There is nothing to prune."
    else:
        verb = "Would prune" if is_dry else "Pruned"
        files = count(report.files, "response file")
        yield f"{verb} {count(report.answers, 'answer')} in {files}: about {size(report.bytes)}."
    if report.needed:
        needed = count(report.needed, "of them is", "of them are")
        yield f"{needed} in a current table: the next run asks for them again."
    if report.again:
        cost = about_dollars(usd(report.picodollars))
        unknown = f", and {report.unpriced:,} of unknown cost" if report.unpriced else ""
        again = count(report.again, "of them is", "of them are")
        yield f"{again} the only answer to a request. To ask for all of these again would cost {cost}{unknown}."
    if report.kept:
        one = "old answer stays: a current table has it. --in-force prunes it"
        several = "old answers stay: a current table has them. --in-force prunes them"
        yield f"{count(report.kept, one, several)} too."
    if is_dry and report.answers:
        yield "Nothing was changed. Repeat the command with --yes to prune them."
