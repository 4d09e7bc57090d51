"""Rows that have to wait are erased later, and processes that run at the same time bring nothing back."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from batch_assets.core.batches.approve import approve
from batch_assets.core.io.storage import Storage
from batch_assets.core.ledger.request_leases import hold_pipeline
from batch_assets.core.remedies import Approve
from batch_assets.core.results.write import write_results

from ..lost_ledger import end_grace_period, lose_ledger
from ..support import World, params, texts, wait_for, write_rows
from .support import GONE, ROWS, SECRET, erased, every_text


def test_a_row_in_flight_is_on_record_and_erased_once_it_is_collected(world: World) -> None:
    pipeline = world.pipeline(ROWS)
    world.send(pipeline)
    report = erased(world, pipeline)
    (batch,) = world.accepted()
    (reason,) = report.waiting[GONE]
    assert batch["id"] in reason
    assert "the API keeps its results until" in reason
    assert not report.is_complete
    world.build(pipeline)  # the row is rejected now, and the file in flight stays as it is
    world.finish(pipeline)
    report = erased(world, pipeline)
    assert report.is_complete, list(report.open_ends())
    assert SECRET not in every_text(world.path())
    assert (world.table(pipeline)["result_type"] == "succeeded").sum() == len(ROWS) - 1


def test_a_row_that_was_never_sent_leaves_its_file(world: World) -> None:
    pipeline = world.pipeline(ROWS)
    world.build(pipeline)
    report = erased(world, pipeline)
    assert report.is_complete, list(report.open_ends())
    assert SECRET not in every_text(world.path())
    world.submit(pipeline)
    world.finish(pipeline)
    table = world.table(pipeline)
    assert list(table["result_type"]) == ["succeeded"] * (len(ROWS) - 1)
    assert len(world.accepted_custom_ids()) == len(ROWS) - 1


def test_the_only_row_of_a_file_that_was_never_sent(world: World) -> None:
    pipeline = world.pipeline({GONE: SECRET})
    world.build(pipeline)
    assert erased(world, pipeline).is_complete
    world.submit(pipeline)
    done = world.collect(pipeline)
    assert done.results is not None
    assert done.results.final
    assert world.accepted() == []


def test_the_table_of_an_unfinished_refresh(world: World) -> None:
    pipeline = world.pipeline(ROWS)
    world.run(pipeline)
    write_rows(world.folder / "rows.jsonl", {key: text for key, text in ROWS.items() if key != GONE})
    world.build(pipeline, refresh=True)
    world.submit(pipeline)
    report = erased(world, pipeline)
    assert report.is_complete, list(report.open_ends())
    assert GONE not in set(world.table(pipeline)["id"])
    assert SECRET not in every_text(world.path())
    world.finish(pipeline)
    assert list(world.table(pipeline)["result_type"]) == ["succeeded"] * (len(ROWS) - 1)


def test_what_the_api_cannot_delete_now_is_deleted_later(world: World) -> None:
    pipeline = world.pipeline(ROWS)
    world.run(pipeline)
    world.emulator.faults([{"match": {"method": "DELETE"}, "action": {"status": 500}}])
    report = erased(world, pipeline)
    (reason,) = report.kept.values()
    assert "the API keeps its results until" in reason
    assert SECRET not in every_text(world.path())
    world.emulator.reset_faults()
    again = erased(world, pipeline)
    assert again.is_complete, list(again.open_ends())
    assert again.deleted == list(report.kept)


def test_the_key_is_on_record_while_a_build_runs(world: World) -> None:
    pipeline = world.pipeline(ROWS)
    world.run(pipeline)
    record = world.path(pipeline.name, "erasures", "keys.json")
    with ThreadPoolExecutor(1) as pool:
        with hold_pipeline(world.root.ledger, pipeline.name):
            running = pool.submit(erased, world, pipeline)
            wait_for(record.exists, "the record")
            assert SECRET in every_text(world.path())
        assert running.result().is_complete
    assert GONE not in record.read_text()
    assert [oct(path.stat().st_mode)[-3:] for path in (record, record.parent)] == ["600", "700"]


def test_a_join_that_began_before_does_not_bring_the_row_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = world.pipeline(ROWS)
    world.run(pipeline)
    world.path("asked", "results", "results.parquet").unlink()  # otherwise nothing would be joined
    reached, may_go = threading.Event(), threading.Event()
    publish = Storage.publish

    def held(storage: Storage, scratch: Path, target: str) -> None:
        if target.endswith("results.parquet") and not reached.is_set():
            reached.set()
            may_go.wait(60)
        publish(storage, scratch, target)

    monkeypatch.setattr(Storage, "publish", held)
    with ThreadPoolExecutor(2) as pool:
        joining = pool.submit(write_results, world.root, pipeline.name)
        assert reached.wait(60)
        erasing = pool.submit(erased, world, pipeline)
        wait_for(lambda: not has_answer(world), "the answer to be erased")
        may_go.set()
        assert joining.result() is not None
        assert erasing.result().is_complete
    assert SECRET not in every_text(world.path())


def has_answer(world: World) -> bool:
    """Whether the response store has the answer of the row."""
    paths = world.path("asked", "responses").glob("*.parquet")
    return any(SECRET in str(pq.read_table(path).column("response_text").to_pylist()) for path in paths)


def test_one_key_waits_and_another_does_not(world: World) -> None:
    pipeline = world.pipeline({"done": "a finished text", GONE: ""})
    world.run(pipeline)
    assert world.table(pipeline)["error_type"][1] == "empty_prompt"
    world.send(world.pipeline({"done": "a finished text", "sent-1": "a text on its way"}))
    report = erased(world, pipeline, GONE, "sent-1", "nothing-of-it")
    assert list(report.waiting) == ["sent-1"]
    assert report.unknown == ["nothing-of-it"]
    indexes = [pq.read_table(path) for path in world.path().rglob("index.parquet")]
    assert sorted(index["id"].to_pylist() for index in indexes) == [["done"], ["done", "sent-1"]]
    rejected = [pq.read_table(path).num_rows for path in world.path().rglob("rejected.parquet")]
    assert rejected == [0, 0]


def test_a_lost_file_in_flight_may_hold_the_row(world: World) -> None:
    pipeline = world.pipeline(ROWS)
    report = world.build(pipeline)
    world.submit(pipeline)
    next(world.submission_folder(pipeline, report).glob("*.jsonl")).unlink()
    assert list(erased(world, pipeline).waiting) == [GONE]


def test_a_damaged_response_file_is_downloaded_again_first(world: World) -> None:
    pipeline = world.pipeline(ROWS)
    world.run(pipeline)
    (path,) = world.path(pipeline.name, "responses").glob("*.parquet")
    path.write_bytes(path.read_bytes()[:-50])
    report = erased(world, pipeline)
    assert list(report.waiting) == [GONE]
    world.finish(pipeline)
    report = erased(world, pipeline)
    assert report.is_complete, list(report.open_ends())
    assert SECRET not in every_text(world.path())


def test_the_others_still_wait_for_a_stub_from_whose_request_a_row_was_erased(world: World) -> None:
    """Another row shares the request, so the file that replaces it is the stub, in a rebuilt ledger too."""
    made = params(system=world.folder.name + "Shared by all. " * 400)
    pipeline = world.pipeline(
        {GONE: "the first text", "same": "the first text"} | texts(5), params=made, cache="auto"
    )
    world.build(pipeline)
    assert erased(world, pipeline).is_complete

    def stubs() -> set[str]:
        return {
            stub for (stub,) in world.query("select distinct stub from request_file where state != 'superseded'")
        }

    (stub,) = stubs()
    assert stub.endswith("part-00002.jsonl")
    lose_ledger(world)
    world.submit(pipeline)
    assert stubs() == {stub}
    end_grace_period(world)
    world.run(pipeline)
    bodies = [world.sent_body(batch["id"]) for batch in world.accepted()]
    assert [body.count(b"cache_control") for body in bodies] == [1, 5]


@pytest.mark.parametrize("keys", [[GONE], [GONE, *sorted(set(ROWS) - {GONE})[:1]]], ids=["one row", "two rows"])
def test_a_rebuilt_ledger_holds_what_was_held_when_rows_were_erased_from_it(world: World, keys: list[str]) -> None:
    pipeline = world.pipeline(ROWS, confirm_above=0)
    world.build(pipeline)
    for key in keys:
        assert erased(world, pipeline, key).is_complete
    lose_ledger(world)
    world.submit(pipeline)
    end_grace_period(world)
    assert world.submit(pipeline).remedies == [Approve("asked", "")]
    assert world.accepted() == []
    approve(world.root, "asked")
    world.submit(pipeline)
    assert [batch["requests"] for batch in world.accepted()] == [len(ROWS) - len(keys)]
