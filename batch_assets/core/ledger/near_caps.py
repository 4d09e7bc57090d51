"""How much of each budget is spent, and the budgets of which most is. Users are notified before files are held."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from batch_assets.core.ledger import reservations
from batch_assets.core.ledger.budgets import ROOT
from batch_assets.core.ledger.connection import Transaction
from batch_assets.core.ledger.overview import in_motion
from batch_assets.core.ledger.records import Submission
from batch_assets.core.ledger.reservations import Total
from batch_assets.core.prices.budget import Budget, Period
from batch_assets.core.prices.money import usd
from batch_assets.core.text import exact_dollars

_PERCENT = 80


@dataclass(frozen=True)
class BudgetUse:
    """How much of a budget is spent in the current period.

    Attributes:
        pipeline: The pipeline; `ROOT` for the budget of the root.
        budget: The budget.
        total: What counts in it.
        period: Identifies the period: the first day, or the id of the submission for a budget per run.
        submission: The submission, for a budget per run; else `None`.
    """

    pipeline: str
    budget: Budget
    total: Total
    period: str
    submission: Submission | None = None

    @property
    def is_near_cap(self) -> bool:
        """Whether 80 % or more of it is spent."""
        return self.total.settled * 100 >= self.budget.picodollars * _PERCENT

    @property
    def text(self) -> str:
        """How much is spent, for the user."""
        spent, percent = self.total.settled, self.total.settled * 100 // self.budget.picodollars
        of = "the root's budget" if self.pipeline == ROOT else "the budget"
        open_ = f", and {exact_dollars(usd(self.total.reserved))} are reserved" if self.total.reserved else ""
        return f"{percent} % of {of} of {self.budget} is spent: {exact_dollars(usd(spent))}{open_}"

    def __str__(self) -> str:
        names = [self.pipeline, self.submission.partition if self.submission is not None else ""]
        name = " ".join(filter(None, [names[0], f"[{names[1]}]" if names[1] else ""]))
        return f"{name}: {self.text}" if name else self.text


def near_caps(tx: Transaction, by_name: Mapping[str, Budget | None]) -> list[BudgetUse]:
    """Return the budgets of which 80 % or more is spent. See `budget_uses`."""
    return [use for use in budget_uses(tx, by_name) if use.is_near_cap]


def budget_uses(tx: Transaction, by_name: Mapping[str, Budget | None]) -> list[BudgetUse]:
    """Return how much of each budget is spent; of a budget per run, for each run that is not complete.

    Without a budget it takes no statement. Each budget takes the sums that `budgets` compares with the cap, and a
    budget per run also the submissions that are not complete.

    Args:
        tx: A transaction.
        by_name: The budget of each pipeline, that of the root under `ROOT`; `None` for none.
    """
    limits = {name: budget for name, budget in by_name.items() if budget is not None}
    runs: dict[str, dict[str, Submission]] = {name: {} for name, each in limits.items() if each.per is Period.RUN}
    for submission in in_motion(tx, tx.now) if runs else ():
        if submission.pipeline in runs and submission.final_at is None:
            runs[submission.pipeline][submission.id] = submission
    uses: list[BudgetUse] = []
    for name, budget in limits.items():
        own = runs.get(name, {})
        days = budget.days(tx.now)
        for key, total in reservations.totals(tx, budget, name or None, list(own)).items():
            uses.append(BudgetUse(name, budget, total, key if days is None else str(days[0]), own.get(key)))
    return uses
