"""An erasure that is killed is run again, and finishes: nothing of the row is left, and nothing else is lost."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from batch_assets.core.erase.run import erase
from batch_assets.core.open_root import open_root
from batch_assets.core.settings import Settings
from tests.forked import ForkServer

from ..support import World, environment
from .support import every_text

# To kill at every boundary: BATCH_ASSETS_ERASE_STEP=1 pytest tests/core/erase/test_erase_killed.py
STEP = int(os.environ.get("BATCH_ASSETS_ERASE_STEP") or 53)
_LAST = 200


@pytest.fixture
def children() -> Iterator[ForkServer]:
    with ForkServer(__name__) as server:
        yield server


def erase_one(env: dict[str, str], keys: list[str]) -> None:
    """Erase rows in a process of its own."""
    with open_root(Settings.from_env(env)) as root:
        erase(root, "asked", keys)


def test_killed_at_any_boundary_and_run_again(world: World, children: ForkServer) -> None:
    positions = range(1 + STEP // 2, _LAST, STEP)
    rows = {"stays": "a text that stays"}
    for at in positions:
        rows |= {
            f"alone-{at}x": f"secret-{at}x alone",
            f"first-{at}x": f"shared-{at}x",
            f"second-{at}x": f"shared-{at}x",
        }
    pipeline = world.pipeline(rows, batching={"max_requests": 1})
    answers = world.run(pipeline).set_index("id")["response_text"]
    env = environment(world.emulator.url, world.root.settings.root, world.root.settings.ledger_url)
    killed = 0
    for at in positions:
        keys = [f"alone-{at}x", f"first-{at}x"]
        (outcome,) = children.run((f"{__name__}:erase_one", {"env": env, "keys": keys}), die_at=at)
        assert outcome.error == "", outcome.error
        killed += outcome.killed
        world.query("update lease set until = 0")
        report = erase(world.root, "asked", keys)
        assert report.is_complete, (at, list(report.open_ends()))
        everything = every_text(world.path())
        for text in (*keys, f"secret-{at}x"):
            assert text not in everything, at
        for key in keys:
            answers = answers.drop(key)
        table = world.table(pipeline).set_index("id")
        assert table["response_text"].equals(answers), at
        assert table["shared_with"].dropna().isin(table.index).all()
        assert table["cost_usd"].isna().sum() == table["shared_with"].notna().sum()
    assert killed > len(positions) // 2
    accepted = len(world.accepted())
    world.run(pipeline)
    assert len(world.accepted()) == accepted
