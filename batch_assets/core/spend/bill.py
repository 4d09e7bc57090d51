"""The table of what was spent, compared with the provider's bill day by day, with the differences named."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from enum import StrEnum
from itertools import pairwise

from batch_assets.core.api.cost_report import Charge
from batch_assets.core.prices.money import usd
from batch_assets.core.prices.prices import undated
from batch_assets.core.spend.by_batch import UNKNOWN, sum_of_bounds
from batch_assets.core.spend.spend_table import LIVE_TIER, SpendRow, unknown_as_text
from batch_assets.core.text import count, dollars

_MICRODOLLAR = 10**6  # picodollars: a smaller difference is one of rounding


class Verdict(StrEnum):
    """How the bill of a day differs from the table."""

    EQUAL = "equal"
    """Not at all."""
    UNKNOWN = "unknown"
    """By no more than requests may cost whose answers are not stored."""
    MIDNIGHT = "midnight"
    """By what the day before or after it differs by in the other direction."""
    MORE = "more"
    """The bill has more."""
    LESS = "less"
    """The bill has less."""


@dataclass
class BilledDay:
    """A UTC day. Amounts are in picodollars.

    Attributes:
        day: The day.
        billed: What the provider charges, by model.
        spent: What the table has, by model.
        unknown_requests: The number of requests whose answers are not stored.
        unknown: The most that they can cost; `None` if there is no bound.
        verdict: How both differ.
    """

    day: date
    billed: Counter[str] = field(default_factory=Counter)
    spent: Counter[str] = field(default_factory=Counter)
    unknown_requests: int = 0
    unknown: int | None = 0
    verdict: Verdict = Verdict.EQUAL

    @property
    def difference(self) -> int:
        """By how much the bill is above the table."""
        return self.billed.total() - self.spent.total()

    @property
    def by_model(self) -> dict[str, int]:
        """By how much the bill of each model is above the table, for those that differ."""
        models = sorted({*self.billed, *self.spent})
        apart = {model: self.billed[model] - self.spent[model] for model in models}
        return {model: difference for model, difference in apart.items() if abs(difference) >= _MICRODOLLAR}

    @property
    def agrees(self) -> bool:
        """Whether nothing is left to explain."""
        return self.verdict in (Verdict.EQUAL, Verdict.UNKNOWN, Verdict.MIDNIGHT)

    @property
    def why(self) -> str:
        """What the difference is, for the user; "" without one."""
        amount = dollars(usd(abs(self.difference)))
        match self.verdict:
            case Verdict.EQUAL:
                return ""
            case Verdict.UNKNOWN:
                return f"{amount} more: {unknown_as_text(self.unknown_requests, self.unknown)}"
            case Verdict.MIDNIGHT:
                way = "more" if self.difference > 0 else "less"
                return f"{amount} {way}, as a day beside it differs the other way: a batch ran over midnight"
            case Verdict.MORE:
                return f"{amount} more: batches of other roots or programs, other prices or fees"
            case Verdict.LESS:
                return f"{amount} less: not reported yet, batches of another workspace, or other prices"


def compare(rows: Iterable[SpendRow], charges: Iterable[Charge], first: date, last: date) -> list[BilledDay]:
    """Compare the table with the bill of batches.

    Args:
        rows: The table. Live calls are left out: the provider bills them with all other calls of the Messages API.
        charges: The bill, from a day before `first`.
        first: The first UTC day.
        last: The last one.
    """
    dates = [first + timedelta(days=at) for at in range(-1, (last - first).days + 1)]
    days = {day: BilledDay(day) for day in dates}
    for charge in charges:
        if charge.day in days:
            # The bill and the answers may name different snapshots of a model.
            days[charge.day].billed[undated(charge.model)] += charge.picodollars
    for row in rows:
        if row.day is None or row.day not in days or row.tier == LIVE_TIER:
            continue
        into = days[row.day]
        if row.kind == UNKNOWN:
            into.unknown_requests += row.amounts["requests"]
            into.unknown = sum_of_bounds(into.unknown, row.high)
        elif row.cost:
            into.spent[undated(row.model)] += row.cost
    _judge(list(days.values()))
    return [days[day] for day in dates[1:]]


def live_text(rows: Iterable[SpendRow], first: date, last: date) -> str:
    """Return what live calls of some days cost, which `compare` leaves out, for the user; "" without any.

    Args:
        rows: The table.
        first: The first UTC day.
        last: The last one.
    """
    live = [row for row in rows if row.tier == LIVE_TIER and row.day is not None and first <= row.day <= last]
    requests, cost = sum(row.amounts["requests"] for row in live), sum(row.cost for row in live)
    if not requests:
        return ""
    return (
        f"not compared: {count(requests, 'live call')} of rescue, {dollars(usd(cost))}; the provider bills them "
        "with all other calls of the Messages API"
    )


def _judge(days: Sequence[BilledDay]) -> None:
    for day in days:
        if not day.by_model:
            continue
        is_within = day.unknown is None or day.difference <= day.unknown
        only_more = min(day.by_model.values()) > 0
        if day.unknown_requests and only_more and is_within:
            day.verdict = Verdict.UNKNOWN
        else:
            day.verdict = Verdict.MORE if day.difference > 0 else Verdict.LESS
    for before, after in pairwise(days):
        if not before.agrees and not after.agrees and _cancel_out(before.by_model, after.by_model):
            before.verdict = after.verdict = Verdict.MIDNIGHT


def _cancel_out(one: dict[str, int], other: dict[str, int]) -> bool:
    models = {*one, *other}
    return all(abs(one.get(model, 0) + other.get(model, 0)) < _MICRODOLLAR for model in models)
