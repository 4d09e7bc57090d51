"""Group the rows of the table of what was spent by one of its columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from batch_assets.core.spend.amounts import Amounts
from batch_assets.core.spend.by_batch import sum_of_bounds
from batch_assets.core.spend.spend_table import PAID_IN_VAIN, SpendRow

By = Literal["day", "model", "pipeline", "partition"]
"""The columns by which rows are grouped."""
_WITHOUT = {"day": "unknown", "model": "no answer", "partition": "none"}


@dataclass
class SpendGroup:
    """Rows with the same value in a column.

    Attributes:
        name: The value, as text.
        rows: The rows of results tables that have their answers.
        amounts: The sums of their numbers and amounts; amounts in picodollars.
        high: The most that all of it can have cost, in picodollars; `None` if there is no bound.
    """

    name: str
    rows: int = 0
    amounts: Amounts = field(default_factory=Counter)
    high: int | None = 0

    @property
    def cost(self) -> int:
        """What their answers cost, in picodollars."""
        return self.amounts["cost_usd"]

    @property
    def in_vain(self) -> int:
        """What was paid for answers that no row can use, in picodollars."""
        return sum(self.amounts[name] for name in PAID_IN_VAIN)


def grouped(rows: Iterable[SpendRow], by: By) -> list[SpendGroup]:
    """Return the groups, in the order of their names."""
    groups: dict[str, SpendGroup] = {}
    for row in rows:
        name = str(getattr(row, by) or _WITHOUT.get(by, ""))
        group = groups.setdefault(name, SpendGroup(name))
        group.rows += row.rows
        group.amounts.update(row.amounts)
        group.high = sum_of_bounds(group.high, row.high)
    return [groups[name] for name in sorted(groups)]
