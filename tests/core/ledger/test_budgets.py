"""When request files fit into the budgets in force: each takes its money from those after it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from batch_assets.core.ledger import Ledger
from batch_assets.core.ledger.budgets import ROOT, Fit, prospects
from batch_assets.core.ledger.records import RequestFile
from batch_assets.core.ledger.states import FileState
from batch_assets.core.prices.budget import Budget, Period

WHOLE, IN_PART, NOT_NOW, NEVER = Fit.WHOLE, Fit.IN_PART, Fit.NOT_NOW, Fit.NEVER


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    opened = Ledger(f"sqlite:///{tmp_path_factory.mktemp('budgets') / 'ledger.db'}")
    yield opened
    opened.close()


def files_of(*costs: tuple[int, int]) -> list[RequestFile]:
    """Return files that may cost at most so many picodollars for so many requests."""
    nothing = (None,) * 5
    return [
        RequestFile(
            str(at),
            "s",
            "asked",
            "",
            f"{at}.jsonl",
            requests,
            100,
            1,
            FileState.READY,
            0.0,
            *nothing,
            worst_case=cost,
        )
        for at, (cost, requests) in enumerate(costs)
    ]


@pytest.mark.parametrize(
    ("costs", "fits"),
    [
        ([(100, 1)], [WHOLE]),  # exactly the cap
        ([(101, 1)], [NEVER]),
        ([(101, 2)], [IN_PART]),
        ([(60, 1), (40, 1), (1, 1)], [WHOLE, WHOLE, NOT_NOW]),
        ([(60, 1), (41, 1), (40, 1)], [WHOLE, NOT_NOW, WHOLE]),  # a file that waits takes nothing
        ([(60, 1), (60, 3), (1, 1)], [WHOLE, IN_PART, NOT_NOW]),  # a part takes all that is left
    ],
)
@pytest.mark.parametrize("name", ["asked", ROOT])
def test_each_file_takes_its_money_from_those_after_it(
    ledger: Ledger, name: str, costs: list[tuple[int, int]], fits: list[Fit]
) -> None:
    with ledger.read() as tx:
        found = prospects(tx, {name: Budget(100, Period.DAY)}, files_of(*costs))
    assert [prospect.fit for prospect in found.values()] == fits


@pytest.mark.parametrize("name", ["asked", ROOT])
def test_a_file_that_two_budgets_hold_waits_for_the_later_one(ledger: Ledger, name: str) -> None:
    month = Budget(100, Period.MONTH)
    budgets = {"asked": Budget(100, Period.DAY), ROOT: Budget(100, Period.DAY), name: month}
    with ledger.read() as tx:
        first, second = prospects(tx, budgets, files_of((100, 1), (100, 1))).values()
        begins = month.next_start(tx.now)
    assert (first.fit, second.fit, second.until) == (WHOLE, NOT_NOW, begins)
