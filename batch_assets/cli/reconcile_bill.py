"""`batch-assets reconcile-bill` compares what was spent with the provider's bill."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click

from batch_assets.cli.resource_option import resource_option, settings_of
from batch_assets.core.errors import BatchAssetsError
from batch_assets.core.quoting import printable
from batch_assets.core.text import count, dollars

if TYPE_CHECKING:
    from batch_assets.core.spend.bill import BilledDay

_MOST_DAYS = 364  # the provider reports 365 days, of which one is read before them


@click.command("reconcile-bill")
@click.option(
    "--days",
    type=click.IntRange(1, _MOST_DAYS),
    default=7,
    show_default=True,
    metavar="N",
    help="Compare today and the days before it, in UTC.",
)
@click.option(
    "--workspace",
    "workspaces",
    multiple=True,
    metavar="ID",
    help="Compare with this workspace, such as wrkspc_01…; may be repeated. Default: the whole organization.",
)
@resource_option
def reconcile_bill(days: int, workspaces: tuple[str, ...], resource: str | None) -> None:
    """Compare what was spent with the provider's bill, day by day.

    It reads what the organization's batches cost from the provider's usage and cost API, and compares it with
    the table that `batch-assets spend` writes. The difference of each day is named. Live calls of `rescue` are
    left out. The API needs an admin key, from the variable ANTHROPIC_ADMIN_KEY. The key goes to the API only, and
    is stored nowhere.

    The provider reports costs some hours later, so the last day is often incomplete.

    \b
    Examples:
      batch-assets reconcile-bill
      batch-assets reconcile-bill --days 31 --workspace wrkspc_01…

    \b
    Exit code:
      0    the bill is what the table says, or differs by no more than what the table calls unknown
      1    there is another difference, or the bill cannot be read
    """
    from batch_assets.core.api.cost_report import CostReport
    from batch_assets.core.api.errors import ApiError
    from batch_assets.core.open_root import open_root
    from batch_assets.core.spend.bill import compare, live_text
    from batch_assets.core.spend.build import build_spend

    settings = settings_of(resource)
    report = CostReport(settings)
    try:
        with open_root(settings) as root:
            with root.ledger.read() as tx:
                last = datetime.fromtimestamp(tx.now, UTC).date()
            first = last - timedelta(days=days - 1)
            try:
                charges = list(report.charges(first - timedelta(days=1), last, workspaces))
            except ApiError as error:
                raise BatchAssetsError(f"{report.base_url} does not report its costs: {error}") from None
            spend = build_spend(root)
    finally:
        report.close()
    for problem in spend.problems:
        click.echo(problem, err=True)
    compared = compare(spend.rows, charges, first, last)
    for line in _lines(compared):
        click.echo(printable(line))
    if live := live_text(spend.rows, first, last):
        click.echo(live)
    if not all(day.agrees for day in compared):
        sys.exit(1)


def _lines(days: Sequence[BilledDay]) -> Iterator[str]:
    from batch_assets.core.prices.money import usd

    billed, spent = sum(day.billed.total() for day in days), sum(day.spent.total() for day in days)
    yield f"{'day':<10}  {'billed':>14}  {'spent':>14}"
    for day in days:
        if not day.billed and not day.spent and not day.unknown_requests:
            continue
        amounts = f"{dollars(usd(day.billed.total())):>14}  {dollars(usd(day.spent.total())):>14}"
        yield f"{day.day}  {amounts}  {day.why}".rstrip()
        if len(day.by_model) > 1 or (day.by_model and len({*day.billed, *day.spent}) > 1):
            for model, difference in day.by_model.items():
                way = "more" if difference > 0 else "less"
                yield f"            {model or 'no model'}: {dollars(usd(abs(difference)))} {way}"
    apart = sum(not day.agrees for day in days)
    total = f"{count(len(days), 'day')}: billed {dollars(usd(billed))}, spent {dollars(usd(spent))}"
    yield f"{total}; {count(apart, 'day differs', 'days differ')}" if apart else f"{total}; no day differs"
