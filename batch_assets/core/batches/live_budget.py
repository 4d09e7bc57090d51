"""What live calls count in budgets, and how many of them fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from math import ceil

from batch_assets.core.errors import UnboundedCostError
from batch_assets.core.ledger import Transaction, budgets
from batch_assets.core.ledger.budgets import GOES, Budgets, Fit, Prospect
from batch_assets.core.ledger.records import RequestFile
from batch_assets.core.ledger.reservations import NO_BOUND, Amounts, MeanCost
from batch_assets.core.prices.prices import Prices
from batch_assets.core.prices.worst_case import worst_case
from batch_assets.core.store.request_lines import params_of


def worst_of_call(prices: Prices, line: bytes) -> int:
    """Return the most that a live call can cost in picodollars; `NO_BOUND` if nothing bounds it."""
    try:
        return worst_case(prices, params_of(line), is_live=True)
    except UnboundedCostError:
        return NO_BOUND


def calls_that_fit(
    tx: Transaction,
    limits: Budgets,
    file: RequestFile,
    worst: Sequence[int],
    counted: Callable[[Sequence[int]], Amounts],
) -> tuple[int, Prospect]:
    """Return how many of some calls fit into the budgets, and why no more do.

    Args:
        tx: A transaction.
        limits: The budgets in force.
        file: The request file.
        worst: The most that each call can cost, see `worst_of_call`.
        counted: Returns what calls count in budgets.
    """
    calls = len(worst)
    while calls and limits:
        asked, live = replace(file, requests=calls, error=None), {file.id: counted(worst[:calls])}
        prospect = budgets.prospects(tx, limits, [asked], is_final=True, live=live)[file.id]
        if prospect.fit is Fit.WHOLE:
            return calls, prospect
        if calls == 1:
            return 0, prospect
        calls //= 2  # what would be too small a part for a batch is a call like any other
    return calls, GOES


def amounts_of(worst: Sequence[int], mean: MeanCost, discount: Decimal) -> Amounts:
    """Return what live calls count in budgets.

    Args:
        worst: The most that each can cost, see `worst_of_call`.
        mean: What the pipeline's answers did cost, which batches gave.
        discount: The price of a batch as a fraction of that of live calls.
    """
    most = sum(worst) if min(worst) >= 0 else NO_BOUND
    if not mean.requests:
        return Amounts(most, most)
    expected = ceil(Fraction(mean.picodollars * len(worst), mean.requests) / Fraction(discount))
    return Amounts(most, expected if most == NO_BOUND else min(expected, most))
