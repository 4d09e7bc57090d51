"""Each batch is counted by one event."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from batch_assets.core.ledger import Ledger, spend
from batch_assets.core.ledger.spend import NOTHING, Spend, SpendEvent

from ..support import World, texts
from .test_plans import noting


@pytest.fixture
def world(new_world: Callable[..., World], ledger_url: str) -> Iterator[World]:
    yield new_world(ledger=ledger_url)


def collected(world: World, files: int) -> list[str]:
    """Collect so many batches of two answers each; return their ids in order."""
    pipeline = world.pipeline(texts(2 * files), batching={"max_requests": 2})
    world.run(pipeline)
    return sorted(batch["id"] for batch in world.accepted())


def report(ledger: Ledger, run: str = "run") -> SpendEvent | None:
    with ledger.write("asked") as tx:
        return spend.report(tx, spend.not_logged(tx, "asked", [""]), run).get("")


def test_what_is_collected_is_reported_once(world: World) -> None:
    ids = collected(world, 3)
    event = report(world.root.ledger)
    assert event is not None
    assert event.batches == ids
    cost = round(world.table(world.pipeline(texts(6)))["cost_usd"].sum() * 10**12)
    assert (event.new, event.not_logged) == (Spend(cost, 0), NOTHING)
    with world.root.ledger.write("asked") as tx:
        spend.logged(tx, event.batches)
    assert report(world.root.ledger) is None


def test_what_another_run_was_to_report_is_not_reported_as_spent(world: World) -> None:
    collected(world, 1)
    with world.root.ledger.read() as tx:
        seen = spend.not_logged(tx, "asked", [""])
    first = report(world.root.ledger, "killed")
    assert first is not None
    with world.root.ledger.write("asked") as tx:
        assert spend.report(tx, seen, "slower") == {}, "its batches are in an event by now"
    second = report(world.root.ledger)
    assert second is not None
    assert (second.new, second.not_logged) == (NOTHING, first.new)


def test_the_number_of_statements_grows_neither_with_batches_nor_with_partitions(world: World) -> None:
    def statements(partitions: list[str]) -> int:
        for key in partitions:
            pipeline = world.pipeline(texts(4, key), batching={"max_requests": 2})
            world.build(pipeline, key)
            world.submit(pipeline, key)
            world.finish(pipeline, key)
        seen: list[tuple[str, Any]] = []
        with noting(seen), world.root.ledger.write("asked") as tx:
            events = spend.report(tx, spend.not_logged(tx, "asked", partitions), "run")
            spend.logged(tx, [batch_id for event in events.values() for batch_id in event.batches])
        assert [len(event.batches) for event in events.values()] == [2] * len(partitions)
        return len(seen)

    few = statements(["a"])
    assert 0 < statements(["b", "c", "d", "e"]) <= few
