"""`batch-assets spend` shows what was spent."""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, cast

import click

from batch_assets.cli.definitions_error import DefinitionsError, loading
from batch_assets.cli.resource_option import resource_option, settings_of
from batch_assets.core.quoting import printable
from batch_assets.core.text import dollars

if TYPE_CHECKING:
    from batch_assets.core.root import Root
    from batch_assets.core.spend.build import SpendReport
    from batch_assets.core.spend.grouping import By, SpendGroup
    from batch_assets.core.spend.spend_table import Labels, SpendRow

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

    It writes the table <root>/spend.parquet, as the asset message_batches/spend does, and prints it. A root that
    may only be read is left as it is. Amounts are by the price list that was in force when the answers were
    stored. With --csv alone, it takes cost centers and tags from the project's definitions; otherwise those of the
    last table stay.

    \b
    Examples:
      batch-assets spend
      batch-assets spend --by day
      batch-assets spend --csv > spend.csv
    """
    from batch_assets.core.ledger.endpoint import is_emulated
    from batch_assets.core.open_root import open_root
    from batch_assets.core.spend.grouping import grouped
    from batch_assets.core.spend.spend_table import SpendTotal

    settings = settings_of(resource, looks_only=True)
    labels = _labels() if as_csv and by is None else {}
    with open_root(settings) as root:
        report = _report(root, labels)
        with root.ledger.read() as tx:
            is_made_up = is_emulated(tx)
    for problem in report.problems:
        click.echo(problem, err=True)
    if as_csv:
        _write_csv(report.rows, cast("By | None", by))
        return
    chosen = cast("By", by or "pipeline")
    click.echo(_as_text(chosen, grouped(report.rows, chosen)))
    click.echo(SpendTotal.of(report.rows).as_text)
    if is_made_up:
        click.echo("These amounts are by the price list; the emulator bills nothing.")


def _report(root: Root, labels: dict[str, Labels]) -> SpendReport:
    from batch_assets.core.open_root import may_only_be_read
    from batch_assets.core.spend.build import SpendReader, build_spend

    if not may_only_be_read(root.settings):
        return build_spend(root, labels)
    click.echo(
        "the root may only be read, so its table spend.parquet stays as it is, with its cost centers and tags",
        err=True,
    )
    return SpendReader(root).read()


def _labels() -> dict[str, Labels]:
    """Return cost center and tags of the project's pipelines. What cannot be loaded is named on standard error."""
    from batch_assets.cli.project import load_definitions
    from batch_assets.dagster.assets.spend import labels_of
    from batch_assets.dagster.broken_file import broken_in

    try:
        with loading():
            specs = list(load_definitions().resolve_all_asset_specs())
    except DefinitionsError as error:
        click.echo(printable(f"cost_center and tags are those of the last table: {error}", lines=True), err=True)
        return {}
    for file in broken_in(specs).values():
        consequence = "has the cost_center and tags of the last table, because its file is broken"
        click.echo(printable(f"{file.name} {consequence}: {file}", lines=True), err=True)
    return labels_of(specs)


def _write_csv(rows: list[SpendRow], by: By | None) -> None:
    from batch_assets.core.spend.grouping import grouped
    from batch_assets.core.spend.spend_table import as_rows, sums_as_rows

    if by is None:
        lines = as_rows(rows)
    else:
        groups = grouped(rows, by)
        sums = sums_as_rows(groups)
        lines = [{by: group.name} | its_sums for group, its_sums in zip(groups, sums, strict=True)]
    writer = csv.DictWriter(sys.stdout, lines[0] if lines else ["day"], lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _as_cell(value) for name, value in line.items()} for line in lines)


def _as_cell(value: object) -> object:
    return f"{value:f}" if isinstance(value, Decimal) else value  # str(Decimal) is 0E-12 for nothing


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
