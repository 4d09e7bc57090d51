"""`batch-assets spend` shows what was spent."""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import click

from batch_assets.cli.resource_option import resource_option, settings_of
from batch_assets.core.text import dollars

if TYPE_CHECKING:
    from batch_assets.core.spend.grouping import By, SpendGroup

_HEADER = ("requests", "rows", "spent", "per 1,000 rows", "in vain")


@click.command()
@click.option(
    "--by",
    type=click.Choice(["day", "model", "pipeline", "partition"]),
    help="Group by this column; default pipeline. With --csv, default: no groups.",
)
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV with all columns.")
@resource_option
def spend(by: str | None, as_csv: bool, resource: str | None) -> None:
    """Show what was spent, from the answers that are stored.

    It writes the table <root>/spend.parquet, as the asset message_batches/spend does, and prints it. Amounts are
    by the price list that was in force when the answers were stored.

    \b
    Examples:
      batch-assets spend
      batch-assets spend --by day
      batch-assets spend --csv > spend.csv
    """
    from batch_assets.core.open_root import open_root
    from batch_assets.core.spend.build import build_spend
    from batch_assets.core.spend.grouping import grouped
    from batch_assets.core.spend.spend_table import SpendTotal, as_rows

    with open_root(settings_of(resource, looks_only=True)) as root:
        report = build_spend(root)
    for problem in report.problems:
        click.echo(problem, err=True)
    if as_csv:
        lines = (
            as_rows(report.rows)
            if by is None
            else [_csv_line(group, by) for group in grouped(report.rows, cast("By", by))]
        )
        writer = csv.DictWriter(sys.stdout, lines[0] if lines else ["day"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
        return
    chosen = cast("By", by or "pipeline")
    click.echo(_as_text(chosen, grouped(report.rows, chosen)))
    click.echo(SpendTotal.of(report.rows).as_text)


def _csv_line(group: SpendGroup, by: str) -> dict[str, object]:
    from batch_assets.core.spend.amounts import AMOUNTS, COUNTED
    from batch_assets.core.spend.spend_table import in_dollars

    numbers: dict[str, object] = {by: group.name, "rows": group.rows}
    numbers |= {name: group.amounts[name] for name in COUNTED}
    numbers |= {name: in_dollars(group.amounts[name]) for name in (*AMOUNTS, "saved_reuse_usd", "invalid_usd")}
    return numbers | {"high_usd": None if group.high is None else in_dollars(group.high)}


def _as_text(by: str, groups: Sequence[SpendGroup]) -> str:
    from batch_assets.core.prices.money import usd

    lines = [(by, *_HEADER)]
    for group in groups:
        each = dollars(usd(group.cost) * 1000 / group.rows) if group.rows else ""
        numbers = f"{group.amounts['requests']:,}", f"{group.rows:,}"
        lines.append((group.name, *numbers, dollars(usd(group.cost)), each, dollars(usd(group.in_vain))))
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            [
                line[0].ljust(widths[0]),
                *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)),
            ]
        )
        for line in lines
    )
