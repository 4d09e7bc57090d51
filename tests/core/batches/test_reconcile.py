"""Lost replies: batches are found in the API's list, never paid twice, and never confused with someone else's."""

from __future__ import annotations

import contextlib
import json
import urllib.request
from collections.abc import Callable

import pytest

from batch_assets.core.batches.reconcile import reconcile
from batch_assets.core.errors import UnreachableError

from ..lost_ledger import end_grace_period
from ..support import BATCHES, CREATE, LIST, World, params, texts, write_rows

LOST = {"match": {**CREATE, "times": 1}, "action": {"drop": "after_commit"}}
NEVER_ARRIVED = {"match": {**CREATE, "times": 1}, "action": {"drop": "before_commit"}}
# The list that is read just before the upload is late: it does not show the batches that are there.
LATE = {"match": {**LIST, "times": 1}, "action": {"hide_from_list": 99999}}


def submit_as_someone_else(world: World, count: int) -> str:
    """Create a batch in the same workspace that is not ours, and return its id."""
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
    """Return the custom_ids of our accepted requests."""
    return [custom_id for custom_id in world.accepted_custom_ids() if not custom_id.startswith("theirs-")]


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
    "action",
    [
        {"status": 500},
        {"status": 504},
        {"status": 529},
        {"status": 408},
        {"status": 409},
        {"drop": "before_commit"},
        {"drop": "before_commit", "reset": True},
    ],
    ids=str,
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


@pytest.mark.parametrize(
    "body", ["<html>hi</html>", "", "null", "[]", '"x"', '{"id": "msgbatch_x"}', '{"id": 5, "created_at": ""}']
)
def test_a_success_without_a_readable_answer_is_in_doubt_too(world: World, body: str) -> None:
    """HTTP 200 of a gateway, with something else than a batch in it."""
    world.emulator.faults([{"match": {**CREATE, "times": 1}, "action": {"status": 200, "body": body}}])
    world.reopened(BATCH_ASSETS_RECONCILE_GRACE="900")
    pipeline = world.pipeline(texts(3))
    world.send(pipeline)
    assert world.states(pipeline) == ["unresolved"]
    world.query("update intent set last_byte_at = last_byte_at - 901")
    world.submit(pipeline)
    world.finish(pipeline)
    assert len(world.accepted_custom_ids()) == 3


def test_the_api_may_be_overloaded_for_minutes(world: World) -> None:
    """Each create is in doubt until the list shows its outcome. No request is lost, and none is sent twice."""
    world.emulator.faults(
        [{"match": {**CREATE, "times": 4}, "action": {"status": status}} for status in (529, 500, 504, 408)]
    )
    pipeline = world.pipeline(texts(3))
    world.send(pipeline)
    world.finish(pipeline)
    assert len(world.accepted_custom_ids()) == 3
    assert world.calls()["POST /v1/messages/batches"] == 5


def test_an_ended_batch_of_someone_else_with_the_same_count_is_ruled_out(world: World) -> None:
    theirs = submit_as_someone_else(world, 3)
    world.emulator.faults([LOST])
    pipeline = world.pipeline(texts(3))
    world.send(pipeline)
    world.finish(pipeline)
    assert len(ours(world)) == 3
    assert theirs not in set(world.table(pipeline)["batch_id"])
    assert world.query("select count(*) from batch where state = 'foreign'") in ([(1,)], [(0,)])


def test_with_two_running_candidates_the_file_waits(world: World) -> None:
    world.emulator.settings(latency=3600)
    pipeline = world.pipeline(texts(3))
    theirs = submit_as_someone_else(world, 3)
    world.emulator.faults([LOST, LATE])
    world.send(pipeline)
    assert world.states(pipeline) == ["unresolved"]
    assert world.query("select count(*) from batch") == [(0,)]
    world.emulator.end_batches()
    world.finish(pipeline)
    assert len(ours(world)) == 3
    assert theirs not in set(world.table(pipeline)["batch_id"])


def test_a_running_candidate_is_not_adopted_beside_an_ended_one_that_cannot_be_read(world: World) -> None:
    pipeline = world.pipeline(texts(3))
    ended = submit_as_someone_else(world, 3)
    world.emulator.settings(latency=3600)
    running = submit_as_someone_else(world, 3)
    unreadable = {"match": {"path": f"{BATCHES}/{ended}/results"}, "action": {"status": 403}}
    world.emulator.faults([NEVER_ARRIVED, LATE, unreadable])
    world.send(pipeline)
    (reason,) = world.submit(pipeline, unattended=True).waiting.values()
    assert ended in reason and running in reason
    assert world.query("select count(*) from batch") == [(0,)]
    assert world.states(pipeline) == ["unresolved"]


@pytest.mark.parametrize("fault", [LOST, NEVER_ARRIVED], ids=["hidden", "never arrived"])
def test_a_batch_adopted_by_mistake_is_disproved_by_its_results(world: World, fault: dict[str, object]) -> None:
    """The only candidate is someone else's batch. Its results prove this, and the search begins again."""
    world.emulator.settings(latency=3600)
    pipeline = world.pipeline(texts(3))
    theirs = submit_as_someone_else(world, 3)
    world.emulator.clock(advance=100)
    hidden = {"match": LIST, "action": {"hide_from_list": 50}}
    world.emulator.faults([fault, LATE, hidden])
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


def test_two_files_of_equal_count_are_never_in_doubt_together(world: World) -> None:
    world.emulator.settings(latency=3600)
    world.emulator.faults([{"match": {**CREATE, "times": 2}, "action": {"drop": "after_commit"}}])
    world.emulator.faults([{"match": {**LIST, "nth": [3, 4, 5]}, "action": {"status": 529}}])
    pipeline = world.pipeline(texts(4), batching={"max_requests": 2})
    world.build(pipeline)
    most = 0
    for _ in range(4):
        with contextlib.suppress(UnreachableError):
            world.submit(pipeline)
        ((doubtful,),) = world.query("select count(*) from request_file where state = 'unresolved'")
        most = max(most, doubtful)
    world.emulator.end_batches()
    world.finish(pipeline)
    assert most <= 1
    assert sorted(world.table(pipeline)["custom_id"]) == sorted(world.accepted_custom_ids())
    assert len(world.accepted()) == 2


def test_files_of_equal_count_wait_for_one_in_doubt_and_others_do_not(new_world: Callable[..., World]) -> None:
    world = new_world(BATCH_ASSETS_RECONCILE_GRACE="900")
    world.emulator.faults([NEVER_ARRIVED])
    pipeline = world.pipeline(texts(5), batching={"max_requests": 2})
    report = world.send(pipeline)
    assert world.states(pipeline) == ["unresolved", "ready", "submitted"]
    assert [reason for reason in report.waiting.values() if "outcome still unknown" in reason]


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


def test_the_search_reads_all_pages_back_to_the_anchor(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page holds 1,000 batches, here 2."""
    monkeypatch.setattr("batch_assets.core.api.client.ApiClient.page.__defaults__", (2, None))
    pipeline = world.pipeline(texts(3))
    world.emulator.faults([LOST, {"match": {**LIST, "nth": [2, 3, 4]}, "action": {"status": 500}}])
    world.send(pipeline)
    assert world.states(pipeline) == ["unresolved"]
    for _ in range(7):
        submit_as_someone_else(world, 1)
    world.forget_calls()
    world.submit(pipeline)
    assert world.states(pipeline) == ["submitted"]
    assert world.calls()["GET /v1/messages/batches"] >= 4


@pytest.mark.parametrize("skew", [-7200, -3600, 3600])
@pytest.mark.parametrize("earlier", [0, 1])
def test_the_servers_clock_counts_not_ours(world: World, skew: int, earlier: int) -> None:
    """The API's clock is hours off: the anchor is a batch of its own time, or the whole list is read."""
    world.emulator.clock(skew=skew)
    if earlier:
        submit_as_someone_else(world, 1)
    world.emulator.faults([LOST])
    pipeline = world.pipeline(texts(3))
    world.send(pipeline)
    assert world.states(pipeline) == ["submitted"]
    world.finish(pipeline)
    assert len(ours(world)) == 3


def test_a_batch_that_the_list_shows_only_after_a_while_is_found(new_world: Callable[..., World]) -> None:
    world = new_world(BATCH_ASSETS_RECONCILE_GRACE="900")
    world.emulator.faults([LOST, {"match": LIST, "action": {"hide_from_list": 60}}])
    pipeline = world.pipeline(texts(3))
    world.send(pipeline)
    assert world.states(pipeline) == ["unresolved"]
    world.emulator.clock(advance=50)
    world.submit(pipeline)
    assert world.states(pipeline) == ["unresolved"]
    world.emulator.clock(advance=50)
    world.submit(pipeline)
    assert world.states(pipeline) == ["submitted"]
    assert len(world.accepted()) == 1


@pytest.mark.parametrize(
    "second_page",
    [
        {"status": 500},
        {"status": 429},
        {"status": 200, "body": "<html>"},
        {"status": 200, "body": {"data": [], "has_more": True, "first_id": None, "last_id": None}},
        {"status": 200, "body": {"data": [{"id": 5}], "has_more": False, "first_id": None, "last_id": None}},
    ],
    ids=["500", "429", "garbage", "no cursor", "odd batch"],
)
def test_a_list_that_breaks_off_in_the_middle_settles_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch, second_page: dict[str, object]
) -> None:
    """The batch is on the second page and the grace period is over, but the file is not sent again."""
    monkeypatch.setattr("batch_assets.core.api.client.ApiClient.page.__defaults__", (1, None))
    pipeline = world.pipeline(texts(3))
    world.build(pipeline)
    world.emulator.faults([LOST, {"match": {**LIST, "nth": [2, 3, 4]}, "action": {"status": 500}}])
    world.submit(pipeline)
    submit_as_someone_else(world, 1)
    world.emulator.reset_faults()
    world.forget_calls()
    world.emulator.faults([{"match": {**LIST, "after": 1}, "action": second_page}])
    world.submit(pipeline)
    assert world.states(pipeline) == ["unresolved"]
    assert world.calls()["POST /v1/messages/batches"] == 0
    world.emulator.reset_faults()
    world.submit(pipeline)
    assert world.states(pipeline) == ["submitted"]
    assert len(ours(world)) == 3


def test_a_file_waits_for_a_strangers_batch_whose_results_cannot_be_read(world: World) -> None:
    pipeline = world.pipeline(texts(3))
    theirs = submit_as_someone_else(world, 3)
    unreadable = {"match": {"path": f"{BATCHES}/{theirs}/results"}, "action": {"status": 403}}
    world.emulator.faults([NEVER_ARRIVED, LATE, unreadable])
    world.send(pipeline)
    for _ in range(2):
        (reason,) = world.submit(pipeline, unattended=True).waiting.values()
        assert theirs in reason
    assert world.states(pipeline) == ["unresolved"]
    world.emulator.reset_faults()
    world.finish(pipeline)
    assert len(ours(world)) == 3


def test_a_first_line_with_a_lone_surrogate_rules_a_stranger_out(world: World) -> None:
    theirs = submit_as_someone_else(world, 3)
    line = '{"custom_id":"theirs-0","result":{"type":"succeeded","message":{"content":"\\ud800"}}}\n'
    odd = {"match": {"path": f"{BATCHES}/{theirs}/results"}, "action": {"status": 200, "body": line}}
    world.emulator.faults([NEVER_ARRIVED, LATE, odd])
    pipeline = world.pipeline(texts(3))
    world.send(pipeline)
    world.finish(pipeline)
    assert len(ours(world)) == 3
    assert world.query("select state from batch where id = :id", id=theirs) == [("foreign",)]


@pytest.mark.parametrize("first", [LOST, NEVER_ARRIVED])
@pytest.mark.parametrize("second", [None, LOST])
def test_files_of_equal_count_do_not_wait_for_a_doubt_that_lasts_for_hours(
    new_world: Callable[..., World], first: dict[str, object], second: dict[str, object] | None
) -> None:
    """By then the times at which their batches were created distinguish them."""
    world = new_world(BATCH_ASSETS_RECONCILE_GRACE="900")
    world.emulator.settings(latency=36000)
    world.emulator.faults([first, {"match": {**LIST, "nth": [2, 3, 4]}, "action": {"status": 500}}])
    doubtful = world.pipeline(texts(3))
    world.send(doubtful)
    world.emulator.reset_faults()
    for _ in range(2):
        submit_as_someone_else(world, 3)
    world.submit(doubtful, unattended=True)
    write_rows(world.folder / "more.jsonl", texts(3, "more"))
    other = world.pipeline("more.jsonl", name="other")
    (waiting,) = world.send(other).waiting.values()
    assert "same request count" in waiting
    world.emulator.clock(advance=1200)
    world.emulator.faults([second] if second is not None else [])
    assert len(world.submit(other, unattended=True).submitted) == 1
    assert world.query("select provisional from batch") == [(second is not None,)]
    assert world.states(doubtful) == ["unresolved"]
    world.emulator.settings(latency=0)
    world.emulator.end_batches()
    world.submit(doubtful, unattended=True)
    end_grace_period(world)
    world.submit(doubtful, unattended=True)
    for pipeline, rows in ((doubtful, texts(3)), (other, texts(3, "more"))):
        world.finish(pipeline)
        answers = world.table(pipeline).set_index("id")["response_text"]
        assert all(text in answers[key] for key, text in rows.items())
    assert len(set(ours(world))) == len(ours(world)) == 6


def test_a_damaged_receipt_whose_batch_is_gone_holds_no_other_pipeline(new_world: Callable[..., World]) -> None:
    world = new_world(BATCH_ASSETS_RECONCILE_GRACE="900")
    world.emulator.faults([LOST, {"match": {**LIST, "nth": [2, 3, 4]}, "action": {"status": 500}}])
    doubtful = world.pipeline(texts(3))
    report = world.build(doubtful)
    world.submit(doubtful)
    world.emulator.reset_faults()
    (world.submission_folder(doubtful, report) / "part-00000.batch.json").write_text("{")
    world.root.api.delete(world.accepted()[0]["id"])
    world.submit(doubtful, unattended=True)
    write_rows(world.folder / "more.jsonl", texts(3, "more"))
    other = world.pipeline("more.jsonl", name="other")
    assert world.send(other).submitted == []
    world.emulator.clock(advance=1200)
    assert len(world.submit(other, unattended=True).submitted) == 1
    assert world.states(doubtful) == ["unresolved"]


def test_a_file_that_was_set_aside_in_doubt_holds_no_other_file(world: World) -> None:
    """Earlier versions left its upload in doubt, without a limit to the time of its batch."""
    world.emulator.settings(latency=3600)
    write_rows(world.folder / "first.jsonl", texts(3, "first"))
    first = world.pipeline("first.jsonl", name="first")
    world.build(first)
    world.emulator.faults([NEVER_ARRIVED, {"match": {**LIST, "nth": [2, 3, 4]}, "action": {"status": 500}}])
    world.submit(first)
    world.emulator.reset_faults()
    world.query("update request_file set state = 'superseded'")
    assert world.query("select outcome, latest_created_at from intent") == [("unresolved", None)]
    assert len(world.send(world.pipeline(texts(3))).submitted) == 1
