"""When 80 % of a budget is spent, targets are notified once for the budget and its period."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from batch_assets.core.batches.caps import record_caps
from batch_assets.core.ledger import budgets, notices
from batch_assets.core.ledger.near_caps import near_caps
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.prices.money import PICODOLLARS
from tests.receivers import Receiver

from ..noticing import WEBHOOK, tick
from ..support import World, texts

CENT = PICODOLLARS // 100


def budgeted(world: World, usd: float | None, per: str = "month", **more: Any) -> Pipeline:
    budget = {"max_usd": usd, "per": per} if usd is not None else None
    pipeline = world.pipeline(texts(2), budget=budget, notify=[WEBHOOK], **more)
    record_caps(world.root, [pipeline])
    return pipeline


def spend(world: World, picodollars: int) -> None:
    """Make each batch that is settled cost an amount."""
    world.query("update reservation set worst = :cost where state = 'settled'", cost=picodollars)


def near(world: World) -> list[str]:
    with world.root.ledger.read() as tx:
        return [
            str(each) for each in near_caps(tx, budgets.recorded(tx) | {budgets.ROOT: world.root.settings.budget})
        ]


def test_a_month_is_reported_once_for_each_cap(world: World, hook: Receiver) -> None:
    world.run(budgeted(world, 1.0))
    spend(world, 80 * CENT - 1)
    assert tick(world, budgeted(world, 1.0)) == near(world) == hook.received == []
    spend(world, 80 * CENT)
    for _ in range(2):
        assert tick(world, budgeted(world, 1.0)) == []
    (message,) = hook.received
    assert message.json["event"] == "budget"
    text = "asked: 80 % of the budget of $1.00 per month is spent: $0.8000"
    assert near(world) == [text] and message.json["message"].splitlines()[0] == text
    world.query("update notice set created_at = 0")  # longer ago than notices are looked for
    assert tick(world, budgeted(world, 1.0)) == [] and len(hook.received) == 1
    assert tick(world, budgeted(world, 0.9)) == [] and len(hook.received) == 2, "another cap"
    world.query("update reservation set day = day - 40")
    assert near(world) == [], "another month"
    day = (datetime.now(UTC).replace(tzinfo=None) - datetime(1970, 1, 1)).days
    world.query("update reservation set day = :day", day=day)
    budgeted(world, None)
    assert near(world) == [], "no budget"


def test_the_budget_of_the_root_is_reported_once_to_a_target_of_several_pipelines(
    world: World, hook: Receiver
) -> None:
    world.reopened(BATCH_ASSETS_BUDGET="1 per month")
    one, two = budgeted(world, None), budgeted(world, None, name="other")
    world.run(one)
    world.run(two)
    spend(world, 45 * CENT)
    assert tick(world, one, two) == []
    (message,) = hook.received
    text = "90 % of the root's budget of $1.00 per month is spent: $0.9000"
    assert message.json["message"].splitlines()[0] == text == near(world)[0]


def test_a_run_is_reported_while_it_goes_on_with_what_is_reserved(world: World, hook: Receiver) -> None:
    world.emulator.settings(latency=3600)
    pipeline = budgeted(world, 1.0, "run", batching={"max_requests": 1})
    world.send(pipeline)
    world.emulator.end_batches(world.accepted()[0]["id"])
    world.collect(pipeline)
    spend(world, 85 * CENT)
    assert tick(world, pipeline) == []
    (message,) = hook.received
    assert message.json["message"].startswith("asked: 85 % of the budget of $1.00 per run is spent: $0.8500, and ")
    assert "are reserved" in message.json["message"]
    world.emulator.end_batches()
    world.finish(pipeline)
    assert near(world) == [], "it is over"


def test_a_budget_for_each_of_many_runs_takes_no_statement_that_is_too_long(world: World) -> None:
    """SQLite and PostgreSQL limit the number of values in one."""
    with world.root.ledger.read() as tx:
        assert notices.existing(tx, [str(number) for number in range(260_000)]) == set()
