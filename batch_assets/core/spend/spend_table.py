"""The table of what was spent: its columns, and how it is written and read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Protocol

import orjson
import pyarrow as pa

from batch_assets.core.io.json_text import dump
from batch_assets.core.io.layout import SPEND
from batch_assets.core.io.storage import Storage
from batch_assets.core.prices.money import usd
from batch_assets.core.spend.amounts import CLASSES, COUNTED, USELESS, Amounts
from batch_assets.core.spend.by_batch import (
    MONEY,
    UNKNOWN,
    money_column,
    read_columns,
    sum_of_bounds,
    write_columns,
)
from batch_assets.core.text import count, dollars, exact_dollars

BATCH_TIER, LIVE_TIER = "batch", "live"
"""The service tier of everything that was sent as a batch."""
PAID_IN_VAIN = (*USELESS, "invalid_usd")
"""The columns with what was paid for answers that no row can use. Each answer counts in one of them at most."""
SAVED = ("saved_batch_usd", "saved_cache_usd", "saved_reuse_usd")
ESTIMATED = ("estimated_low_usd", "estimated_high_usd")
_TEXTS = ("pipeline", "partition", "model", "service_tier", "workspace", "cost_center", "tags", "kind")
_COSTS = ("cost_usd", "high_usd", *CLASSES, "unsplit_usd")
SPEND_SCHEMA = pa.schema(
    [
        ("day", pa.date32()),
        *((name, pa.string()) for name in _TEXTS),
        *((name, pa.int64()) for name in ("rows", *COUNTED)),
        *((name, MONEY) for name in (*_COSTS, "usd_per_1000_rows", *SAVED, *PAID_IN_VAIN, *ESTIMATED)),
    ]
)
"""The columns of the table."""
MEANINGS = {
    "day": "The UTC day on which the batch ended.",
    "pipeline": "The pipeline.",
    "partition": "The partition of the request file.",
    "model": "The model that answered; null for requests without an answer.",
    "service_tier": "`batch`, or `live` for live calls.",
    "workspace": "The start of a hash of the API key that sent the batch.",
    "cost_center": "The field `cost_center` of the pipeline file.",
    "tags": "The tags of the pipeline's results, as JSON.",
    "kind": "`known`, or `unknown` for requests whose answers are not stored.",
    "rows": "Rows of current results tables with these answers.",
    "requests": "Requests that the API accepted.",
    "answers": "Requests that the API answered.",
    "unpriced_answers": "Answers whose cost is unknown. They are in no amount.",
    "input_tokens": "Tokens of prompts that were not cached.",
    "cache_write_5m_tokens": "Tokens that were written to the cache for 5 minutes.",
    "cache_write_1h_tokens": "Tokens that were written to the cache for an hour.",
    "cache_read_tokens": "Tokens that were read from the cache.",
    "output_tokens": "Tokens of answers.",
    "thinking_tokens": "Those of them that the model thought with.",
    "cost_usd": "What the answers cost.",
    "high_usd": "The most that it can have cost.",
    "input_usd": "Cost of `input_tokens`.",
    "cache_write_5m_usd": "Cost of `cache_write_5m_tokens`.",
    "cache_write_1h_usd": "Cost of `cache_write_1h_tokens`.",
    "cache_read_usd": "Cost of `cache_read_tokens`.",
    "output_usd": "Cost of `output_tokens`.",
    "fees_usd": "Web searches.",
    "unsplit_usd": "Costs by a price list that is no longer in force.",
    "usd_per_1000_rows": "`cost_usd` for 1,000 rows of `rows`.",
    "saved_batch_usd": "What live calls would have cost more.",
    "saved_cache_usd": "What the same tokens would have cost more without the cache.",
    "saved_reuse_usd": "What rows would have cost that share or reuse an answer.",
    "superseded_usd": "Paid in vain: answers that a refresh replaced.",
    "paid_twice_usd": "Paid in vain: another answer to a request that has one.",
    "refused_usd": "Paid in vain: answers that the model refused to finish.",
    "truncated_usd": "Paid in vain: answers that were cut off, or end with a pause or calls of tools.",
    "invalid_usd": "Paid in vain: answers that do not match the output schema.",
    "estimated_low_usd": "The lower end of what the runs were estimated to cost.",
    "estimated_high_usd": "The upper end of what the runs were estimated to cost.",
}
"""What each column has, for readers of the table."""


@dataclass(frozen=True)
class Labels:
    """Whom a pipeline's costs belong to.

    Attributes:
        cost_center: The field `cost_center` of the pipeline file.
        tags: The tags of its results in Dagster.
    """

    cost_center: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)


NO_LABELS = Labels()


class Summed(Protocol):
    """Numbers and amounts of a row of the table, or of several rows together. See `SpendRow`."""

    @property
    def rows(self) -> int: ...
    @property
    def amounts(self) -> Amounts: ...
    @property
    def high(self) -> int | None: ...
    @property
    def cost(self) -> int: ...


@dataclass
class SpendRow:
    """A row of the table.

    Attributes:
        day: The UTC day on which its batches ended; `None` if it is not known.
        pipeline: The pipeline.
        partition: The partition key; "" without partitions, `None` if it is not known.
        model: The model that answered; "" for requests without an answer.
        workspace: The start of the salted hash of the API key that sent its batches; `None` if it is unknown.
        kind: KNOWN or UNKNOWN.
        labels: The labels of the pipeline, as they are now.
        tier: BATCH_TIER or LIVE_TIER.
        rows: The rows of results tables that have its answers.
        amounts: The columns of `amounts`, `invalid_usd`, `saved_reuse_usd` and ESTIMATED; amounts in picodollars.
        high: The most that it can have cost, in picodollars; `None` if there is no bound.
    """

    day: date | None
    pipeline: str
    partition: str | None
    model: str
    workspace: str | None
    kind: str
    labels: Labels
    tier: str = BATCH_TIER
    rows: int = 0
    amounts: Amounts = field(default_factory=Counter)
    high: int | None = 0

    @property
    def cost(self) -> int:
        """What its answers cost, in picodollars. Nothing is known to be paid for in a row of the kind UNKNOWN."""
        return self.amounts["cost_usd"]


@dataclass(frozen=True)
class SpendTotal:
    """The sum of rows, in picodollars.

    Attributes:
        cost: What answers that are stored cost.
        most: That, and the most that requests may cost whose answers are not; `None` if there is no bound.
        unknown_requests: The number of these requests.
        amounts: All columns. Answers without a price are in no amount.
    """

    cost: int
    most: int | None
    unknown_requests: int
    amounts: Amounts

    @classmethod
    def of(cls, rows: Iterable[SpendRow]) -> SpendTotal:
        """Add up rows."""
        amounts: Amounts = Counter()
        most: int | None = 0
        unknown = 0
        for row in rows:
            amounts.update(row.amounts)
            most = sum_of_bounds(most, row.high)
            unknown += row.amounts["requests"] if row.kind == UNKNOWN else 0
        return cls(amounts["cost_usd"], most, unknown, amounts)

    @property
    def as_text(self) -> str:
        """The sum for users: "$0.0123 in all; 3 requests whose answers are not stored may cost at most $0.002"."""
        text = f"{dollars(usd(self.cost))} in all"
        if self.unknown_requests:
            more = self.most - self.cost if self.most is not None else None
            text += f"; {unknown_as_text(self.unknown_requests, more)}"
        if unpriced := self.amounts["unpriced_answers"]:
            text += f"; {count(unpriced, 'answer')} without a price not included"
        return text


def unknown_as_text(requests: int, most: int | None) -> str:
    """Return what requests may cost whose answers are not stored, as text.

    Args:
        requests: The number of these requests.
        most: The most that they can cost, in picodollars; `None` if there is no bound.
    """
    amount = f"at most {exact_dollars(usd(most))}" if most is not None else "an unknown amount"
    return f"{count(requests, 'request')} whose answers are not stored may cost {amount}"


def _columns(rows: list[SpendRow]) -> dict[str, Any]:
    """Return the columns of SPEND_SCHEMA."""
    columns: dict[str, Any] = {
        name: [getattr(row, name) for row in rows] for name in ("day", "pipeline", "workspace")
    }
    columns["kind"] = [row.kind for row in rows]
    columns["cost_center"] = [row.labels.cost_center for row in rows]
    columns["tags"] = [dump(dict(row.labels.tags)) if row.labels.tags else None for row in rows]
    columns |= {name: [getattr(row, name) or None for row in rows] for name in ("partition", "model")}
    columns["service_tier"] = [row.tier for row in rows]
    return columns | _sums(rows)


def _sums(rows: Sequence[Summed]) -> dict[str, Any]:
    """Return the columns with numbers and amounts."""
    columns: dict[str, Any] = {"rows": [row.rows for row in rows]}
    columns |= {name: [row.amounts[name] for row in rows] for name in COUNTED}
    money: dict[str, list[int | None]] = {
        name: [row.amounts[name] for row in rows] for name in (*_COSTS, *SAVED, *PAID_IN_VAIN)
    }
    money["high_usd"] = [row.high for row in rows]
    money |= {name: [row.amounts.get(name) for row in rows] for name in ESTIMATED}
    money["usd_per_1000_rows"] = [_rounded(row.cost * 1000, row.rows) for row in rows]
    return columns | {name: money_column(values) for name, values in money.items()}


def as_rows(rows: list[SpendRow]) -> list[dict[str, Any]]:
    """Return rows by the columns of SPEND_SCHEMA, with amounts as decimals."""
    lines: list[dict[str, Any]] = pa.table(_columns(rows), SPEND_SCHEMA).to_pylist()
    return lines


def sums_as_rows(sums: Sequence[Summed]) -> list[dict[str, Any]]:
    """Return the columns of SPEND_SCHEMA with numbers and amounts, as `as_rows` does."""
    columns = _sums(sums)
    schema = pa.schema([column for column in SPEND_SCHEMA if column.name in columns])
    lines: list[dict[str, Any]] = pa.table(columns, schema).to_pylist()
    return lines


def read_labels(storage: Storage) -> dict[str, Labels]:
    """Return the labels that the last table has, by pipeline."""
    columns = read_columns(storage, SPEND, SPEND_SCHEMA)
    return {
        pipeline: Labels(cost_center, orjson.loads(tags) if tags else {})
        for pipeline, cost_center, tags in zip(
            *(columns[name] for name in ("pipeline", "cost_center", "tags")), strict=True
        )
    }


def write_spend(storage: Storage, rows: list[SpendRow]) -> None:
    """Write the table, in the place of the last one."""
    write_columns(storage, SPEND, SPEND_SCHEMA, _columns(rows))


def _rounded(amount: int, count: int) -> int | None:
    """Divide, rounded to the nearest whole picodollar; `None` by 0."""
    return (2 * amount + count) // (2 * count) if count else None
