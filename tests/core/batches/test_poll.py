"""Polling open batches: as few calls as possible, patience with 404, and failures that a poll survives."""

from __future__ import annotations

import os
import time
import urllib.request
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa

from batch_assets.core.api.sdk_client import READ_SECONDS
from batch_assets.core.batches.poll import poll
from batch_assets.core.open_root import open_root
from batch_assets.core.settings import Settings
from tests.forked import ForkServer

from ..support import BATCHES, LIST, World, environment, texts

RETRIEVE = {"method": "GET", "path": f"{BATCHES}/*"}
ONE, PAGE = "GET /v1/messages/batches/{id}", "GET /v1/messages/batches"


def _open(world: World, batches: int) -> list[str]:
    """Create a number of open batches with one request each."""
    world.emulator.settings(latency=3600)
    pipeline = world.pipeline(texts(batches), batching={"max_requests": 1})
    submitted = world.send(pipeline).submitted
    world.forget_calls()
    return submitted


def _states(world: World) -> list[str]:
    return [row[0] for row in world.query("select state from batch order by created_at, id")]


def test_without_open_batches_no_call_is_made(world: World) -> None:
    assert poll(world.root, now=True).calls == 0
    world.run(world.pipeline(texts(1)))
    world.forget_calls()
    assert poll(world.root, now=True).calls == 0
    assert world.calls().total() == 0


@pytest.mark.parametrize(("batches", "pages", "singles"), [(1, 0, 1), (2, 0, 2), (3, 1, 0), (7, 1, 0)])
def test_many_batches_are_polled_with_one_page_of_the_list(
    world: World, batches: int, pages: int, singles: int
) -> None:
    _open(world, batches)
    report = poll(world.root, now=True)
    assert (world.calls()[PAGE], world.calls()[ONE]) == (pages, singles)
    assert report.calls == pages + singles
    world.emulator.end_batches()
    report = poll(world.root, now=True)
    assert len(report.changed["asked"]) == batches
    assert _states(world) == ["ended"] * batches


def test_a_batch_that_is_not_in_the_list_is_polled_alone(world: World) -> None:
    _open(world, 4)
    world.emulator.faults([{"match": {"method": "GET", "path": BATCHES}, "action": {"hide_from_list": 9999}}])
    poll(world.root, now=True)
    assert (world.calls()[PAGE], world.calls()[ONE]) == (1, 4)


def test_a_batch_is_not_polled_before_it_is_due(world: World) -> None:
    _open(world, 1)
    poll(world.root)
    world.forget_calls()
    world.query("update batch set next_poll_at = next_poll_at + 1000")
    assert poll(world.root).calls == 0
    world.query("update batch set next_poll_at = 0")
    assert poll(world.root).calls == 1


def test_old_batches_are_polled_less_often(world: World) -> None:
    _open(world, 1)
    intervals = []
    for age in (0, 1000, 50_000):
        world.query("update batch set next_poll_at = 0, submitted_at = submitted_at - :age", age=age)
        poll(world.root)
        ((interval,),) = world.query(
            "select next_poll_at - strftime('%s', 'now') from batch"  # whole seconds of the same clock
        )
        intervals.append(interval)
    assert intervals[0] < 5 < 40 < intervals[1] < 60 < 290 < intervals[2] <= 302


def test_the_time_to_wait_that_the_api_names_is_a_floor(
    new_world: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against a real endpoint, not one called an emulator, whose batches take seconds only."""
    world = new_world()
    monkeypatch.setenv("ANTHROPIC_API_KEY", "any-key")
    variables = {"ANTHROPIC_BASE_URL": world.emulator.url, "ANTHROPIC_API_KEY": "any-key"}
    env = environment("", world.root.settings.root, world.root.settings.ledger_url, **variables)
    world.root = open_root(Settings.from_env(env))
    _open(world, 1)
    world.emulator.faults([{"match": RETRIEVE, "action": {"headers": {"retry-after": "120"}}}])
    poll(world.root, now=True)
    ((wait,),) = world.query("select next_poll_at - strftime('%s', 'now') from batch")
    assert 110 < wait <= 121
    world.root.close()


def test_a_fresh_batch_may_be_unknown_for_a_while(world: World) -> None:
    _open(world, 1)
    world.emulator.faults([{"match": RETRIEVE, "action": {"not_found_for": 9999}}])
    for _ in range(3):
        report = poll(world.root, now=True)
        assert (report.problems, report.changed) == ([], {})
    assert _states(world) == ["open"]
    world.emulator.reset_faults()
    world.emulator.end_batches()
    poll(world.root, now=True)
    assert _states(world) == ["ended"]


def test_a_batch_that_stays_unknown_is_unreachable_and_recovers(world: World) -> None:
    (batch_id,) = _open(world, 1)
    world.emulator.faults([{"match": RETRIEVE, "action": {"not_found_for": 9999}}])
    poll(world.root, now=True)
    world.query("update batch set missing_since = missing_since - 301")
    (problem,) = poll(world.root, now=True).problems
    assert batch_id in problem
    assert "the API key belong to the workspace" in problem
    assert _states(world) == ["unreachable"]
    pipeline = world.pipeline()
    assert world.build(pipeline).written == 0  # what it holds is not sent again
    world.submit(pipeline)
    assert len(world.accepted()) == 1
    assert len(poll(world.root, now=True).problems) == 1
    world.emulator.reset_faults()
    world.emulator.end_batches()
    poll(world.root, now=True)
    assert _states(world) == ["ended"]
    world.finish(pipeline)
    assert len(world.accepted()) == 1


def test_separate_404s_do_not_add_up(world: World) -> None:
    """Only an unbroken series of 404 counts."""
    _open(world, 1)
    world.emulator.faults([{"match": {**RETRIEVE, "nth": [1, 3]}, "action": {"not_found_for": 9999}}])
    poll(world.root, now=True)
    world.query("update batch set missing_since = missing_since - 301")
    poll(world.root, now=True)
    poll(world.root, now=True)
    assert _states(world) == ["open"]


@pytest.mark.parametrize(
    "body", ["<html>", "", "[]", '"x"', "{}", '{"id": 5}', '{"id": "x", "request_counts": 5}']
)
@pytest.mark.parametrize("batches", [1, 3])
def test_an_answer_that_is_no_batch_is_a_problem_and_changes_nothing(
    world: World, body: str, batches: int
) -> None:
    _open(world, batches)
    world.emulator.faults([{"match": {"method": "GET"}, "action": {"status": 200, "body": body}}])
    assert poll(world.root, now=True).problems
    assert _states(world) == ["open"] * batches
    world.emulator.reset_faults()
    assert poll(world.root, now=True).problems == []


@pytest.mark.parametrize("status", [400, 401, 403])
def test_a_refused_poll_is_a_problem_and_changes_nothing(world: World, status: int) -> None:
    _open(world, 3)
    world.emulator.faults([{"match": {"method": "GET"}, "action": {"status": status}}])
    (problem,) = poll(world.root, now=True).problems
    assert f"HTTP {status}" in problem
    assert _states(world) == ["open"] * 3


def test_a_refused_poll_of_one_batch_does_not_hide_the_others(world: World) -> None:
    first, second = _open(world, 2)
    world.emulator.end_batches()
    world.emulator.faults([{"match": {"path": f"{BATCHES}/{first}"}, "action": {"status": 400}}])
    report = poll(world.root, now=True)
    assert report.changed == {"asked": [second]}
    assert len(report.problems) == 1


def test_a_failed_poll_of_one_batch_does_not_hide_the_others(world: World) -> None:
    first, second = _open(world, 2)
    world.emulator.end_batches()
    world.emulator.faults([{"match": {"path": f"{BATCHES}/{first}"}, "action": {"status": 500}}])
    report = poll(world.root, now=True)
    assert report.changed == {"asked": [second]}
    assert first in report.problems[0]


def test_a_rate_limit_ends_the_poll(world: World) -> None:
    _open(world, 2)
    world.emulator.faults([{"match": RETRIEVE, "action": {"status": 429}}])
    assert "HTTP 429" in poll(world.root, now=True).problems[0]
    assert world.calls()[ONE] == 1, "neither we nor the SDK ask again at once"


@pytest.mark.parametrize("batches", [1, 3])
def test_an_api_that_does_not_answer_takes_no_longer_than_the_budget(world: World, batches: int) -> None:
    """A read may take 30 s, and 90 s with its retries: longer than a sensor's tick may take."""
    _open(world, batches)
    world.emulator.faults([{"match": {"method": "GET"}, "action": {"delay": 600}}])
    started = time.monotonic()
    assert poll(world.root, now=True, budget=3).problems
    assert time.monotonic() - started < READ_SECONDS
    assert _states(world) == ["open"] * batches


def _batch_object(batch_id: str, **odd: Any) -> dict[str, Any]:
    return {
        "id": batch_id,
        "type": "message_batch",
        "processing_status": "in_progress",
        "request_counts": {"processing": 1, "succeeded": 0, "errored": 0, "canceled": 0, "expired": 0},
        "created_at": "2026-11-01T10:00:00Z",
        "expires_at": "2026-11-02T10:00:00Z",
        "ended_at": None,
        "results_url": None,
    } | odd


@pytest.mark.parametrize(
    ("odd", "state", "requests"),
    [
        ({"novel": {"deep": [1]}}, "open", 1),
        ({"processing_status": "postponed"}, "open", 1),
        ({"processing_status": "postponed_until_further_notice"}, "open", 1),
        ({"processing_status": None}, "open", 1),
        ({"processing_status": "postponed", "ended_at": "2026-11-01T11:00:00Z"}, "ended", 1),
        ({"processing_status": "in_progress", "ended_at": "2026-11-01T11:00:00Z"}, "open", 1),
        ({"request_counts": None}, "open", 1),
        ({"request_counts": {}}, "open", 1),
        ({"request_counts": {"processing": None}}, "open", 1),
        ({"request_counts": {"postponed": 1}}, "open", 1),
        ({"created_at": "2026-11-01T10:00:00"}, "open", 1),
    ],
    ids=str,
)
def test_an_unusual_batch_object_is_understood(
    world: World, odd: dict[str, Any], state: str, requests: int
) -> None:
    (batch_id,) = _open(world, 1)
    body = _batch_object(batch_id, **odd)
    world.emulator.faults([{"match": {**RETRIEVE, "times": 1}, "action": {"status": 200, "body": body}}])
    assert poll(world.root, now=True).problems == []
    assert world.query("select state, requests from batch") == [(state, requests)]
    world.emulator.end_batches()
    world.finish(world.pipeline())
    assert set(world.table(world.pipeline())["result_type"]) == {"succeeded"}
    assert len(world.accepted()) == 1


@pytest.mark.parametrize("skew", [-3600, 3600])
def test_a_clock_that_is_an_hour_off_changes_nothing(world: World, skew: int) -> None:
    world.emulator.clock(skew=skew)
    _open(world, 3)
    assert poll(world.root, now=True).problems == []
    world.query("update batch set next_poll_at = 0")
    world.forget_calls()
    poll(world.root)
    assert (world.calls()[PAGE], world.calls()[ONE]) == (1, 0)
    world.emulator.end_batches()
    world.finish(world.pipeline())
    assert len(world.accepted()) == 3


_POLL = """
from batch_assets.core.batches.poll import poll
from batch_assets.core.open_root import open_root
from batch_assets.core.root import Root
with open_root() as root:
    print(poll(root, now=True).changed)
"""


def test_two_polls_at_once_record_every_change_once(world: World, python: ForkServer) -> None:
    """A tick that exceeds its time limit continues next to the following one, in another process."""
    submitted = _open(world, 5)
    world.emulator.end_batches()
    hold = [{"match": {"method": "GET", "path": BATCHES}, "action": {"delay": 1}}]
    world.emulator.faults(hold)
    env = os.environ | environment(world.emulator.url, world.root.settings.root, world.root.settings.ledger_url)
    looks = [python.start("-c", _POLL, env=env) for _ in range(2)]
    outputs = [look.communicate(timeout=250)[0] for look in looks]
    assert [look.returncode for look in looks] == [0, 0]
    assert sum(text.count(batch_id) for text in outputs for batch_id in submitted) == 5
    assert _states(world) == ["ended"] * 5
    ended = world.query("select entity from history where kind = 'batch' and to_state = 'ended'")
    assert sorted(row[0] for row in ended) == sorted(submitted)


def test_a_spent_budget_ends_the_poll(world: World) -> None:
    _open(world, 2)
    assert poll(world.root, now=True, budget=-1).calls == 0
    assert _states(world) == ["open"] * 2


def test_new_counts_are_a_change_and_equal_counts_are_not(world: World) -> None:
    world.emulator.settings(latency=100, moving_counters=True)
    world.emulator.clock(frozen=True)
    world.send(world.pipeline(texts(10)))
    assert poll(world.root, now=True).changed == {}
    world.emulator.clock(advance=50)
    assert len(poll(world.root, now=True).changed["asked"]) == 1
    assert poll(world.root, now=True).changed == {}


def test_a_canceling_batch_stays_open_until_it_has_ended(world: World) -> None:
    world.emulator.settings(latency=3600, cancel_delay=1000)
    pipeline = world.pipeline(texts(2))
    (batch_id,) = world.send(pipeline).submitted
    world.emulator.clock(frozen=True)
    _cancel(world, batch_id)
    poll(world.root, now=True)
    assert world.query("select state, processing_status from batch") == [("open", "canceling")]
    world.emulator.clock(advance=2000)
    poll(world.root, now=True)
    assert _states(world) == ["ended"]


def _cancel(world: World, batch_id: str) -> None:
    url = f"{world.emulator.url}{BATCHES}/{batch_id}/cancel"
    call = urllib.request.Request(url, b"", {"x-api-key": "any"}, method="POST")
    urllib.request.build_opener(urllib.request.ProxyHandler({})).open(call).close()


def test_a_page_of_the_list_is_one_transaction(world: World) -> None:
    """A transaction for each batch took three times the budget of a look at 10,000 batches."""
    world.emulator.settings(latency=3600)
    pipeline = world.pipeline(texts(30), batching={"max_requests": 1})
    world.send(pipeline)
    writes = []

    @sa.event.listens_for(sa.engine.Engine, "commit")
    def count(connection: sa.engine.Connection) -> None:
        if connection.get_execution_options().get("ledger_write"):
            writes.append(connection)

    world.forget_calls()
    report = poll(world.root, now=True)
    sa.event.remove(sa.engine.Engine, "commit", count)
    assert (report.calls, len(writes)) == (1, 1)
    world.emulator.end_batches()
    report = poll(world.root, now=True)
    assert len(report.changed[pipeline.name]) == 30


def test_what_a_page_showed_is_kept_when_the_next_one_fails(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batch_assets.core.batches.poll._pages_for", lambda _: 2)
    world.emulator.settings(latency=3600)
    pipeline = world.pipeline(texts(10), batching={"max_requests": 1})
    world.send(pipeline)
    world.emulator.end_batches()
    whole = world.root.api.page
    monkeypatch.setattr(world.root.api, "page", lambda **more: whole(**{**more, "limit": 4}))
    world.emulator.faults([{"match": {**LIST, "after": 1}, "action": {"status": 500}}])
    report = poll(world.root, now=True)
    assert report.problems
    assert world.query("select count(*) from batch where state = 'ended'") == [(4,)]


def aged(world: World, count: int) -> str:
    """Submit batches that have run for some hours, and return the name of their pipeline."""
    world.emulator.settings(latency=360_000)
    pipeline = world.pipeline(texts(count), batching={"max_requests": 1})
    world.send(pipeline)
    world.query("update batch set submitted_at = submitted_at - 9000, next_poll_at = 0")
    return pipeline.name


def test_batches_that_did_not_change_share_a_statement(world: World) -> None:
    aged(world, 30)
    statements = []

    @sa.event.listens_for(sa.engine.Engine, "before_cursor_execute")
    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        statements.append(statement)

    report = poll(world.root)
    sa.event.remove(sa.engine.Engine, "before_cursor_execute", note)
    assert (report.calls, report.changed) == (1, {})
    assert sum(statement.startswith("UPDATE batch") for statement in statements) == 1
    assert sum("FROM batch" in statement for statement in statements) == 2
    assert world.query("select count(distinct next_poll_at), min(next_poll_at) > 0 from batch") == [(1, 1)]


@pytest.mark.parametrize("is_cursor_gone", [False, True])
def test_a_look_whose_time_is_over_goes_on_with_the_next_batches(
    world: World, monkeypatch: pytest.MonkeyPatch, is_cursor_gone: bool
) -> None:
    """Each page takes long. Every look began with the newest batches, and the oldest ones were never seen."""
    clock, whole, first = [0.0], world.root.api.page, [True]

    def slow_page(after_id: str | None = None, **more: Any) -> Any:
        is_gone, first[0] = is_cursor_gone and first[0] and after_id is not None, False
        clock[0] += 0.0 if is_gone else 20.0
        return whole(**{**more, "limit": 4}, after_id="msgbatch_gone" if is_gone else after_id)

    aged(world, 20)
    monkeypatch.setattr("batch_assets.core.batches.poll.time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(world.root.api, "page", slow_page)
    polled = []
    for _ in range(3):
        first[0] = True
        assert poll(world.root, budget=30.0).problems == []
        polled.append(world.query("select count(*) from batch where next_poll_at > 0")[0][0])
    assert polled == ([8, 8, 8] if is_cursor_gone else [8, 16, 20])
