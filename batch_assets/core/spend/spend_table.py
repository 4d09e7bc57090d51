"""The table of what was spent: its columns, and how it is written and read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import pyarrow as pa

from batch_assets.core.io.layout import SPEND
from batch_assets.core.io.storage import Storage
from batch_assets.core.spend.amounts import CLASSES, COUNTED, USELESS, Amounts
from batch_assets.core.spend.by_batch import MONEY, UNKNOWN, money_column, write_columns

BATCH_TIER = "batch"
"""The service tier of everything that was sent as a batch."""
PAID_IN_VAIN = (*USELESS, "invalid_usd")
"""The columns with what was paid for answers that no row can use. Each answer counts in one of them at most."""
SAVED = ("saved_batch_usd", "saved_cache_usd", "saved_reuse_usd")
_TEXTS = ("pipeline", "partition", "model", "service_tier", "workspace", "cost_center", "kind")
_COSTS = ("cost_usd", "high_usd", *CLASSES, "unsplit_usd")
SPEND_SCHEMA = pa.schema(
    [
        ("day", pa.date32()),
        *((name, pa.string()) for name in _TEXTS),
        *((name, pa.int64()) for name in ("rows", *COUNTED)),
        *((name, MONEY) for name in (*_COSTS, "usd_per_1000_rows", *SAVED, *PAID_IN_VAIN)),
    ]
)
"""The columns of the table."""


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
        cost_center: The cost center of the pipeline.
        rows: The rows of results tables that have its answers.
        amounts: The columns of `amounts`, `invalid_usd` and `saved_reuse_usd`; amounts in picodollars.
        high: The most that it can have cost, in picodollars; `None` if there is no bound.
    """

    day: date | None
    pipeline: str
    partition: str | None
    model: str
    workspace: str | None
    kind: str
    cost_center: str | None
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
        unpriced_answers: The number of answers without a price, which are in neither amount.
        saved: What was saved, by the columns SAVED.
        in_vain: What was paid in vain, by the columns PAID_IN_VAIN.
    """

    cost: int
    most: int | None
    unknown_requests: int
    unpriced_answers: int
    saved: dict[str, int]
    in_vain: dict[str, int]

    @classmethod
    def of(cls, rows: Iterable[SpendRow]) -> SpendTotal:
        """Add up rows."""
        amounts: Amounts = Counter()
        highs: list[int | None] = []
        unknown = 0
        for row in rows:
            amounts.update(row.amounts)
            highs.append(row.high)
            unknown += row.amounts["requests"] if row.kind == UNKNOWN else 0
        return cls(
            amounts["cost_usd"],
            None if None in highs else sum(high or 0 for high in highs),
            unknown,
            amounts["unpriced_answers"],
            {name: amounts[name] for name in SAVED},
            {name: amounts[name] for name in PAID_IN_VAIN},
        )


def _columns(rows: list[SpendRow]) -> dict[str, Any]:
    """Return the columns of SPEND_SCHEMA."""
    columns: dict[str, Any] = {
        name: [getattr(row, name) for row in rows] for name in ("day", "rows", "pipeline", "workspace")
    }
    columns |= {name: [getattr(row, name) for row in rows] for name in ("cost_center", "kind")}
    columns |= {name: [getattr(row, name) or None for row in rows] for name in ("partition", "model")}
    columns["service_tier"] = [BATCH_TIER] * len(rows)
    columns |= {name: [row.amounts[name] for row in rows] for name in COUNTED}
    money: dict[str, list[int | None]] = {
        name: [row.amounts[name] for row in rows] for name in (*_COSTS, *SAVED, *PAID_IN_VAIN)
    }
    money["high_usd"] = [row.high for row in rows]
    money["usd_per_1000_rows"] = [_rounded(row.cost * 1000, row.rows) for row in rows]
    return columns | {name: money_column(values) for name, values in money.items()}


def write_spend(storage: Storage, rows: list[SpendRow]) -> None:
    """Write the table, in the place of the last one."""
    write_columns(storage, SPEND, SPEND_SCHEMA, _columns(rows))


def _rounded(amount: int, count: int) -> int | None:
    """Divide, rounded to the nearest whole picodollar; `None` by 0."""
    return (2 * amount + count) // (2 * count) if count else None
