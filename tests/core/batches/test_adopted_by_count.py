"""A running batch of someone else that a file in doubt adopts by its count: it is undone in any order of events.

It is neither deleted nor canceled, nothing else waits for it, and nothing is lost or paid for twice.
"""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable

import pytest

from batch_assets.core.batches.poll import poll
from batch_assets.core.batches.submit import submit_batches
from batch_assets.core.cancel import cancel
from batch_assets.core.pipeline.blocks import RetentionConfig
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.results.run import collect_results

from ..support import BATCHES, RESULTS, World, texts
from .test_reconcile import LOST, NEVER_ARRIVED, ours
from .test_whose_batch import HIDDEN, adopts_theirs

AT_ONCE = RetentionConfig(batches_days=0)
FATES = ["ends", "is canceled", "is deleted", "cannot be read for a while"]


def act(world: World, method: str, path: str) -> None:
    """Call the API as the owner of the other batch."""
    headers = {"x-api-key": "any", "anthropic-version": "2023-06-01"}
    call = urllib.request.Request(f"{world.emulator.url}{BATCHES}/{path}", method=method, headers=headers)
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(call) as reply:
        json.load(reply)


def tick(world: World, pipeline: Pipeline) -> None:
    """Do what the sensor does, once, and let time pass."""
    submit_batches(world.root, pipeline.name, unattended=True)
    poll(world.root, now=True)
    collect_results(world.root, pipeline.name, retention=AT_ONCE)
    for column in ("missing_since", "failing_since", "next_download_at"):
        world.query(f"update batch set {column} = {column} - 2000 where {column} is not null")
    world.query("update intent set last_byte_at = last_byte_at - 2000")


def befall(world: World, theirs: str, fate: str) -> None:
    if fate == "is canceled":
        act(world, "POST", f"{theirs}/cancel")
    world.emulator.end_batches(theirs)
    if fate == "is deleted":
        act(world, "DELETE", theirs)
    if fate == "cannot be read for a while":
        call = {**RESULTS, "path": RESULTS["path"].replace("*", theirs), "times": 2}
        world.emulator.faults([{"match": call, "action": {"status": 500}}])


@pytest.fixture
def waiting(new_world: Callable[..., World]) -> World:
    world = new_world(BATCH_ASSETS_RECONCILE_GRACE="900")
    world.emulator.settings(latency=3600)
    return world


@pytest.mark.parametrize("fate", FATES)
@pytest.mark.parametrize("order", [("theirs", "reopen", "ours"), ("ours", "reopen", "theirs")], ids="-".join)
def test_it_ends_right_in_each_order_of_events(waiting: World, fate: str, order: tuple[str, ...]) -> None:
    world = waiting
    theirs = adopts_theirs(world, LOST)
    pipeline = world.pipeline()
    (own,) = (batch["id"] for batch in world.accepted() if batch["id"] != theirs)
    calls = world.calls()
    for event in order:
        if event == "theirs":
            befall(world, theirs, fate)
        elif event == "ours":
            world.emulator.end_batches(own)
        else:
            world.reopened(BATCH_ASSETS_RECONCILE_GRACE="900")
        tick(world, pipeline)
    for _ in range(2):
        tick(world, pipeline)
    assert len(ours(world)) == 3, "nothing was sent again"
    assert list(world.table(pipeline)["result_type"]) == ["succeeded"] * 3
    assert set(world.table(pipeline)["batch_id"]) == {own}
    assert world.query("select count(*) from batch where provisional") == [(0,)]
    done = world.calls() - calls
    assert done["DELETE /v1/messages/batches/{id}"] == (fate == "is deleted")
    assert done["POST /v1/messages/batches/{id}/cancel"] == (fate == "is canceled")


@pytest.mark.parametrize("fate", ["ends", "is deleted"])
def test_a_create_that_never_arrived_is_sent_once_when_the_other_batch_is_disproved(
    waiting: World, fate: str
) -> None:
    world = waiting
    theirs = adopts_theirs(world, NEVER_ARRIVED)
    pipeline = world.pipeline()
    tick(world, pipeline)
    assert ours(world) == []
    befall(world, theirs, fate)
    for _ in range(4):
        tick(world, pipeline)
    world.emulator.end_batches()
    for _ in range(2):
        tick(world, pipeline)
    assert len(ours(world)) == 3
    assert list(world.table(pipeline)["result_type"]) == ["succeeded"] * 3


def test_neither_another_pipeline_nor_a_file_of_the_same_count_waits_for_it(waiting: World) -> None:
    adopts_theirs(waiting, LOST, batching={"max_requests": 3})
    pipeline = waiting.pipeline(batching={"max_requests": 3})
    waiting.submit(pipeline, unattended=True)
    other = waiting.pipeline(texts(3, "other"), name="other")
    waiting.send(other)
    assert waiting.states(pipeline) == ["submitted", "submitted"]
    assert waiting.states(other) == ["submitted"]


def test_a_cancel_lets_it_run_and_ends_ours_when_it_is_found(waiting: World) -> None:
    theirs = adopts_theirs(waiting, LOST)
    pipeline = waiting.pipeline()
    cancel(waiting.root, pipeline.name)
    befall(waiting, theirs, "ends")
    waiting.emulator.clock(advance=2 * HIDDEN)
    for _ in range(4):
        tick(waiting, pipeline)
    (own,) = (batch["id"] for batch in waiting.accepted() if batch["id"] != theirs)
    assert waiting.calls()["POST /v1/messages/batches/{id}/cancel"] == 0
    waiting.emulator.end_batches(own)
    for _ in range(2):
        tick(waiting, pipeline)
    assert len(ours(waiting)) == 3
    assert list(waiting.table(pipeline)["result_type"]) == ["succeeded"] * 3
