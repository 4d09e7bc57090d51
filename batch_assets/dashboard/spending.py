"""What was spent, as the page shows it: by day, model and pipeline, beside what was planned and the budgets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from batch_assets.core.ledger.budgets import ROOT
from batch_assets.core.ledger.near_caps import BudgetUse
from batch_assets.core.prices.money import usd
from batch_assets.core.spend.grouping import By, grouped
from batch_assets.core.spend.spend_table import ESTIMATED, SpendRow
from batch_assets.core.text import dollars, exact_dollars

_DAYS = 60


def day_bars(rows: Sequence[SpendRow]) -> list[dict[str, Any]]:
    """Return an amount for each of the last days and each pipeline, in USD: `day`, `pipeline`, `usd`."""
    days = [group.name for group in grouped(rows, "day")][-_DAYS:]
    bars = []
    for day in days:
        of_day = [row for row in rows if str(row.day or "unknown") == day]
        bars += [
            {"day": day, "pipeline": group.name, "usd": usd(group.cost)} for group in grouped(of_day, "pipeline")
        ]
    return bars


def amounts_by(rows: Sequence[SpendRow], by: By) -> list[dict[str, str]]:
    """Return a line for each group, those that cost most first: spent, planned, per 1,000 rows and in vain.

    Args:
        rows: The rows of the table of what was spent.
        by: The column.
    """
    lines = []
    for group in sorted(grouped(rows, by), key=lambda group: -group.cost):
        low, high = (group.amounts[name] for name in ESTIMATED)
        lines.append(
            {
                by: group.name,
                "requests": f"{group.amounts['requests']:,}",
                "spent": dollars(usd(group.cost)),
                "planned": f"{dollars(usd(low))} to {dollars(usd(high))}" if high else "–",
                "per 1,000 rows": dollars(usd(group.cost) * 1000 / group.rows) if group.rows else "–",
                "in vain": dollars(usd(group.in_vain)),
            }
        )
    return lines


def budget_lines(uses: Sequence[BudgetUse]) -> list[dict[str, str]]:
    """Return a line for each budget: what is spent and reserved of it, and what is left."""
    return [
        {
            "budget of": _owner(use),
            "cap": str(use.budget),
            "spent": exact_dollars(usd(use.total.settled)),
            "reserved": exact_dollars(usd(use.total.reserved)),
            "left": exact_dollars(usd(max(0, use.budget.picodollars - use.total.picodollars))),
            "used": f"{100 * use.total.picodollars // use.budget.picodollars} %",
        }
        for use in uses
    ]


def _owner(use: BudgetUse) -> str:
    name = "the root" if use.pipeline == ROOT else use.pipeline
    return f"{name} [{use.submission.partition}]" if use.submission and use.submission.partition else name
