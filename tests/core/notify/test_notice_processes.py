"""Notifications sent by processes that are killed, or that send at the same time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from batch_assets.core.ledger import notices
from batch_assets.core.notify.notices import send_notices
from batch_assets.core.open_root import open_root
from batch_assets.core.settings import Settings
from tests.forked import ForkServer
from tests.receivers import Receiver

from ..noticing import PATH, SECRET, WEBHOOK, announce, complete, noticed, now_due, states, tick
from ..support import World, make_pipeline, texts


@pytest.fixture(scope="module")
def children() -> Iterator[ForkServer]:
    with ForkServer(__name__) as server:
        yield server


def send_from(folder: str, env: dict[str, str]) -> None:
    """Send the notices of the same pipeline from another process."""
    pipeline = make_pipeline(Path(folder), {"path": "rows.jsonl", "key": "id"}, notify=[WEBHOOK])
    os.environ.update(env)
    with open_root(Settings.from_env()) as root:
        send_notices(root, noticed(pipeline))


def _work(world: World, hook: Receiver) -> tuple[str, dict[str, Any]]:
    settings = world.root.settings
    env = {
        "BATCH_ASSETS_EMULATOR": world.emulator.url,
        "BATCH_ASSETS_ROOT": settings.root,
        "BATCH_ASSETS_LEDGER": settings.ledger_url,
        "HOOK_URL": hook.url + PATH,
        "HOOK_SECRET": SECRET,
    }
    return f"{__name__}:send_from", {"folder": str(world.folder), "env": env}


def test_a_process_killed_at_any_point_neither_loses_a_message_nor_sends_it_forever(
    world: World, hook: Receiver, children: ForkServer
) -> None:
    pipeline = world.pipeline(texts(1), notify=[WEBHOOK])
    complete(world, pipeline)
    received = []
    for boundary in count(1, 2):
        hook.received.clear()
        (outcome,) = children.run(_work(world, hook), die_at=boundary)
        assert not outcome.error
        now_due(world)
        assert tick(world, pipeline) == []
        received.append(len(hook.received))
        assert states(world) == ["sent"]
        assert len({message.json["id"] for message in hook.received}) == 1
        world.query("delete from notice")
        if not outcome.killed:
            break
    assert set(received) == {1, 2}  # twice if it died after sending the message and before recording that
    assert len(received) > 5


def test_processes_that_send_at_the_same_time_send_one_message(
    new_world: Callable[..., World], ledger_url: str, hook: Receiver, children: ForkServer
) -> None:
    world = new_world(ledger=ledger_url)
    pipeline = world.pipeline(texts(1), notify=[WEBHOOK])
    complete(world, pipeline)
    outcomes = children.run(*[_work(world, hook)] * 4)
    assert not any(outcome.error for outcome in outcomes)
    assert len(hook.received) == 1
    assert states(world) == ["sent"]
    world.query("update notice set state = 'waiting', next_try_at = 0")
    with world.root.ledger.read() as tx:
        (seen,) = notices.due(tx, ["asked"])
    for is_first in (True, False):  # two processes that read the notice at the same time
        with world.root.ledger.write() as tx:
            assert notices.claim(tx, seen, 60.0) is is_first


def test_a_rebuilt_ledger_sends_messages_with_the_same_ids(world: World, hook: Receiver) -> None:
    pipeline = world.pipeline(texts(1), notify=[WEBHOOK])
    complete(world, pipeline)
    tick(world, pipeline)
    world.root.close()
    for path in Path(world.root.settings.root).glob("ledger.db*"):
        path.unlink()
    world.reopened()
    tick(world, pipeline)
    world.finish(pipeline)
    announce(world, pipeline)
    tick(world, pipeline)
    assert [message.json["id"] for message in hook.received] == [hook.received[0].json["id"]] * 2
