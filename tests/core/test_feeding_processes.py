"""Processes that send at the same time, killed and started again: the queue never has more than the limit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from batch_assets.core.batches.feeding import note_turns
from batch_assets.core.batches.poll import poll
from batch_assets.core.batches.submit import submit_batches
from batch_assets.core.errors import BatchAssetsError
from batch_assets.core.ledger import submissions
from batch_assets.core.open_root import open_root
from batch_assets.core.requests.build import build_requests
from batch_assets.core.settings import Settings
from tests.forked import ForkServer

from .support import World, environment, make_pipeline, texts, write_rows

NAMES, ROWS, LIMIT = ("p0", "p1", "p2"), 4, 6


@pytest.fixture(scope="module")
def children() -> Iterator[ForkServer]:
    with ForkServer(__name__, env={"BATCH_ASSETS_LEASE_SECONDS": "0.5"}) as server:
        yield server


def work(env: dict[str, str], folder: str, name: str) -> None:
    """Build a pipeline once, then send and poll."""
    with open_root(Settings.from_env(env)) as root:
        pipeline = make_pipeline(
            Path(folder), {"path": f"{name}.jsonl", "key": "id"}, name=name, batching={"max_requests": 2}
        )
        with root.ledger.read() as tx:
            is_built = submissions.newest(tx, name, "") is not None
        for _ in range(2):
            try:
                if not is_built:
                    build_requests(root, pipeline)
                    is_built = True
                submit_batches(root, name)
                poll(root, now=True)
                note_turns(root)
            except BatchAssetsError:  # another process does the same
                continue


def test_processes_never_fill_the_queue_above_the_limit(
    children: ForkServer, new_world: Callable[..., World], ledger_url: str
) -> None:
    world = new_world(ledger=ledger_url, BATCH_ASSETS_MAX_IN_FLIGHT=str(LIMIT))
    # The emulator refuses what is above its limit, so a refusal would show that too much was sent.
    world.emulator.settings(latency=3600, queue_limit=LIMIT)
    for name in NAMES:
        write_rows(world.folder / f"{name}.jsonl", texts(ROWS, name))
    settings = world.root.settings
    more = {"BATCH_ASSETS_MAX_IN_FLIGHT": str(LIMIT), "BATCH_ASSETS_TRANSFERS": "3"}
    env = environment(world.emulator.url, settings.root, settings.ledger_url, **more)

    def run(die_at: int | None) -> None:
        works = [(f"{__name__}:work", {"env": env, "folder": str(world.folder), "name": name}) for name in NAMES]
        outcomes = children.run(*works, *works[:1], die_at=die_at)
        errors = [outcome.error for outcome in outcomes if outcome.error]
        assert not errors, "\n".join(errors)
        ((refused,),) = world.query("select count(*) from intent where outcome = 'not_sent' and body_complete")
        assert refused == 0

    run(die_at=150)
    for _ in range(20):
        run(die_at=None)
        if len(set(world.accepted_custom_ids())) == len(NAMES) * ROWS:
            break
        world.emulator.end_batches()
    ids = world.accepted_custom_ids()
    assert len(ids) == len(set(ids)) == len(NAMES) * ROWS
