"""The metadata of a materialization of `message_batches/spend`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dagster as dg

from batch_assets.core.prices.money import usd
from batch_assets.core.spend.grouping import SpendGroup, grouped
from batch_assets.core.spend.spend_table import PAID_IN_VAIN, SAVED, SpendRow, SpendTotal
from batch_assets.core.text import dollars
from batch_assets.dagster import keys
from batch_assets.dagster.metadata import markdown
from batch_assets.dagster.metadata.numbers import rounded, without_zeros

_DAYS, _GROUPS, _BAR = 31, 20, 24
_COLUMNS = ["requests", "rows", "spent", "per 1,000 rows", "saved by batches", "saved by caching", "in vain"]


def spend_metadata(rows: Sequence[SpendRow], uri: str) -> dict[str, Any]:
    """Return the metadata: totals as numbers, which Dagster plots, and tables of days and pipelines.

    Args:
        rows: The rows of the table.
        uri: The location of the table.
    """
    total = SpendTotal.of(rows)
    metadata: dict[str, Any] = {
        keys.ROW_COUNT: len(rows),
        keys.SPEND_TOTAL_USD: rounded(usd(total.cost)),
        **without_zeros(
            {
                **{keys.total_key(name): rounded(usd(total.amounts[name])) for name in (*SAVED, *PAID_IN_VAIN)},
                keys.SPEND_UNANSWERED: total.unknown_requests,
                keys.SPEND_UNPRICED: total.amounts["unpriced_answers"],
            }
        ),
        keys.SPEND_BY_DAY: _by_day(rows),
        keys.SPEND_BY_PIPELINE: _table("pipeline", grouped(rows, "pipeline")),
        keys.SPEND_BY_MODEL: _table("model", grouped(rows, "model")),
        keys.URI: uri,
    }
    if total.most is not None:
        metadata[keys.SPEND_MOST_USD] = rounded(usd(total.most))
    return metadata


def _by_day(rows: Sequence[SpendRow]) -> dg.MarkdownMetadataValue:
    """Return the last days as a bar chart of text."""
    days = grouped(rows, "day")[-_DAYS:]
    most = max((day.cost for day in days), default=0) or 1
    chart = [
        {"day": day.name, "spent": dollars(usd(day.cost)), "": "█" * round(_BAR * day.cost / most)} for day in days
    ]
    return markdown.table(["day", "spent", ""], chart)


def _table(by: str, groups: Sequence[SpendGroup]) -> dg.MarkdownMetadataValue:
    """Return the groups that cost most."""
    dearest = sorted(groups, key=lambda group: -group.cost)
    lines = [
        {
            by: group.name,
            "requests": f"{group.amounts['requests']:,}",
            "rows": f"{group.rows:,}",
            "spent": dollars(usd(group.cost)),
            "per 1,000 rows": dollars(usd(group.cost) * 1000 / group.rows) if group.rows else "",
            "saved by batches": _signed(group.amounts["saved_batch_usd"]),
            "saved by caching": _signed(group.amounts["saved_cache_usd"]),
            "in vain": dollars(usd(group.in_vain)),
        }
        for group in dearest[:_GROUPS]
    ]
    hidden = len(dearest) - len(lines)
    return markdown.table([by, *_COLUMNS], lines, note=f"… and {hidden} more." if hidden else "")


def _signed(picodollars: int) -> str:
    return f"-{dollars(usd(-picodollars))}" if picodollars < 0 else dollars(usd(picodollars))
