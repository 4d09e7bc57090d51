"""Eight processes at one ledger, killed and started again: the bill never passes the caps, and nothing gets stuck.

`make chaos-budget` repeats it: they are killed at other positions in each of `BATCH_ASSETS_BUDGET_TRIALS` trials.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from batch_assets.core.batches.caps import record_caps
from batch_assets.core.batches.poll import poll
from batch_assets.core.batches.submit import submit_batches
from batch_assets.core.errors import BatchAssetsError
from batch_assets.core.ledger import submissions
from batch_assets.core.open_root import open_root
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.prices.money import PICODOLLARS
from batch_assets.core.requests.build import build_requests
from batch_assets.core.results.run import collect_results
from batch_assets.core.settings import Settings
from tests.forked import PACKAGES, ForkServer

from .support import World, environment, make_pipeline, texts, write_rows

PROCESSES, ROWS = 8, 4
WAVES = 2  # the number of times that all of them are killed
TRIALS = int(os.environ.get("BATCH_ASSETS_BUDGET_TRIALS") or 1)
# Two pipelines share each budget of their own; the root's is for all of them.
NAMES = [f"p{number}" for number in range(PROCESSES // 2)]
ONE = 0.00004  # what a request can cost at most
OWN, ROOT = 3 * ONE, 7 * ONE

# Imported only when the API is called. Otherwise imports take most of the time of these short processes.
_OURS = ("batch_assets.core.api.bodies",)


@pytest.fixture(scope="module")
def children() -> Iterator[ForkServer]:
    with ForkServer(*PACKAGES, *_OURS, __name__, env={"BATCH_ASSETS_LEASE_SECONDS": "0.5"}) as server:
        yield server


def pipeline_of(folder: str, name: str, usd: float) -> Pipeline:
    dataset = {"path": f"{name}.jsonl", "key": "id"}
    budget = {"max_usd": usd, "per": "month"}
    return make_pipeline(Path(folder), dataset, name=name, budget=budget, batching={"max_requests": 2})


def work(env: dict[str, str], folder: str, name: str, usd: float, rounds: int) -> None:
    """Do what runs of one pipeline do: build it once, then send, poll and collect."""
    with open_root(Settings.from_env(env)) as root:
        pipeline = pipeline_of(folder, name, usd)
        record_caps(root, [pipeline])
        with root.ledger.read() as tx:
            is_built = submissions.newest(tx, name, "") is not None
        for _ in range(rounds):
            try:
                if not is_built:
                    build_requests(root, pipeline)
                    is_built = True
                submit_batches(root, name)
                poll(root, now=True)
                collect_results(root, name)
            except BatchAssetsError:  # another process does the same
                continue


def run(
    children: ForkServer,
    world: World,
    usd: float,
    *,
    die_at: int | None = None,
    rounds: int,
    processes: int = PROCESSES,
    **more: str,
) -> None:
    settings = world.root.settings
    env = environment(world.emulator.url, settings.root, settings.ledger_url, **more)
    each = {"env": env, "folder": str(world.folder), "usd": usd, "rounds": rounds}
    works = [(f"{__name__}:work", {**each, "name": NAMES[number % len(NAMES)]}) for number in range(processes)]
    outcomes = children.run(*works, die_at=die_at)
    errors = [outcome.error for outcome in outcomes if outcome.error]
    assert not errors, "\n".join(errors)


def bill(world: World) -> dict[str, int]:
    """What each pipeline would be charged, in picodollars, by the custom_ids of its requests."""
    accepted = {batch["id"]: batch["custom_ids"] for batch in world.accepted(custom_ids=True)}
    charged = dict.fromkeys(NAMES, 0)
    for entry in world.emulator.bill()["batches"]:
        if entry["id"] in accepted:
            charged[accepted[entry["id"]][0].split("-")[0]] += entry["picodollars"]
    return charged


@pytest.mark.parametrize("trial", range(TRIALS))
def test_the_bill_of_eight_processes_never_passes_the_caps(
    children: ForkServer, new_world: Callable[..., World], ledger_url: str, trial: int
) -> None:
    world = new_world(ledger=ledger_url, BATCH_ASSETS_TRANSFERS="4")
    for name in NAMES:
        write_rows(world.folder / f"{name}.jsonl", texts(ROWS, name))
    root_budget = {"BATCH_ASSETS_BUDGET": f"{ROOT:.6f} per month"}

    def check() -> dict[str, int]:
        charged = bill(world)
        assert sum(charged.values()) <= ROOT * PICODOLLARS
        assert max(charged.values()) <= OWN * PICODOLLARS
        reserved = {
            row.pipeline: int(row.worst)
            for row in world.query("select pipeline, sum(worst) as worst from reservation group by pipeline")
        }
        assert sum(reserved.values()) <= ROOT * PICODOLLARS
        assert max(reserved.values(), default=0) <= OWN * PICODOLLARS
        return charged

    world.emulator.settings(latency=3600)  # nothing comes free: two processes that take the same money show
    run(children, world, OWN, rounds=1, **root_budget)
    check()
    world.emulator.settings(latency=0.0)
    world.emulator.end_batches()

    for wave in range(WAVES):
        run(children, world, OWN, die_at=60 + 83 * wave + 37 * trial % 300, rounds=3, **root_budget)
        check()
    run(children, world, OWN, rounds=2, **root_budget)
    charged = check()
    assert sum(charged.values()) > 0, "the work got going"
    ((reserved,),) = world.query("select sum(worst) from reservation")
    assert sum(charged.values()) <= reserved <= ROOT * PICODOLLARS
    for _ in range(10):
        run(children, world, 1.0, rounds=3, processes=len(NAMES))
        if len(set(world.accepted_custom_ids())) == len(NAMES) * ROWS:
            break
    assert len(set(world.accepted_custom_ids())) == len(NAMES) * ROWS, "raised, everything goes"
    run(children, world, 1.0, rounds=1, processes=len(NAMES))
    ((settled,),) = world.query("select sum(worst) from reservation where state = 'settled'")
    assert settled == sum(bill(world).values())
