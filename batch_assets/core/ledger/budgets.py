"""Whether request files fit into the budgets in force: of their pipeline, and of the root.

Whoever writes an intent has locked out every other writer of an intent, see `connection.py`. So two files never
take the same money.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import sqlalchemy as sa

from batch_assets.core.ledger import reservations
from batch_assets.core.ledger.connection import Transaction
from batch_assets.core.ledger.records import RequestFile
from batch_assets.core.ledger.reservations import NO_BOUND, Amounts, MeanCost, Total
from batch_assets.core.ledger.tables import budget as budget_table
from batch_assets.core.prices.budget import Budget, Hold, Period
from batch_assets.core.prices.money import usd
from batch_assets.core.text import exact_dollars

ROOT = ""
"""In place of a pipeline's name: the budget of the root."""
# While answers are awaited that may free money, a file is cut only for at least this share of the cap: otherwise
# the work would fall apart into very small batches.
_SHARE = 16

Budgets = Mapping[str, Budget]
"""The budgets in force by pipeline, that of the root under `ROOT`."""


class Fit(StrEnum):
    """Whether a request file may be sent now."""

    WHOLE = "whole"
    """As it is."""
    IN_PART = "in part"
    """A part of it: it has to be cut."""
    NOT_NOW = "not now"
    """Not before money comes free, or a new period begins."""
    NEVER = "never"
    """Not before a user raises a budget, or asks for less."""


@dataclass(frozen=True)
class Prospect:
    """When a request file may be sent.

    Attributes:
        fit: Whether it may be sent now.
        why: Why not as a whole; "" if it may.
        until: When a new period begins in which it may, seconds since 1970; `None` if there is no such time.
        comes_free: Whether answers that are awaited may free money for it.
    """

    fit: Fit
    why: str = ""
    until: float | None = None
    comes_free: bool = False

    @property
    def may_go(self) -> bool:
        """Whether it, or a part of it, may be sent now."""
        return self.fit in (Fit.WHOLE, Fit.IN_PART)

    @property
    def is_hopeless(self) -> bool:
        """Whether only a user can change that it is not sent."""
        return self.fit is Fit.NEVER


GOES = Prospect(Fit.WHOLE)


@dataclass
class _Limit:
    """A budget, and what counts in it.

    Attributes:
        budget: The budget.
        name: What it is, for texts.
        total: What counts in it.
        taken: What files that were found to fit take of it, in picodollars.
        is_final: See `prospects`.
    """

    budget: Budget
    name: str
    total: Total
    is_final: bool
    taken: int = field(default=0)

    @property
    def room(self) -> int:
        return self.budget.picodollars - self.total.picodollars - self.taken


def recorded(tx: Transaction) -> dict[str, Budget]:
    """Return the budgets of all pipelines and, under `ROOT`, of the root."""
    rows = tx.execute(sa.select(budget_table)).all()
    return {row.pipeline: Budget(row.picodollars, row.per, row.hold) for row in rows}


def record(tx: Transaction, pipeline: str, budget: Budget | None) -> None:
    """Record the budget of a pipeline, or of the root under `ROOT`; `None` for none."""
    tx.execute(sa.delete(budget_table).where(budget_table.c.pipeline == pipeline))
    if budget is not None:
        values = {"picodollars": budget.picodollars, "per": budget.per, "hold": budget.hold}
        tx.execute(sa.insert(budget_table).values(pipeline=pipeline, **values))


def names_for(budgets: Budgets, pipeline: str) -> list[str]:
    """Return the names of the budgets that a pipeline's files count in: its own, then the root's."""
    return [name for name in dict.fromkeys((pipeline, ROOT)) if name in budgets]


def prospects(
    tx: Transaction,
    budgets: Budgets,
    files: Sequence[RequestFile],
    *,
    is_final: bool = False,
    live: Mapping[str, Amounts] | None = None,
) -> dict[str, Prospect]:
    """Return by id when request files may be sent. Each that fits takes its money from those after it.

    The number of statements grows with the number of pipelines, and not with the number of files.

    Args:
        tx: A transaction.
        budgets: The budgets in force.
        files: The files. What is not known about their cost counts as having no bound.
        is_final: Whether they are sent next. Otherwise a run first finds out what is not known about others.
        live: By id, what live calls for the requests of a file count, if these are asked about and not the file.
    """
    limits = _Limits(tx, budgets, files, is_final=is_final)
    return {file.id: limits.judge(file, (live or {}).get(file.id)) for file in files}


def amount(file: RequestFile, hold: Hold, mean: MeanCost) -> int | None:
    """Return what a request file counts in a budget, in picodollars; `None` if nothing bounds it."""
    if hold is Hold.WORST or not mean.requests:
        return file.worst_case
    expected = -(-mean.picodollars * file.requests // mean.requests)
    return expected if file.worst_case is None else min(expected, file.worst_case)


class _Limits:
    """The budgets that some files count in, read once for all of them."""

    def __init__(self, tx: Transaction, budgets: Budgets, files: Iterable[RequestFile], *, is_final: bool) -> None:
        self._tx, self._budgets, self._is_final = tx, budgets, is_final
        self._limits: dict[tuple[str, str], _Limit] = {}
        self._means: dict[str, MeanCost] = {}
        runs: dict[str, dict[str, None]] = {}
        for file in files:
            runs.setdefault(file.pipeline, {})[file.submission_id] = None
            for name in names_for(budgets, file.pipeline):
                if budgets[name].hold is Hold.EXPECTED and file.pipeline not in self._means:
                    self._means[file.pipeline] = reservations.mean_cost(tx, file.pipeline)
        for pipeline, submission_ids in runs.items():
            for name in names_for(budgets, pipeline):
                self._read(name, list(submission_ids))

    def _read(self, name: str, submission_ids: list[str]) -> None:
        budget = self._budgets[name]
        keys = submission_ids if budget.per is Period.RUN else [""]
        if all((name, key) in self._limits for key in keys):
            return
        what = f"the budget of {budget}" if name else f"the root's budget of {budget}"
        totals = reservations.totals(self._tx, budget, name or None, submission_ids)
        for key in keys:
            total = totals.get(key, reservations.NOTHING)
            self._limits[name, key] = _Limit(budget, what, total, self._is_final)

    def judge(self, file: RequestFile, live: Amounts | None) -> Prospect:
        """Return when a file may be sent, or live calls for it may be made, and take what they take."""
        mean = self._means.get(file.pipeline, reservations.NO_MEAN)
        of_file = [
            self._limits[name, file.submission_id if self._budgets[name].per is Period.RUN else ""]
            for name in names_for(self._budgets, file.pipeline)
        ]
        needed = [
            amount(file, limit.budget.hold, mean) if live is None else _counted(live, limit.budget.hold)
            for limit in of_file
        ]
        what = "this file" if live is None else "the next live call"
        judged = [
            _judge(limit, each, file, what, self._tx.now) for limit, each in zip(of_file, needed, strict=True)
        ]
        prospect = _all(judged)
        for limit, each in zip(of_file, needed, strict=True):
            if prospect.fit is Fit.WHOLE:
                limit.taken += each or 0
            elif prospect.fit is Fit.IN_PART:
                limit.taken += max(0, limit.room)
        return prospect


def _counted(live: Amounts, hold: Hold) -> int | None:
    """Return what live calls count in a budget, in picodollars; `None` if nothing bounds it."""
    counted = live.worst if hold is Hold.WORST else live.expected
    return None if counted == NO_BOUND else counted


def _judge(limit: _Limit, needed: int | None, file: RequestFile, what: str, now: float) -> Prospect:
    if limit.total.is_stale and not limit.is_final:
        return GOES
    if needed is None:
        return Prospect(Fit.NEVER, file.error or "nothing bounds what it can cost")
    until, smallest = limit.budget.next_start(now), -(-needed // file.requests)
    if limit.total.is_stale:
        why = f"what other files may cost, which count in {limit.name}, is about to be found out"
        return Prospect(Fit.NOT_NOW, why, until, comes_free=True)
    if needed <= limit.room and not limit.total.unknown:
        return GOES
    if limit.total.unknown:
        why = f"what {', '.join(limit.total.unknown)} may cost, which count in {limit.name}, is unknown"
        return Prospect(Fit.NOT_NOW if until is not None else Fit.NEVER, why, until)
    left = exact_dollars(usd(max(0, limit.room)))
    lost = limit.total.reserved - limit.total.awaited
    of_lost = f", as {exact_dollars(usd(lost))} count for uploads whose batch was never found" if lost else ""
    why = f"{limit.name} has {left} left{of_lost}, and {what} may cost up to {exact_dollars(usd(needed))}"
    is_awaited = limit.total.awaited + limit.taken > 0
    enough = max(smallest, limit.budget.picodollars // _SHARE) if is_awaited else smallest
    if file.requests > 1 and limit.room >= enough:
        return Prospect(Fit.IN_PART, why)
    is_possible = smallest <= limit.budget.picodollars
    comes_free = limit.total.awaited > 0
    if is_possible and (until is not None or comes_free):
        return Prospect(Fit.NOT_NOW, why, until, comes_free)
    return Prospect(Fit.NEVER, why)


def _all(judged: Sequence[Prospect]) -> Prospect:
    """Return the prospect of a file that has to fit into several budgets."""
    if not judged:
        return GOES
    order = list(Fit)
    worst = max(judged, key=lambda each: order.index(each.fit))
    blocking = [each for each in judged if each.fit is Fit.NOT_NOW]
    if worst.fit is not Fit.NOT_NOW:
        return worst
    times = [each.until for each in blocking if each.until is not None]
    return Prospect(
        Fit.NOT_NOW,
        worst.why,
        max(times) if len(times) == len(blocking) else None,
        all(each.comes_free for each in blocking),
    )
