"""Processes that make live calls, killed or several at once: no call is repeated, and the bill adds up."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq
import pytest

from batch_assets.core.batches.caps import record_caps
from batch_assets.core.batches.submit import submit_batches
from batch_assets.core.errors import BatchAssetsError
from batch_assets.core.open_root import open_root
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.prices.money import PICODOLLARS
from batch_assets.core.results.run import collect_results
from batch_assets.core.settings import Settings
from batch_assets.core.spend.build import build_spend
from tests.forked import PACKAGES, ForkServer

from .lost_ledger import delete_ledger
from .support import World, environment, make_pipeline, texts

ROWS = 6
# What the batch reserves, and four live calls of at most $0.000075.
CAP = ROWS * 0.0000375 + 4 * 0.000075
# Where processes are killed: between reading the ledger, and the end of the run.
POINTS = int(os.environ.get("BATCH_ASSETS_RESCUE_POINTS") or 2)


@pytest.fixture(scope="module")
def children() -> Iterator[ForkServer]:
    modules = ("batch_assets.core.api.bodies", "batch_assets.core.results.live_answers")
    with ForkServer(*PACKAGES, *modules, __name__, env={"BATCH_ASSETS_LEASE_SECONDS": "0.5"}) as server:
        yield server


def pipeline_of(folder: str) -> Pipeline:
    rescue = {"live": {"max_in_flight": 2}}
    budget = {"max_usd": CAP, "per": "month"}
    dataset = {"path": "rows.jsonl", "key": "id"}
    return make_pipeline(Path(folder), dataset, deadline="6h", rescue=rescue, budget=budget)


def work(env: dict[str, str], folder: str, rounds: int) -> None:
    """Do what runs of the pipeline do after its deadline."""
    with open_root(Settings.from_env(env)) as root:
        record_caps(root, [pipeline_of(folder)])
        for _ in range(rounds):
            try:
                submit_batches(root, "asked", unattended=True)
                collect_results(root, "asked")
            except BatchAssetsError:  # another process does the same
                continue


def run(
    children: ForkServer, world: World, *, die_at: int | None = None, rounds: int = 1, processes: int = 1
) -> bool:
    """Run processes. Return whether one of them was killed."""
    settings = world.root.settings
    env = environment(world.emulator.url, settings.root, settings.ledger_url)
    each = {"env": env, "folder": str(world.folder), "rounds": rounds}
    outcomes = children.run(*[(f"{__name__}:work", each)] * processes, die_at=die_at)
    errors = [outcome.error for outcome in outcomes if outcome.error]
    assert not errors, "\n".join(errors)
    return any(outcome.killed for outcome in outcomes)


def begun(new_world: Callable[..., World], ledger: str | None) -> World:
    """A world whose batch runs when its deadline has passed."""
    world = new_world(**({"ledger": ledger} if ledger else {}))
    world.pipeline(texts(ROWS))
    world.send_late(pipeline_of(str(world.folder)))
    return world


def check_bill(world: World) -> None:
    """Compare what live calls cost by the emulator's bill, and by the table of what was spent."""
    calls = world.live_calls()
    asked = Counter(call["params"] for call in calls)
    assert max(asked.values(), default=1) == 1, "no call is repeated"
    stored: set[Any] = set()
    for path in world.path("asked", "responses").glob("live.*.parquet"):
        stored |= set(pq.read_table(path)["message_id"].to_pylist())
    of_stored = sum(call["picodollars"] for call in calls if call["id"] in stored)
    rows = [row for row in build_spend(world.root).rows if row.tier == "live"]
    known = sum(row.cost for row in rows)
    assert known == of_stored, "what answers cost is known to the picodollar"
    unknown = [row.high for row in rows if row.kind == "unknown"]
    rest = sum(call["picodollars"] for call in calls) - of_stored
    assert None not in unknown and rest <= sum(high or 0 for high in unknown)
    ((counted,),) = world.query("select sum(worst) from reservation")
    assert counted <= CAP * PICODOLLARS
    ((live,),) = world.query("select coalesce(sum(worst), 0) from reservation where batch_id like 'live.%'")
    assert sum(call["picodollars"] for call in calls) <= live


@pytest.mark.parametrize("point", range(POINTS))
def test_killed_at_any_point_no_call_is_repeated(
    children: ForkServer, new_world: Callable[..., World], ledger_url: str, point: int
) -> None:
    world = begun(new_world, ledger_url)
    died = run(children, world, die_at=40 + point * 75)
    check_bill(world)
    run(children, world, die_at=55 + point * 50)
    check_bill(world)
    run(children, world, rounds=4)
    check_bill(world)
    asked = {orjson.loads(call["params"])["messages"][0]["content"] for call in world.live_calls()}
    done = collect_results(world.root, "asked").results
    assert done is not None
    lost = ROWS - done.counts["succeeded"]
    assert died or not lost
    assert len(asked) + lost >= ROWS - 1, "whatever the budget allows is asked"


def test_two_processes_at_once_ask_each_row_once(
    children: ForkServer, new_world: Callable[..., World], ledger_url: str
) -> None:
    world = begun(new_world, ledger_url)
    run(children, world, rounds=3, processes=3)
    check_bill(world)
    assert len(world.live_calls()) == ROWS


def test_killed_and_the_ledger_lost_no_call_is_repeated(
    children: ForkServer, new_world: Callable[..., World]
) -> None:
    world = begun(new_world, None)
    run(children, world, die_at=150)
    delete_ledger(world)
    world.reopened()
    world.submit(pipeline_of(str(world.folder)))
    world.pass_deadline()
    run(children, world, rounds=4)
    check_bill(world)
