"""Batches adopted on their count alone: a proof overrides this, and no one else's batch is touched."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from batch_assets.core.batches.poll import poll
from batch_assets.core.batches.reconcile import reconcile
from batch_assets.core.batches.submit import submit_batches
from batch_assets.core.cancel import cancel
from batch_assets.core.open_root import open_root
from batch_assets.core.results.run import collect_results

from ..proxy import Proxy
from ..support import BATCHES, LIST, World, texts
from .test_reconcile import LATE, LOST, NEVER_ARRIVED, ours, submit_as_someone_else

# Batches younger than this do not show in the list; the emulator's clock goes on by more.
HIDDEN = 5


def grace_is_over(world: World) -> None:
    world.query("update intent set last_byte_at = last_byte_at - 2000")


def finish(world: World, **attributes: object) -> None:
    pipeline = world.pipeline(**attributes)
    world.emulator.settings(latency=0)
    world.emulator.end_batches()
    world.finish(pipeline)
    assert set(world.table(pipeline)["result_type"]) == {"succeeded"}
    custom_ids = ours(world)
    assert len(custom_ids) == len(set(custom_ids)) == len(world.table(pipeline))


@pytest.fixture
def waiting(new_world: Callable[..., World]) -> World:
    """A world whose batches run until the test ends them, with the usual grace period."""
    world = new_world(BATCH_ASSETS_RECONCILE_GRACE="900")
    world.emulator.settings(latency=3600)
    return world


def adopts_theirs(world: World, lost: dict[str, object], **attributes: object) -> str:
    """Lose a reply while the only batch that the list shows afterwards is someone else's, and return its id."""
    theirs = submit_as_someone_else(world, 3)
    world.emulator.clock(advance=2 * HIDDEN)
    world.emulator.faults([lost, LATE, {"match": LIST, "action": {"hide_from_list": HIDDEN}}])
    world.send(world.pipeline(texts(6 if attributes else 3), **attributes))
    world.emulator.reset_faults()
    world.emulator.clock(advance=2 * HIDDEN)
    assert world.query("select id, provisional from batch") == [(theirs, 1)]
    return theirs


def test_a_batch_is_proved_while_its_file_has_adopted_another(waiting: World) -> None:
    attributes = {"batching": {"max_requests": 3}}
    adopts_theirs(waiting, LOST, **attributes)
    pipeline = waiting.pipeline(**attributes)
    waiting.emulator.faults([LOST, LATE])
    waiting.submit(pipeline, unattended=True)
    assert waiting.states(pipeline) == ["submitted", "unresolved"]
    (own, _) = [batch["id"] for batch in waiting.accepted()][1:]
    waiting.emulator.end_batches(own)
    waiting.submit(pipeline, unattended=True)
    assert waiting.query("select file_id is not null, provisional from batch where id = :id", id=own) == [(1, 0)]
    finish(waiting, **attributes)


def test_a_batch_of_someone_else_is_not_canceled(waiting: World) -> None:
    adopts_theirs(waiting, LOST)
    pipeline = waiting.pipeline()
    report = cancel(waiting.root, pipeline.name)
    assert (report.canceled, len(report.in_doubt)) == ([], 1)
    assert waiting.calls()["POST /v1/messages/batches/{id}/cancel"] == 0


def test_a_file_being_sent_keeps_its_batch_from_one_in_doubt(new_world: Callable[..., World]) -> None:
    """While a file's reply is still in transit, its batch is the only candidate for another file."""
    attributes = {"batching": {"max_requests": 3}}
    plain = new_world()
    with Proxy(plain.emulator.url) as proxy:
        world = new_world(BATCH_ASSETS_EMULATOR=proxy.url, BATCH_ASSETS_RECONCILE_GRACE="900")
        world.emulator.settings(latency=3600)
        theirs = adopts_theirs(world, NEVER_ARRIVED, **attributes)
        pipeline = world.pipeline(**attributes)
        world.emulator.end_batches(theirs)
        poll(world.root, now=True)
        proxy.hold("reply")
        failed: list[BaseException] = []
        sender = threading.Thread(target=_submit, args=(world, failed))
        sender.start()
        assert proxy.held.wait(120)
        with open_root(world.root.settings) as other:
            assert collect_results(other, pipeline.name).collected == []  # theirs is disproved
            assert reconcile(other) == []
        proxy.let_go()
        sender.join(60)
        assert failed == []
        assert world.query("select count(*) from batch where provisional") == [(0,)]
        grace_is_over(world)
        finish(world, **attributes)


def _submit(world: World, failed: list[BaseException]) -> None:
    try:
        with open_root(world.root.settings) as root:
            submit_batches(root, "asked", unattended=True)
    except BaseException as error:
        failed.append(error)


def test_a_batch_that_turns_up_before_its_file_is_sent_again_is_adopted(new_world: Callable[..., World]) -> None:
    world = new_world(BATCH_ASSETS_RECONCILE_GRACE="900")
    pipeline = world.pipeline(texts(3))
    world.emulator.faults([LOST, {"match": LIST, "action": {"hide_from_list": 3600}}])
    world.send(pipeline)
    grace_is_over(world)
    assert reconcile(world.root) == []
    assert world.states(pipeline) == ["ready"]
    world.emulator.reset_faults()
    world.submit(pipeline, unattended=True)
    assert world.query("select paid_twice from batch") == [(0,)]
    finish(world)


def test_a_key_of_another_workspace_sends_nothing_again(waiting: World) -> None:
    submit_as_someone_else(waiting, 2)
    pipeline = waiting.pipeline(texts(3))
    waiting.emulator.faults([LOST])
    waiting.send(pipeline)
    (batch_id,) = [batch["id"] for batch in waiting.accepted()][1:]
    waiting.emulator.faults(
        [
            {"match": {"method": "GET", "path": f"{BATCHES}/*"}, "action": {"status": 404}},
            {"match": LIST, "action": {"hide_from_list": 99999}},
        ]
    )
    poll(waiting.root, now=True)
    waiting.query("update batch set missing_since = missing_since - 400")
    assert any("Does the API key belong" in problem for problem in poll(waiting.root, now=True).problems)
    grace_is_over(waiting)
    waiting.submit(pipeline, unattended=True)
    assert len(waiting.accepted()) == 2
    waiting.emulator.reset_faults()
    waiting.emulator.end_batches()
    poll(waiting.root, now=True)
    finish(waiting)
    assert set(waiting.table(pipeline)["batch_id"]) == {batch_id}


def test_a_key_of_another_workspace_sends_nothing_again_even_without_an_anchor(waiting: World) -> None:
    """Without an anchor, batches submitted afterwards show which workspace the list belongs to."""
    attributes = {"batching": {"max_requests": 2}}
    pipeline = waiting.pipeline(texts(3), **attributes)
    waiting.emulator.faults([NEVER_ARRIVED])
    waiting.send(pipeline)
    assert waiting.states(pipeline) == ["unresolved", "submitted"]
    waiting.emulator.faults(
        [
            {"match": {"method": "GET", "path": f"{BATCHES}/*"}, "action": {"status": 404}},
            {"match": LIST, "action": {"hide_from_list": 99999}},
        ]
    )
    grace_is_over(waiting)
    for missing in (0, 400):
        waiting.query("update batch set missing_since = missing_since - :more", more=missing)
        poll(waiting.root, now=True)
        assert "Does the API key belong" in str(waiting.submit(pipeline, unattended=True).waiting)
    assert len(waiting.accepted()) == 1
    waiting.emulator.reset_faults()
    waiting.submit(pipeline, unattended=True)
    finish(waiting, **attributes)
