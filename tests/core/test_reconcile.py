"""Replies that were lost: found again on the API's list, never paid twice, never mistaken for another's."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable

import pytest

from batch_assets.core.reconcile import reconcile

from .support import BATCHES, CREATE, LIST, World, params, texts

LOST = {"match": {**CREATE, "times": 1}, "action": {"drop": "after_commit"}}
NEVER_ARRIVED = {"match": {**CREATE, "times": 1}, "action": {"drop": "before_commit"}}


def submit_as_somebody_else(world: World, count: int) -> str:
    """A batch of the same workspace that is none of ours; returns its id."""
    requests = [{"custom_id": f"theirs-{at}", "params": params(f"theirs {at}")} for at in range(count)]
    call = urllib.request.Request(
        world.emulator.url + BATCHES,
        json.dumps({"requests": requests}).encode(),
        {"x-api-key": "any", "content-type": "application/json", "anthropic-version": "2023-06-01"},
    )
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(call) as reply:
        created: str = json.load(reply)["id"]
    return created


def ours(world: World) -> list[str]:
    """The custom_ids that were accepted of us."""
    return [custom_id for custom_id in world.asked() if not custom_id.startswith("theirs-")]


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("latency", [0, 3600])
def test_a_batch_whose_reply_was_lost_is_found_and_not_sent_again(world: World, latency: int, reset: bool) -> None:
    world.emulator.settings(latency=latency)
    world.emulator.faults([{**LOST, "action": {"drop": "after_commit", "reset": reset}}])
    pipeline = world.pipeline(texts(3))
    report = world.send(pipeline)
    assert world.calls()["POST /v1/messages/batches"] == 1
    (batch,) = world.accepted()
    assert report.submitted == [batch["id"]]
    assert world.query("select provisional from batch") == [(latency > 0,)]
    world.emulator.end_batches()
    world.finish(pipeline)
    assert list(world.table(pipeline)["batch_id"]) == [batch["id"]] * 3
    assert len(world.accepted()) == 1
    assert world.query("select provisional from batch") == [(False,)]


@pytest.mark.parametrize(
    "action", [{"status": 500}, {"status": 529}, {"status": 408}, {"status": 409}, {"drop": "before_commit"}]
)
def test_what_may_have_been_accepted_is_sent_again_only_after_the_grace_period(
    new_world: Callable[..., World], action: dict[str, object]
) -> None:
    world = new_world(BATCH_ASSETS_RECONCILE_GRACE="900")
    world.emulator.faults([{"match": {**CREATE, "times": 1}, "action": action}])
    pipeline = world.pipeline(texts(3))
    world.send(pipeline)
    world.forget_calls()
    for _ in range(2):
        report = world.submit(pipeline)
        assert list(report.waiting) == [world.files(pipeline)[0].id]
    assert world.states(pipeline) == ["unresolved"]
    world.query("update intent set last_byte_at = last_byte_at - 890")
    world.submit(pipeline)
    assert world.calls()["POST /v1/messages/batches"] == 0
    world.query("update intent set last_byte_at = last_byte_at - 20")
    world.submit(pipeline)
    world.finish(pipeline)
    assert (len(world.accepted()), world.calls()["POST /v1/messages/batches"]) == (1, 1)


def test_a_success_without_a_readable_answer_is_in_doubt_too(world: World) -> None:
    """HTTP 200 of a gateway, with something else than a batch in it."""
    world.emulator.faults(
        [{"match": {**CREATE, "times": 1}, "action": {"status": 200, "body": "<html>hi</html>"}}]
    )
    world.reopened(BATCH_ASSETS_RECONCILE_GRACE="900")
    pipeline = world.pipeline(texts(3))
    world.send(pipeline)
    assert world.states(pipeline) == ["unresolved"]


def test_an_ended_batch_of_somebody_else_with_the_same_count_is_ruled_out(world: World) -> None:
    theirs = submit_as_somebody_else(world, 3)
    world.emulator.faults([LOST])
    pipeline = world.pipeline(texts(3))
    world.send(pipeline)
    world.finish(pipeline)
    assert len(ours(world)) == 3
    assert theirs not in set(world.table(pipeline)["batch_id"])
    assert world.query("select count(*) from batch where state = 'foreign'") in ([(1,)], [(0,)])


def test_between_two_running_candidates_it_waits_and_does_not_guess(world: World) -> None:
    world.emulator.settings(latency=3600)
    pipeline = world.pipeline(texts(3))
    theirs = submit_as_somebody_else(world, 3)
    world.emulator.faults([LOST])
    world.send(pipeline)
    assert world.states(pipeline) == ["unresolved"]
    assert world.query("select count(*) from batch") == [(0,)]
    world.emulator.end_batches()
    world.finish(pipeline)
    assert len(ours(world)) == 3
    assert theirs not in set(world.table(pipeline)["batch_id"])


@pytest.mark.parametrize("fault", [LOST, NEVER_ARRIVED], ids=["hidden", "never arrived"])
def test_a_batch_adopted_by_mistake_is_disproved_by_its_results(world: World, fault: dict[str, object]) -> None:
    """Somebody else's is the only candidate; its results tell, and the search begins anew."""
    world.emulator.settings(latency=3600)
    pipeline = world.pipeline(texts(3))
    theirs = submit_as_somebody_else(world, 3)
    world.emulator.clock(advance=100)
    hidden = {"match": LIST, "action": {"hide_from_list": 50}}
    world.emulator.faults([fault, hidden])
    world.send(pipeline)
    assert world.query("select id, provisional from batch") == [(theirs, True)]
    world.emulator.clock(advance=100)
    world.emulator.end_batches()
    world.emulator.settings(latency=0)
    world.finish(pipeline)
    assert list(world.table(pipeline)["result_type"]) == ["succeeded"] * 3
    assert theirs not in set(world.table(pipeline)["batch_id"])
    assert len(ours(world)) == 3
    assert world.query("select state from batch where id = :id", id=theirs) == [("foreign",)]


def test_two_lost_files_of_equal_count_are_never_in_doubt_together(world: World) -> None:
    world.emulator.settings(latency=3600)
    world.emulator.faults([{"match": {**CREATE, "times": 2}, "action": {"drop": "after_commit"}}])
    world.emulator.faults([{"match": {**LIST, "nth": [3, 4]}, "action": {"status": 500}}])
    world.emulator.faults([{"match": {**LIST, "nth": [5]}, "action": {"status": 400}}])
    pipeline = world.pipeline(texts(4), batching={"max_requests": 2})
    world.build(pipeline)
    most = 0
    for _ in range(4):
        world.submit(pipeline)
        ((doubtful,),) = world.query("select count(*) from request_file where state = 'unresolved'")
        most = max(most, doubtful)
    world.emulator.end_batches()
    world.finish(pipeline)
    assert most <= 1
    assert sorted(world.table(pipeline)["custom_id"]) == sorted(world.asked())
    assert len(world.accepted()) == 2


def test_files_of_equal_count_wait_for_one_in_doubt_and_others_do_not(new_world: Callable[..., World]) -> None:
    world = new_world(BATCH_ASSETS_RECONCILE_GRACE="900")
    world.emulator.faults([NEVER_ARRIVED])
    pipeline = world.pipeline(texts(5), batching={"max_requests": 2})
    report = world.send(pipeline)
    assert world.states(pipeline) == ["unresolved", "ready", "submitted"]
    assert [said for said in report.waiting.values() if "in doubt" in said]


def test_a_batch_that_was_hidden_beyond_the_grace_period_is_reported_and_its_answers_are_kept(
    world: World,
) -> None:
    world.emulator.faults([LOST, {"match": LIST, "action": {"hide_from_list": 3600}}])
    pipeline = world.pipeline(texts(3))
    world.send(pipeline)
    world.finish(pipeline)
    first, second = world.accepted()
    assert set(world.table(pipeline)["batch_id"]) == {second["id"]}
    world.emulator.reset_faults()
    assert reconcile(world.root) == [first["id"]]
    world.collect(pipeline)
    assert world.query("select paid_twice, state from batch where id = :id", id=first["id"]) == [
        (True, "collected")
    ]
    assert world.path("asked", "responses", f"{first['id']}.parquet").exists()
    ((reason,),) = world.query(
        "select reason from history where entity = :id order by seq limit 1", id=first["id"]
    )
    assert "paid twice" in reason
    assert reconcile(world.root) == []
    world.build(pipeline)
    world.submit(pipeline)
    assert len(world.accepted()) == 2


def test_the_search_goes_over_as_many_pages_as_it_takes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page holds 1,000 batches, here 2."""
    monkeypatch.setattr("batch_assets.core.client.ApiClient.page.__defaults__", (2, None))
    pipeline = world.pipeline(texts(3))
    world.emulator.faults([LOST, {"match": {**LIST, "nth": [2, 3, 4]}, "action": {"status": 500}}])
    world.send(pipeline)
    assert world.states(pipeline) == ["unresolved"]
    for _ in range(7):
        submit_as_somebody_else(world, 1)
    world.forget_calls()
    world.submit(pipeline)
    assert world.states(pipeline) == ["submitted"]
    assert world.calls()["GET /v1/messages/batches"] >= 4


def test_the_servers_clock_counts_not_ours(world: World) -> None:
    """The API's clock is two hours behind: the anchor is a batch of its own time."""
    submit_as_somebody_else(world, 1)
    world.emulator.clock(skew=-7200)
    world.emulator.faults([LOST])
    pipeline = world.pipeline(texts(3))
    world.send(pipeline)
    assert world.states(pipeline) == ["submitted"]
    world.finish(pipeline)
    assert len(ours(world)) == 3
