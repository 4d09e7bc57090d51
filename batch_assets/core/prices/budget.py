"""Budgets: how much a pipeline or a root may spend in a period."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import StrEnum

from batch_assets.core.prices.money import PICODOLLARS
from batch_assets.core.text import exact_dollars

MOST_USD = 1_000_000
"""The largest cap."""
_CENT = PICODOLLARS // 100
_EPOCH = date(1970, 1, 1)


class Period(StrEnum):
    """What a budget is for."""

    RUN = "run"
    """One submission, with its retries."""
    DAY = "day"
    """A day in UTC."""
    MONTH = "month"
    """A month in UTC."""


class Hold(StrEnum):
    """What is reserved in a budget for a request file that is sent."""

    WORST = "worst"
    """The most that it can cost: the cap is never passed."""
    EXPECTED = "expected"
    """What it would cost at the mean of the pipeline's own answers: the cap may be passed."""


@dataclass(frozen=True)
class Budget:
    """A cap on what is spent.

    Attributes:
        picodollars: The cap.
        per: What it is for.
        hold: What is reserved for a request file.
    """

    picodollars: int
    per: Period
    hold: Hold = Hold.WORST

    def days(self, now: float) -> tuple[int, int] | None:
        """Return the first and the last day of the current period, as `day_of` numbers them; `None` for a run."""
        today = _EPOCH + timedelta(days=day_of(now))
        if self.per is Period.RUN:
            return None
        if self.per is Period.DAY:
            return day_of(now), day_of(now)
        return (today.replace(day=1) - _EPOCH).days, (_next_month(today) - _EPOCH).days - 1

    def next_start(self, now: float) -> float | None:
        """Return when the next period begins, seconds since 1970; `None` for a run."""
        days = self.days(now)
        return (days[1] + 1) * 86_400.0 if days is not None else None

    def __str__(self) -> str:
        usd = self.picodollars / PICODOLLARS
        return (
            f"${usd:,.2f} per {self.per}"
            if self.picodollars % _CENT == 0
            else f"{exact_dollars(usd)} per {self.per}"
        )


def picodollars_of(usd: Decimal) -> int:
    """Return an amount in USD as whole picodollars."""
    return int(usd * PICODOLLARS)


def day_of(time: float) -> int:
    """Return the number of a day in UTC, counted from 1970."""
    return (datetime.fromtimestamp(time, UTC).date() - _EPOCH).days


def _next_month(day: date) -> date:
    return (day.replace(day=1) + timedelta(days=32)).replace(day=1)
