"""What a ledger that was restored from a backup learns from damaged receipts and from stored answers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest

from batch_assets.core.batches.poll import poll
from batch_assets.core.cancel import cancel
from batch_assets.core.errors import ResultsError
from batch_assets.core.ledger import batches
from batch_assets.core.ledger.records import Batch
from batch_assets.core.pipeline.blocks import RetentionConfig
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.recovery.unknown_folders import unknown_folders
from batch_assets.core.results.collect import store_canceled
from batch_assets.core.results.run import collect_results

from ..lost_ledger import LOST, check, nothing_left
from ..support import CREATE, LIST, World, texts, write_rows
from .test_restored_ledger import end, forgotten, receipts


def damage_receipt(world: World) -> None:
    (receipt,) = receipts(world)
    receipt.write_text("{garbage")


def sent_with_damaged_receipt(world: World) -> Pipeline:
    """Send a file of three rows that the ledger forgets, and damage its receipt. The batch runs."""
    world.emulator.settings(latency=3600)
    pipeline = world.pipeline(texts(3))
    world.build(pipeline)
    with forgotten(world):
        world.submit(pipeline)
    damage_receipt(world)
    return pipeline


def lose_at_the_api(world: World) -> None:
    """Poll until the API has answered 404 for long enough."""
    for _ in range(2):
        poll(world.root, now=True)
        world.query("update batch set missing_since = missing_since - 1000")


def only_batch(world: World) -> Batch:
    with world.root.ledger.read() as tx:
        batch = batches.by_id(tx, world.accepted()[0]["id"])
    assert batch is not None
    return batch


@pytest.mark.parametrize("stage", ["build", "submit"])
def test_a_damaged_receipt_of_a_ready_file_shows_that_it_was_sent(
    world: World, caplog: pytest.LogCaptureFixture, stage: str
) -> None:
    pipeline = sent_with_damaged_receipt(world)
    if stage == "build":
        world.build(pipeline)
        assert world.states(pipeline) == ["unresolved"]
    for _ in range(3):
        world.submit(pipeline)
    assert caplog.text.count("The ledger was older") == 1
    assert world.states(pipeline) == ["submitted"]
    world.build(pipeline)
    end(world, pipeline)
    check(world, pipeline, 3)
    nothing_left(world, pipeline)


def test_a_damaged_receipt_that_no_catching_up_saw_stops_the_upload(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file may be one of another partition, which the run does not look through."""
    pipeline = sent_with_damaged_receipt(world)
    monkeypatch.setattr(type(world.root), "catch_up", lambda *_, **__: None)
    world.submit(pipeline)
    assert world.states(pipeline) == ["submitted"]
    assert len(world.accepted()) == 1


def test_the_answers_of_a_file_with_a_damaged_receipt_are_found(world: World) -> None:
    pipeline = world.pipeline(texts(3))
    world.build(pipeline)
    with forgotten(world):
        world.submit(pipeline)
        end(world, pipeline)
        collect_results(world.root, pipeline.name, retention=RetentionConfig(batches_days=0))
    damage_receipt(world)
    world.build(pipeline)
    world.submit(pipeline)
    assert world.query("select state from request_file") == [("collected",)]
    world.finish(pipeline)
    check(world, pipeline, 3)


@pytest.mark.parametrize(
    ("state", "request_files_days"), [("open", None), ("open", 0), ("unreachable", 0), ("ended", 0)]
)
def test_a_batch_whose_answers_are_stored_is_collected(
    world: World, caplog: pytest.LogCaptureFixture, state: str, request_files_days: int | None
) -> None:
    """The batch was deleted at the API after it was collected, so nothing there shows what became of it."""
    world.emulator.settings(latency=3600)
    pipeline = world.pipeline(texts(3))
    world.send(pipeline)
    if state == "ended":
        world.emulator.settings(latency=0)
        world.emulator.end_batches()
        poll(world.root, now=True)
    with forgotten(world):
        end(world, pipeline)
        kept = RetentionConfig(batches_days=0, request_files_days=request_files_days)
        collect_results(world.root, pipeline.name, retention=kept)
    if state == "unreachable":
        lose_at_the_api(world)
    batch_id = only_batch(world).id
    world.path("asked", "responses", f".{batch_id}.parquet.raw.0.tmp").touch()  # as a killed process leaves it
    assert only_batch(world).state == state
    assert cancel(world.root, world.accepted()[0]["id"]).given_up == []
    collected = collect_results(world.root, pipeline.name)
    assert collected.problems == []
    assert "responses has the answers of 1 batch that the ledger did not record as collected: it is older, or" in (
        caplog.text
    )
    assert only_batch(world).count_map["succeeded"] == 3
    assert world.root.storage.leftovers("asked", "responses") == []
    assert list(world.table(pipeline)["result_type"]) == ["succeeded"] * 3
    world.build(pipeline)
    world.submit(pipeline)
    assert len(world.accepted()) == 1


@pytest.mark.parametrize("is_damaged", [False, True])
def test_canceled_rows_never_replace_a_stored_file(world: World, is_damaged: bool) -> None:
    world.emulator.settings(latency=3600)
    pipeline = world.pipeline(texts(3))
    world.send(pipeline)
    with forgotten(world):
        end(world, pipeline)
        collect_results(world.root, pipeline.name, retention=RetentionConfig(batches_days=0))
    lose_at_the_api(world)
    (responses,) = world.path("asked", "responses").iterdir()
    if is_damaged:
        responses.write_bytes(b"garbage")
    before = responses.read_bytes()
    if is_damaged:
        with pytest.raises(ResultsError, match="not replaced by canceled rows"):
            store_canceled(world.root, only_batch(world), "deleted")
    else:
        assert store_canceled(world.root, only_batch(world), "deleted")
        assert only_batch(world).state == "collected"
    assert responses.read_bytes() == before


def test_the_results_stage_finds_a_submission_that_the_ledger_has_lost(world: World) -> None:
    pipeline = world.pipeline(texts(2))
    world.send(pipeline)
    end(world, pipeline)
    with forgotten(world):
        world.emulator.settings(latency=3600)
        world.send(world.pipeline(texts(5)))
    collect_results(world.root, pipeline.name)
    end(world, pipeline)
    check(world, pipeline, 5)
    nothing_left(world, pipeline)


def test_unknown_folders_are_found_with_one_listing(world: World) -> None:
    pipeline = world.pipeline(texts(1))
    world.build(pipeline)
    later, other = "29991231T000000-abcdef01", "29991231T000000-abcdef02"
    for folder in (later, f"partition=a%2Fb/{other}"):
        world.path("asked", "requests", folder).mkdir(parents=True)
    ledger, storage = world.root.ledger, world.root.storage
    assert unknown_folders(ledger, storage, "asked") == []  # their builds are not finished
    for folder in (later, f"partition=a%2Fb/{other}"):
        world.path("asked", "requests", folder, "manifest.json").touch()
    assert unknown_folders(ledger, storage, "asked") == [("", later), ("a/b", other)]


@pytest.mark.parametrize("in_doubt", [False, True])
@pytest.mark.parametrize("arrived", [False, True])
def test_a_receipt_that_was_copied_from_another_file_stops_nothing(
    new_world: Callable[..., World], in_doubt: bool, arrived: bool
) -> None:
    """It shows no more than a damaged one: the file was sent, and its batch is looked for."""
    world = new_world()
    world.emulator.settings(latency=3600)
    write_rows(world.folder / "first.jsonl", texts(2, "first"))
    first = world.pipeline("first.jsonl", name="first")
    report = world.build(first)
    world.submit(first)
    copied = (world.submission_folder(first, report) / "part-00000.batch.json").read_bytes()
    pipeline = world.pipeline(texts(3))
    folder = world.submission_folder(pipeline, world.build(pipeline))
    lost = LOST if arrived else {"match": {**CREATE, "times": 1}, "action": {"drop": "before_commit"}}
    world.emulator.faults([lost, {"match": {**LIST, "nth": [2, 3, 4]}, "action": {"status": 500}}])
    with contextlib.ExitStack() as stack:
        if not in_doubt:
            stack.enter_context(forgotten(world))
        world.submit(pipeline)
    world.emulator.reset_faults()
    (folder / "part-00000.batch.json").write_bytes(copied)
    report = world.submit(pipeline)
    if not arrived:
        (reason,) = report.waiting.values()
        assert "which is the batch of" in reason
    more = world.pipeline(texts(4, "more"), name="more")
    assert len(world.send(more).submitted) == 1
    world.emulator.end_batches()
    world.collect(first)
    world.submit(pipeline, unattended=True)
    assert len(world.accepted()) == (3 if arrived else 2)
    assert world.states(pipeline) == (["submitted"] if arrived else ["unresolved"])


def test_a_receipt_that_was_copied_from_another_file_puts_only_its_own_file_in_doubt(world: World) -> None:
    """It shows nothing about the others: the ledger knows its batch, so it need not be older than the files."""
    world.emulator.settings(latency=3600)
    write_rows(world.folder / "first.jsonl", texts(2, "first"))
    first = world.pipeline("first.jsonl", name="first")
    report = world.send(first)
    copied = (world.submission_folder(first, report) / "part-00000.batch.json").read_bytes()  # type: ignore[arg-type]
    world.reopened(BATCH_ASSETS_RECONCILE_GRACE="900")
    pipeline = world.pipeline(texts(5), batching={"max_requests": 3})
    folder = world.submission_folder(pipeline, world.build(pipeline))
    (folder / "part-00000.batch.json").write_bytes(copied)
    world.submit(pipeline)
    assert world.states(pipeline) == ["unresolved", "submitted"]
    assert len(world.accepted()) == 2
