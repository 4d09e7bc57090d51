"""The queue of the API never gets more requests than it takes; files that do not fit are held and go in turn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from batch_assets.core.batches.caps import record_caps
from batch_assets.core.batches.feeding import ask_account, note_turns
from batch_assets.core.batches.poll import poll
from batch_assets.core.errors import SettingsError
from batch_assets.core.ledger import submissions
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.planning.next_step import next_step
from batch_assets.core.planning.snapshot import Snapshot
from batch_assets.core.planning.steps import Join, Send, SendReason, Wait, Waiting
from batch_assets.core.rename import rename
from batch_assets.core.settings import Settings

from ..support import CREATE, World, make_pipeline, texts, write_rows

RATE_LIMITS = "GET /v1/organizations/rate_limits"
CREATES = "POST /v1/messages/batches"


def fed(world: World, name: str, rows: int, size: int, **batching: Any) -> Pipeline:
    """A built pipeline whose request files have `size` requests."""
    write_rows(world.folder / f"{name}.jsonl", texts(rows, name))
    dataset = {"path": f"{name}.jsonl", "key": "id"}
    pipeline = make_pipeline(world.folder, dataset, name=name, batching={"max_requests": size, **batching})
    record_caps(world.root, [pipeline])
    world.build(pipeline)
    return pipeline


def in_queue(world: World) -> int:
    return sum(batch.total for batch in world.root.api.page().batches if batch.processing_status == "in_progress")


def requests_of(world: World, name: str) -> int:
    ids = [custom_id for custom_id in world.accepted_custom_ids() if custom_id.startswith(f"{name}-")]
    assert len(ids) == len(set(ids))
    return len(ids)


def step_of(world: World, pipeline: Pipeline) -> Any:
    with world.root.ledger.read() as tx:
        newest = submissions.newest(tx, pipeline.name, "")
        assert newest is not None
        return next_step(Snapshot.of(tx, newest), put_off=(Join,))


def end_all(world: World) -> None:
    world.emulator.end_batches()
    poll(world.root, now=True)


def test_files_above_the_limit_are_held_without_a_call_and_go_when_batches_end(
    new_world: Callable[..., World],
) -> None:
    world = new_world(BATCH_ASSETS_MAX_IN_FLIGHT="10")
    world.emulator.settings(latency=3600, queue_limit=10)
    pipeline = fed(world, "p", 18, 6)
    world.submit(pipeline)
    assert world.calls()[CREATES] == 1
    assert world.states(pipeline) == ["submitted", "held", "held"]
    assert world.files(pipeline)[1].error == (
        "the root's limit is reached: 6 of 10 requests are queued, and this file has 6"
    )
    step = step_of(world, pipeline)
    assert isinstance(step, Wait)
    assert step.why is Waiting.BATCHES
    world.submit(pipeline, unattended=True)
    assert world.calls()[CREATES] == 1
    end_all(world)
    world.collect(pipeline)
    assert step_of(world, pipeline) == Send(SendReason.ROOM, 1)
    world.submit(pipeline, unattended=True)
    assert world.calls()[CREATES] == 2
    assert world.states(pipeline).count("held") == 1


def test_all_files_above_the_limit_are_held_in_one_transaction(new_world: Callable[..., World]) -> None:
    world = new_world(BATCH_ASSETS_MAX_IN_FLIGHT="4")
    world.emulator.settings(latency=3600)
    few, many = fed(world, "a", 6, 2), fed(world, "b", 60, 2)
    world.submit(few)
    world.query("update request_file set state = 'canceled' where pipeline = 'a' and state = 'held'")
    transactions: set[int] = set()

    def note(connection: sa.Connection, _: Any, statement: str, *__: Any) -> None:
        if statement.startswith("UPDATE request_file SET state"):
            transactions.add(id(connection.get_transaction()))

    sa.event.listen(sa.Engine, "before_cursor_execute", note)
    try:
        world.submit(many)
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", note)
    assert world.states(many) == ["held"] * 30
    assert len(transactions) == 1


def test_the_limit_of_the_account_is_asked_for_once_an_hour(world: World) -> None:
    world.emulator.settings(latency=3600, queue_limit=7)
    for _ in range(2):
        ask_account(world.root)
    assert world.calls()[RATE_LIMITS] == 1
    pipeline = fed(world, "p", 9, 3)
    world.submit(pipeline)
    assert (world.calls()[CREATES], in_queue(world)) == (2, 6)
    world.emulator.settings(queue_limit=9)
    world.query("update queue set ask_at = ask_at - 3600")
    ask_account(world.root)
    assert world.calls()[RATE_LIMITS] == 2
    assert step_of(world, pipeline) == Send(SendReason.ROOM, 1)


def test_a_key_that_may_not_ask_is_remembered_for_a_day_and_a_refused_call_changes_nothing(world: World) -> None:
    ask_account(world.root)
    world.query("update queue set ask_at = ask_at - 7200")
    ask_account(world.root)
    assert world.calls()[RATE_LIMITS] == 1
    assert world.query("select account from queue") == [(None,)]
    pipeline = fed(world, "p", 4, 2)
    assert len(world.submit(pipeline).submitted) == 2


def test_a_limit_that_is_set_is_not_asked_for(new_world: Callable[..., World]) -> None:
    world = new_world(BATCH_ASSETS_MAX_IN_FLIGHT="10")
    ask_account(world.root)
    assert world.calls()[RATE_LIMITS] == 0


def test_a_limit_is_learned_from_a_refusal_and_forgotten_after_hours(world: World) -> None:
    world.emulator.settings(latency=3600, queue_limit=10)
    pipeline = fed(world, "p", 18, 6)
    world.submit(pipeline)
    assert world.query("select learned from queue") == [(11,)]
    world.query("update request_file set not_before = 0")
    world.submit(pipeline, unattended=True)
    assert world.calls()[CREATES] == 2, "the third file is held, and so is the second"
    assert world.states(pipeline).count("held") == 2
    world.query("update queue set learned_at = learned_at - 6 * 3600")
    assert isinstance(step_of(world, pipeline), Send)


def test_a_refusal_for_too_many_calls_says_nothing_about_the_queue(world: World) -> None:
    first, pipeline = fed(world, "o", 2, 2), fed(world, "p", 4, 2)
    world.emulator.settings(latency=3600)
    world.submit(first)
    message = "This request would exceed the limit of 50 requests per minute while processing"
    body = {"type": "error", "error": {"type": "rate_limit_error", "message": message}}
    world.emulator.faults([{"match": {**CREATE, "times": 9}, "action": {"status": 429, "body": body}}])
    assert len(world.submit(pipeline).waiting) == 2
    assert world.query("select count(*) from queue where learned is not null") == [(0,)]


def test_a_file_that_is_larger_than_the_limit_is_cut(new_world: Callable[..., World]) -> None:
    world = new_world(BATCH_ASSETS_MAX_IN_FLIGHT="5")
    pipeline = fed(world, "p", 8, 100)
    world.submit(pipeline)
    assert in_queue(world) <= 5
    world.finish(pipeline)
    assert requests_of(world, "p") == 8
    assert max(batch["requests"] for batch in world.accepted()) <= 5


def test_a_file_that_is_larger_than_a_learned_limit_goes_alone(world: World) -> None:
    world.emulator.settings(latency=3600)
    world.query(
        "insert into queue (pipeline, learned, learned_at) values ('', 3, (select max(at) + 9 from history))"
    )
    pipeline = fed(world, "p", 8, 5)
    world.query("update queue set learned = 3, learned_at = (select max(at) from history) where pipeline = ''")
    world.submit(pipeline)
    assert sorted(world.states(pipeline)) == ["held", "submitted"]


def test_max_in_flight_of_a_pipeline_is_its_own(world: World) -> None:
    world.emulator.settings(latency=3600)
    capped, free = fed(world, "a", 8, 2, max_in_flight=4), fed(world, "b", 8, 2)
    world.submit(capped)
    world.submit(free)
    assert (requests_of(world, "a"), requests_of(world, "b")) == (4, 8)
    assert "batching.max_in_flight is reached: 4 of 4" in (world.files(capped)[2].error or "")


def test_three_pipelines_get_room_in_turn(new_world: Callable[..., World]) -> None:
    world = new_world(BATCH_ASSETS_MAX_IN_FLIGHT="6")
    world.emulator.settings(latency=3600, queue_limit=6)
    large, small, other = fed(world, "a", 24, 2), fed(world, "b", 6, 2), fed(world, "c", 6, 3)
    world.submit(large)
    assert requests_of(world, "a") == 6
    world.submit(small)
    world.submit(other)
    assert requests_of(world, "b") == requests_of(world, "c") == 0
    end_all(world)
    world.submit(large, unattended=True)  # it was sent last, and may have what the others do not need
    assert requests_of(world, "a") == 6
    for pipeline in (other, small, large):
        world.submit(pipeline, unattended=True)
    assert (requests_of(world, "b"), requests_of(world, "c")) == (2, 3)
    for _ in range(12):
        end_all(world)
        for pipeline in (large, small, other):
            world.submit(pipeline, unattended=True)
            assert in_queue(world) <= 6
    assert [requests_of(world, name) for name in "abc"] == [24, 6, 6]
    assert world.calls()[CREATES] == len(world.accepted()), "no upload was refused"


def test_who_lets_its_turn_pass_keeps_the_others_waiting_for_a_quarter_of_an_hour(
    new_world: Callable[..., World],
) -> None:
    world = new_world(BATCH_ASSETS_MAX_IN_FLIGHT="4")
    world.emulator.settings(latency=3600)
    busy, gone = fed(world, "a", 12, 2), fed(world, "b", 4, 4)
    record_caps(world.root, [])
    world.submit(busy)
    world.submit(gone)
    end_all(world)
    world.submit(busy, unattended=True)
    note_turns(world.root)
    world.collect(busy)
    step = step_of(world, busy)
    assert isinstance(step, Wait)
    assert step.why is Waiting.QUEUE
    assert step.until is not None
    world.query("update queue set passed_at = passed_at - 901 where passed_at is not null")
    assert step_of(world, busy) == Send(SendReason.ROOM, 2)
    world.submit(busy, unattended=True)
    assert requests_of(world, "a") == 8
    world.submit(gone, unattended=True)  # no room: it is its turn again
    end_all(world)
    world.submit(busy, unattended=True)
    world.submit(gone, unattended=True)
    assert requests_of(world, "b") == 4


def test_a_renamed_pipeline_takes_its_place_in_the_queue_with_it(world: World) -> None:
    world.submit(fed(world, "old", 2, 2, max_in_flight=4))
    ((served_at,),) = world.query("select served_at from queue")
    renamed = make_pipeline(world.folder, {"path": "old.jsonl"}, name="new", batching={"max_in_flight": 4})
    record_caps(world.root, [renamed])
    rename(world.root, "old", "new")
    assert served_at is not None
    assert world.query("select pipeline, max_in_flight, served_at from queue") == [("new", 4, served_at)]


@pytest.mark.parametrize("text", ["0", "-1", "many", "1.5"])
def test_the_variable_has_to_be_a_number(text: str) -> None:
    with pytest.raises(SettingsError, match=r"BATCH_ASSETS_MAX_IN_FLIGHT is .*largest number of queued requests"):
        Settings.from_env({"BATCH_ASSETS_MAX_IN_FLIGHT": text})
