"""A deleted ledger is rebuilt from the root: nothing is paid for twice, and every row gets its answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import orjson
import pytest

from batch_assets.core.errors import EndpointMismatchError, PairingError
from batch_assets.core.ledger import submissions
from batch_assets.core.recovery.move import move
from batch_assets.core.remedies import PairRoot
from batch_assets.core.results.run import collect_results

from ..lost_ledger import HIDDEN, LOST, check, end_grace_period, finish, lose_ledger, nothing_left, part_states
from ..support import CREATE, LIST, World, round_for, texts, write_rows


def test_after_requests_nothing_is_sent_before_the_grace_period(world: World) -> None:
    pipeline = world.pipeline(texts(5), batching={"max_requests": 2})
    world.build(pipeline)
    lose_ledger(world, BATCH_ASSETS_RECONCILE_GRACE="900")
    assert part_states(world) == ["unresolved"] * 3
    report = world.submit(pipeline)
    assert len(report.waiting) == 3
    assert all("no receipt shows" in why for why in report.waiting.values())
    assert world.accepted() == []
    end_grace_period(world)
    finish(world, pipeline)
    check(world, pipeline, 5)
    nothing_left(world, pipeline)


def test_the_sensor_does_not_send_a_rebuilt_submission_automatically(world: World) -> None:
    pipeline = world.pipeline(texts(3))
    world.build(pipeline)
    lose_ledger(world)
    with world.root.ledger.read() as tx:
        (submission,) = submissions.all_newest(tx)
        assert submission.began_at is None
        assert round_for(tx, submission) is None


@pytest.mark.parametrize("latency", [0, 3600])
def test_after_a_lost_reply_the_batch_is_found(world: World, latency: int) -> None:
    world.emulator.settings(latency=latency)
    world.emulator.faults([LOST, HIDDEN | {"match": {**LIST, "nth": [2, 3, 4, 5, 6, 7]}}])
    pipeline = world.pipeline(texts(3))
    world.send(pipeline)
    world.emulator.reset_faults()
    assert len(world.accepted()) == 1
    lose_ledger(world)
    finish(world, pipeline)
    check(world, pipeline, 3)
    assert len(world.accepted()) == 1


def test_two_lost_files_with_equal_counts_are_matched_by_their_results(world: World) -> None:
    """Neither is sent again while a running batch may belong to either of them."""
    world.emulator.settings(latency=3600)
    pipeline = world.pipeline(texts(6), batching={"max_requests": 2})
    report = world.send(pipeline)
    for receipt in world.submission_folder(pipeline, report).glob("*-0000[01].batch.json"):  # type: ignore[arg-type]
        receipt.unlink()
    lose_ledger(world)
    assert part_states(world) == ["unresolved", "unresolved", "submitted"]
    end_grace_period(world)
    world.submit(pipeline)
    assert part_states(world) == ["unresolved", "unresolved", "submitted"]
    finish(world, pipeline)
    check(world, pipeline, 6)
    assert len(world.accepted()) == 3


def test_while_batches_run_the_sensor_collects_and_joins(new_world: Callable[..., World]) -> None:
    world = new_world()
    world.emulator.settings(latency=3600)
    pipeline = world.pipeline(texts(5), batching={"max_requests": 2})
    world.send(pipeline)
    lose_ledger(world)
    assert part_states(world) == ["submitted"] * 3
    world.emulator.end_batches()
    world.finish(pipeline)
    check(world, pipeline, 5)
    assert len(world.accepted()) == 3
    nothing_left(world, pipeline)


def test_after_collection_the_whole_state_is_rebuilt(world: World) -> None:
    pipeline = world.pipeline(texts(5), batching={"max_requests": 2})
    before = world.run(pipeline)
    lose_ledger(world)
    assert part_states(world) == ["collected"] * 3
    world.forget_calls()
    done = collect_results(world.root, pipeline.name)
    assert done.results is not None
    assert done.results.final
    assert world.calls().total() == 0
    assert world.table(pipeline).equals(before)
    with world.root.ledger.read() as tx:
        (submission,) = submissions.all_newest(tx)
        assert submission.announced_at is not None, "the table was complete, so downstream assets ran before"
        assert round_for(tx, submission) is None
    nothing_left(world, pipeline)


def test_a_table_that_was_not_complete_is_announced(world: World) -> None:
    world.emulator.settings(latency=3600)
    pipeline = world.pipeline(texts(3))
    world.send(pipeline)
    world.collect(pipeline)
    lose_ledger(world)
    world.emulator.end_batches()
    world.finish(pipeline)
    ((announced,),) = world.query("select announced_at from submission")
    assert announced is None


def test_a_batch_without_a_receipt_is_recognized_by_its_responses(world: World) -> None:
    world.emulator.settings(latency=3600)
    world.emulator.faults([LOST])
    pipeline = world.pipeline(texts(3))
    world.send(pipeline)
    world.emulator.end_batches()
    world.finish(pipeline)
    (receipt,) = world.path("asked").rglob("*.batch.json")
    receipt.unlink()
    lose_ledger(world)
    assert part_states(world) == ["collected"]
    nothing_left(world, pipeline)


@pytest.mark.parametrize("collected", [False, True])
def test_a_ledger_is_rebuilt_after_a_retry_round(world: World, collected: bool) -> None:
    world.emulator.settings(latency=3600)
    pipeline = world.pipeline(texts(4))
    world.send(pipeline)
    world.emulator.expire_batches()
    world.collect(pipeline)
    world.submit(pipeline, unattended=True)
    if collected:
        world.emulator.end_batches()
        world.finish(pipeline)
    lose_ledger(world)
    assert [tuple(row) for row in world.query("select attempt, state from request_file order by id")] == [
        (1, "collected"),
        (2, "collected" if collected else "submitted"),
    ]
    finish(world, pipeline)
    check(world, pipeline, 4, twice=4)
    assert set(world.table(pipeline)["attempts"]) == {2}


def test_a_retry_that_was_not_sent_is_in_doubt_with_its_own_attempt(world: World) -> None:
    world.emulator.settings(latency=3600)
    pipeline = world.pipeline(texts(4))
    world.send(pipeline)
    world.emulator.expire_batches()
    world.collect(pipeline)
    world.emulator.faults([{"match": {**CREATE, "times": 1}, "action": {"drop": "before_commit"}}])
    world.reopened(BATCH_ASSETS_RECONCILE_GRACE="900")
    world.submit(pipeline, unattended=True)
    lose_ledger(world)
    assert [tuple(row) for row in world.query("select attempt, state from request_file order by id")] == [
        (1, "collected"),
        (2, "unresolved"),
    ]
    end_grace_period(world)
    finish(world, pipeline)
    check(world, pipeline, 4, twice=4)
    assert len(world.accepted()) == 2


@pytest.mark.parametrize("sent", [False, True])
def test_requests_of_a_superseded_file_are_sent_once(world: World, sent: bool) -> None:
    world.build(world.pipeline(texts(3)))
    pipeline = world.pipeline(texts(5))
    world.build(pipeline)
    if sent:
        world.submit(pipeline)
    lose_ledger(world)
    assert part_states(world)[0] == "superseded"
    end_grace_period(world)
    finish(world, pipeline)
    check(world, pipeline, 5)
    assert len(world.accepted_custom_ids()) == 5


def test_files_that_no_submission_in_force_waits_for_are_not_sent(world: World) -> None:
    world.build(world.pipeline(texts(3, "old")))
    pipeline = world.pipeline(texts(2, "new"))
    world.build(pipeline)
    lose_ledger(world)
    assert part_states(world) == ["unresolved", "unresolved"]
    end_grace_period(world)
    finish(world, pipeline)
    check(world, pipeline, 2)
    assert part_states(world) == ["superseded", "collected"]
    world.build(world.pipeline(texts(3, "old")))
    finish(world, pipeline)
    check(world, pipeline, 3)


@pytest.mark.parametrize("sent", [False, True])
def test_partitions_that_share_requests_wait_for_the_same_file(world: World, sent: bool) -> None:
    world.emulator.settings(latency=3600)
    pipeline = world.pipeline(texts(4))
    world.build(pipeline, "A")
    if sent:
        world.submit(pipeline, "A")
    world.build(world.pipeline(texts(6)), "B/ä")
    lose_ledger(world)
    assert sorted(file.requests for file in world.files(pipeline, "B/ä")) == [2, 4]
    end_grace_period(world)
    finish(world, pipeline, "B/ä")
    finish(world, pipeline, "A")
    check(world, pipeline, 10)
    assert len(world.accepted_custom_ids()) == 6


def test_several_pipelines_and_a_submission_built_while_files_are_in_doubt(world: World) -> None:
    rows = texts(4)
    first, second = world.pipeline(rows), world.pipeline(rows, name="other")
    world.run(first)
    world.build(second)
    lose_ledger(world)
    bigger = texts(6)
    second = world.pipeline(bigger, name="other")
    world.build(second)
    end_grace_period(world)
    finish(world, second)
    check(world, first, 4, twice=4)  # two pipelines send the same requests
    check(world, second, 6, twice=4)
    assert len(world.accepted_custom_ids()) == 4 + 6


def test_a_ledger_can_be_deleted_after_every_step(world: World) -> None:
    """Of a pipeline whose batch expires once."""
    world.emulator.settings(latency=3600)
    pipeline = world.pipeline(texts(5), batching={"max_requests": 3})
    world.build(pipeline)
    lose_ledger(world)
    end_grace_period(world)
    world.submit(pipeline)
    lose_ledger(world)
    world.emulator.expire_batches()
    world.collect(pipeline)
    lose_ledger(world)
    world.collect(pipeline)
    world.submit(pipeline, unattended=True)
    lose_ledger(world)
    world.emulator.end_batches()
    world.finish(pipeline)
    lose_ledger(world)
    world.finish(pipeline)
    check(world, pipeline, 5, twice=5)
    assert Counter(Counter(world.accepted_custom_ids()).values()) == {2: 5}


def test_a_new_database_on_an_old_root(new_world: Callable[..., World], ledger_url: str) -> None:
    world = new_world()
    world.emulator.settings(latency=3600)
    pipeline = world.pipeline(texts(5), batching={"max_requests": 3})
    world.send(pipeline)
    world.root.close()
    with_database = new_world(ledger=ledger_url)
    with pytest.raises(PairingError, match="pair the root with the new one") as refused:  # it has its own ledger
        with_database.root.ledger.close()
    assert refused.value.remedy == PairRoot()
    move(with_database.root.settings)
    assert [state for (state,) in with_database.query("select state from request_file order by id")] == [
        "submitted"
    ] * 2
    world.emulator.end_batches()
    with_database.finish(pipeline)
    check(world, pipeline, 5)
    ((count,),) = with_database.query("select count(*) from submission")
    assert count == 1
    nothing_left(with_database, pipeline)


def test_a_rebuild_that_fails_halfway_is_repeated(world: World) -> None:
    """A receipt of another API makes it fail. Nothing of the first attempt is left."""
    pipeline = world.pipeline(texts(4), batching={"max_requests": 2})
    report = world.build(pipeline)
    world.submit(pipeline)
    second = world.submission_folder(pipeline, report) / "part-00001.batch.json"
    kept = second.read_bytes()
    second.write_bytes(orjson.dumps(orjson.loads(kept) | {"base_url": "https://other"}))
    lose_ledger(world)
    with pytest.raises(EndpointMismatchError):
        world.root.ledger.read().__enter__()
    second.write_bytes(kept)
    assert part_states(world) == ["submitted"] * 2


@pytest.mark.parametrize("sent", ["older", "younger"])
def test_two_lost_files_do_not_adopt_the_one_batch_that_may_belong_to_either(world: World, sent: str) -> None:
    """Only one of them was sent. Its results show which."""
    world.emulator.settings(latency=3600)
    write_rows(world.folder / "more.jsonl", texts(3, "more"))
    pipelines = {"older": world.pipeline(texts(3), name="older")}
    pipelines["younger"] = world.pipeline("more.jsonl", name="younger")
    reports = {name: world.build(pipeline) for name, pipeline in pipelines.items()}
    world.submit(pipelines[sent])
    (world.submission_folder(pipelines[sent], reports[sent]) / "part-00000.batch.json").unlink()
    lose_ledger(world)
    for pipeline in pipelines.values():
        world.submit(pipeline)
    assert part_states(world) == ["unresolved"] * 2
    assert world.query("select id from batch") == []
    world.emulator.end_batches()
    for pipeline in pipelines.values():
        finish(world, pipeline)
        check(world, pipeline, 3)
    assert len(world.accepted()) == 2


@pytest.mark.parametrize("latency", [0, 3600])
@pytest.mark.parametrize("counts", [(4, 8), (5, 8)], ids=["equal counts", "other counts"])
def test_a_copied_receipt_is_set_aside_and_stops_nothing_else(
    world: World, caplog: pytest.LogCaptureFixture, latency: int, counts: tuple[int, int]
) -> None:
    """Also beside another pipeline's file, whose own batch is found and not paid again."""
    world.emulator.settings(latency=latency)
    first, second = counts
    older = world.pipeline(texts(first), name="older")
    older_report = world.send(older)
    write_rows(world.folder / "more.jsonl", texts(second - 4, "more"))
    younger = world.pipeline("more.jsonl", name="younger")
    report = world.send(younger)
    original = world.submission_folder(older, older_report) / "part-00000.batch.json"  # type: ignore[arg-type]
    copied = world.submission_folder(younger, report) / "part-00000.batch.json"  # type: ignore[arg-type]
    copied.write_bytes(original.read_bytes())
    lose_ledger(world)
    with caplog.at_level("WARNING"):
        assert part_states(world)[0] != "unresolved"
    assert "part-00000.batch.json is damaged: it names msgbatch_" in caplog.text
    assert "younger" in caplog.text.partition("is damaged")[0]
    for pipeline, count in ((older, first), (younger, second - 4)):
        finish(world, pipeline)
        check(world, pipeline, count)
    assert len(world.accepted()) == 2


def test_a_copied_receipt_is_recognized_by_the_count_of_its_batch(world: World) -> None:
    """Here it is beside the older file."""
    world.emulator.settings(latency=3600)
    pipeline = world.pipeline(texts(5), batching={"max_requests": 3})
    report = world.build(pipeline)
    world.submit(pipeline)
    folder = world.submission_folder(pipeline, report)
    (folder / "part-00000.batch.json").write_bytes((folder / "part-00001.batch.json").read_bytes())
    lose_ledger(world)
    assert part_states(world) == ["unresolved", "submitted"]
    finish(world, pipeline)
    check(world, pipeline, 5)
    assert len(world.accepted()) == 2
