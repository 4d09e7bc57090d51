"""Proof of ownership: marks in custom_ids, batches that were there before, and batches that no reply named."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from batch_assets.core.batches.cancel import finish_replaced
from batch_assets.core.batches.reconcile import reconcile
from batch_assets.core.cancel import cancel
from batch_assets.core.errors import UnreachableError
from batch_assets.core.ledger import submissions
from batch_assets.core.pipeline.blocks import RetentionConfig
from batch_assets.core.results.retention import apply_retention

from ..support import BATCHES, CREATE, LIST, World, texts
from .test_reconcile import LATE, LOST, NEVER_ARRIVED, submit_as_someone_else

NewWorld = Callable[..., World]
DELETE_AT_ONCE = RetentionConfig(batches_days=0)


@pytest.fixture
def two_roots(new_world: NewWorld) -> tuple[World, World]:
    """Return two roots, staging and production, that send the same requests in one workspace."""
    production = new_world(name="production", BATCH_ASSETS_RECONCILE_GRACE="900")
    staging = new_world(name="staging", BATCH_ASSETS_RECONCILE_GRACE="900")
    return production, staging


def test_custom_ids_carry_the_mark_of_the_root(two_roots: tuple[World, World]) -> None:
    for world in two_roots:
        table = world.run(world.pipeline({"a" * 50: "one", "b": "two"}))
        first, second = table["custom_id"]
        mark = world.root.mark
        assert (len(first), first[:-22]) == (64, f"{'a' * 34}-{mark}-")
        assert second[:-22] == f"b-{mark}-"
        world.forget_calls()
    assert two_roots[0].root.mark != two_roots[1].root.mark


def test_a_retry_keeps_the_custom_id(world: World) -> None:
    world.emulator.faults([{"match": CREATE, "action": {"error_mix": {"overloaded_error": 1.0, "first": 1}}}])
    world.run(world.pipeline(texts(2)))
    first, second = world.accepted(custom_ids=True)
    assert first["custom_ids"] == second["custom_ids"]


@pytest.mark.parametrize("latency", [0, 3600])
@pytest.mark.parametrize("late", [False, True], ids=["in the list", "the list is late"])
def test_an_equal_older_batch_of_another_root_is_not_taken(
    two_roots: tuple[World, World], latency: int, late: bool
) -> None:
    production, staging = two_roots
    production.emulator.settings(latency=latency)
    pipeline = staging.pipeline(texts(3))
    staging.send(pipeline)
    (theirs,) = staging.accepted()
    production.emulator.faults([LOST, LATE] if late else [LOST])
    production.send(pipeline)
    production.emulator.end_batches()
    production.finish(pipeline)
    (own,) = [batch["id"] for batch in production.accepted()[1:]]
    assert set(production.table(pipeline)["batch_id"]) == {own}
    assert apply_retention(production.root, pipeline.name, DELETE_AT_ONCE) != []
    staging.finish(pipeline)
    assert set(staging.table(pipeline)["batch_id"]) == {theirs["id"]}
    assert len(production.accepted()) == 2


def test_an_equal_newer_batch_of_another_root_is_not_taken(two_roots: tuple[World, World]) -> None:
    """Production's create never arrived. Staging's equal batch is adopted by its count, until its results show."""
    production, staging = two_roots
    production.emulator.settings(latency=3600)
    pipeline = production.pipeline(texts(3))
    production.emulator.faults([NEVER_ARRIVED])
    production.send(pipeline)
    staging.send(pipeline)
    (theirs,) = staging.accepted()
    production.submit(pipeline)
    assert production.query("select id, provisional from batch") == [(theirs["id"], 1)]
    production.emulator.settings(latency=0)
    production.emulator.end_batches()
    production.collect(pipeline)
    assert production.states(pipeline) == ["unresolved"]
    production.query("update intent set last_byte_at = last_byte_at - 2000")
    production.submit(pipeline)
    production.finish(pipeline)
    staging.finish(pipeline)
    (_, own) = [batch["id"] for batch in production.accepted()]
    assert set(production.table(pipeline)["batch_id"]) == {own}
    assert set(staging.table(pipeline)["batch_id"]) == {theirs["id"]}


@pytest.mark.parametrize("number", [1, 5])
def test_what_was_in_the_list_before_the_upload_is_never_a_candidate(new_world: NewWorld, number: int) -> None:
    world = new_world(BATCH_ASSETS_RECONCILE_GRACE="900")
    world.emulator.settings(latency=3600)
    for _ in range(number):
        submit_as_someone_else(world, 3)
    submit_as_someone_else(world, 1)
    world.emulator.faults([NEVER_ARRIVED])
    pipeline = world.pipeline(texts(3))
    world.send(pipeline)
    assert world.query("select count(*) from batch") == [(0,)]
    world.query("update intent set last_byte_at = last_byte_at - 2000")
    world.submit(pipeline)
    assert world.states(pipeline) == ["submitted"]


def without_marks(world: World) -> None:
    """Make the request files as an earlier version wrote them, without checksums."""
    for path in world.path("asked", "requests").rglob("*.jsonl"):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        for line in lines:
            line["custom_id"] = line["custom_id"].replace(f"-{world.root.mark}-", "-")
        size = path.stat().st_size
        path.write_text("".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines))
        world.query(
            "update request_file set bytes = bytes - :less, checksum = null", less=size - path.stat().st_size
        )


def test_request_files_from_before_marks_keep_their_ids_and_are_proved_by_content(world: World) -> None:
    pipeline = world.pipeline(texts(3))
    world.build(pipeline)
    without_marks(world)
    world.emulator.faults(
        [LOST, {"match": CREATE, "action": {"error_mix": {"overloaded_error": 1.0, "first": 2}}}]
    )
    world.submit(pipeline)
    (first,) = world.accepted(custom_ids=True)
    assert first["custom_ids"][0][:-22] == "row-0-"
    assert world.states(pipeline) == ["submitted"]
    world.finish(pipeline)
    *_, last = world.accepted(custom_ids=True)
    assert last["custom_ids"][0][:-22] == f"row-0-{world.root.mark}-"
    table = world.table(pipeline)
    assert list(table["result_type"]) == ["succeeded"] * 3
    assert list(table["custom_id"]) == last["custom_ids"]


@pytest.mark.parametrize("lost", [False, True])
def test_only_a_batch_that_a_reply_named_is_deleted_automatically(world: World, lost: bool) -> None:
    pipeline = world.pipeline(texts(2))
    if lost:
        world.emulator.faults([LOST])
    world.run(pipeline)
    problems = apply_retention(world.root, pipeline.name, DELETE_AT_ONCE)
    assert any("reply to its create was lost" in problem for problem in problems) is lost
    assert world.calls()["DELETE /v1/messages/batches/{id}"] == (0 if lost else 1)
    assert world.query("select state from batch") == [("collected" if lost else "deleted",)]


def test_a_batch_whose_receipt_was_written_when_it_was_found_is_not_deleted_after_a_rebuild(world: World) -> None:
    pipeline = world.pipeline(texts(2))
    world.emulator.faults([LOST])
    world.run(pipeline)
    (receipt,) = world.path("asked", "requests").rglob("*.batch.json")
    assert json.loads(receipt.read_text())["replied"] is False
    world.root.close()
    world.path("ledger.db").unlink()
    world.reopened()
    assert apply_retention(world.root, pipeline.name, DELETE_AT_ONCE) != []
    assert world.calls()["DELETE /v1/messages/batches/{id}"] == 0


def test_a_killed_upload_whose_receipt_was_written_counts_as_named_by_a_reply(world: World) -> None:
    pipeline = world.pipeline(texts(2))
    world.send(pipeline)
    world.query("delete from batch")
    world.query("update request_file set state = 'sending', batch_id = null")
    world.query("update intent set outcome = 'open'")
    world.submit(pipeline)
    world.finish(pipeline)
    assert apply_retention(world.root, pipeline.name, DELETE_AT_ONCE) == []
    assert world.query("select state from batch") == [("deleted",)]


def test_a_batch_that_no_reply_named_is_not_canceled_automatically(world: World) -> None:
    world.emulator.settings(latency=3600)
    pipeline = world.pipeline(texts(2))
    world.send(pipeline)
    cancel_fails = {"match": {"method": "POST", "path": f"{BATCHES}/*/cancel"}, "action": {"status": 500}}
    world.emulator.faults([cancel_fails])
    cancel(world.root, pipeline.name)
    world.emulator.reset_faults()
    world.build(world.pipeline(texts(1, "other")))
    world.query("update batch set replied = null")
    world.forget_calls()
    with world.root.ledger.read() as tx:
        (newest,) = submissions.all_newest(tx)
    assert finish_replaced(world.root, newest).canceled == []
    assert world.calls()["POST /v1/messages/batches/{id}/cancel"] == 0
    world.query("update batch set replied = 1")
    finish_replaced(world.root, newest)
    assert world.calls()["POST /v1/messages/batches/{id}/cancel"] == 1


# Doubt has an upper bound.


@pytest.mark.parametrize("skew", [0, -7200, 7200])
def test_a_batch_created_after_the_time_out_of_the_create_cannot_be_ours(new_world: NewWorld, skew: int) -> None:
    """Someone always has a running batch of our count."""
    world = new_world(BATCH_ASSETS_RECONCILE_GRACE="900")
    world.emulator.settings(latency=86400)
    world.emulator.clock(skew=skew)
    world.emulator.faults([NEVER_ARRIVED])
    pipeline = world.pipeline(texts(5), batching={"max_requests": 3})
    world.send(pipeline)
    assert world.states(pipeline) == ["unresolved", "submitted"]
    for _ in range(3):
        world.emulator.clock(advance=700)
        submit_as_someone_else(world, 3)
        world.submit(pipeline, unattended=True)
    assert world.query("select count(*) from batch where provisional") == [(0,)]
    world.query("update intent set last_byte_at = last_byte_at - 2000")
    world.submit(pipeline, unattended=True)
    assert world.states(pipeline) == ["submitted", "submitted"]


def test_a_batch_created_within_the_time_out_is_still_a_candidate(new_world: NewWorld) -> None:
    world = new_world(BATCH_ASSETS_RECONCILE_GRACE="900")
    world.emulator.settings(latency=86400)
    world.emulator.faults([NEVER_ARRIVED])
    pipeline = world.pipeline(texts(3))
    world.send(pipeline)
    world.emulator.clock(advance=300)
    theirs = submit_as_someone_else(world, 3)
    world.submit(pipeline, unattended=True)
    assert world.query("select id, provisional from batch") == [(theirs, 1)]


def test_a_late_batch_that_its_results_prove_is_ours_all_the_same(new_world: NewWorld) -> None:
    world = new_world(BATCH_ASSETS_RECONCILE_GRACE="900")
    world.emulator.faults([LOST, {"match": LIST, "action": {"hide_from_list": 5000}}])
    pipeline = world.pipeline(texts(3))
    world.send(pipeline)
    world.emulator.reset_faults()
    world.query("update intent set latest_created_at = 1")
    assert world.submit(pipeline).submitted == [world.accepted()[0]["id"]]
    world.finish(pipeline)
    assert len(world.accepted()) == 1


def test_a_body_that_broke_off_is_not_sent_and_not_in_doubt(new_world: NewWorld) -> None:
    world = new_world(BATCH_ASSETS_RECONCILE_GRACE="900")
    world.emulator.faults([{"match": {**CREATE, "times": 1}, "action": {"drop": "before_body", "reset": True}}])
    # Larger than the buffers of a connection, which would take in a small body before the reset arrives.
    pipeline = world.pipeline({str(number): f"{number}{'x' * 500_000}" for number in range(40)})
    world.build(pipeline)
    with pytest.raises(UnreachableError, match="broke off before its end"):
        world.submit(pipeline)
    assert world.states(pipeline) == ["ready"]
    world.submit(pipeline)
    assert world.states(pipeline) == ["submitted"]
    assert len(world.accepted()) == 1


@pytest.mark.parametrize("complete", [False, True, None])
def test_an_upload_whose_process_is_gone_is_in_doubt_only_if_its_body_may_be_complete(
    new_world: NewWorld, complete: bool | None
) -> None:
    world = new_world(BATCH_ASSETS_RECONCILE_GRACE="900")
    world.emulator.faults([NEVER_ARRIVED])
    pipeline = world.pipeline(texts(3))
    world.send(pipeline)
    assert world.query("select body_complete from intent") == [(1,)]
    world.query("update request_file set state = 'sending'")
    world.query("update intent set outcome = 'open', last_byte_at = null, body_complete = :is", **{"is": complete})
    reconcile(world.root)
    assert world.states(pipeline) == ["ready" if complete is False else "unresolved"]
