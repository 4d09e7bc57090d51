"""A table that is complete stays as it is until the new one is complete. The new one waits beside it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from batch_assets.core.batches.poll import poll
from batch_assets.core.cancel import cancel
from batch_assets.core.erase.run import erase
from batch_assets.core.ledger import submissions
from batch_assets.core.ledger.records import Submission
from batch_assets.core.open_root import open_root
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.prune import prune
from batch_assets.core.rename import rename
from batch_assets.core.results.examine import examine
from batch_assets.core.results.report import ResultsReport
from batch_assets.core.results.run import collect_results
from batch_assets.core.results.write import write_results
from batch_assets.core.settings import Settings
from batch_assets.core.sink.write import write_sink
from batch_assets.core.store.table_cost import table_cost
from tests.forked import ForkServer

from ..lost_ledger import lose_ledger
from ..support import CREATE, World, environment, params, texts

# To kill at every boundary: BATCH_ASSETS_JOIN_STEP=1 pytest tests/core/results/test_waiting_table.py
STEP = int(os.environ.get("BATCH_ASSETS_JOIN_STEP") or 7)
EDITED = params("Another question: {{ text }}")
PARTITIONED = {"dataset": {"path": "{partition}.jsonl", "key": "id"}, "partitions": {"static": ["a", "b"]}}


def joined(world: World, pipeline: Pipeline, partition: str = "") -> ResultsReport:
    report = world.collect(pipeline, partition).results
    assert report is not None
    return report


def table_file(world: World, *folders: str) -> Path:
    return world.path("asked", "results", *folders, "results.parquet")


def files_in(world: World, folder: str) -> list[str]:
    """The files below a folder of the pipeline, with scratch files."""
    top = world.path("asked", folder)
    return sorted(str(path.relative_to(top)) for path in top.rglob("*") if path.is_file())


def complete(world: World, rows: dict[str, str] | None = None) -> Pipeline:
    """Run a pipeline to its complete table. From then on, no batch ends by itself."""
    pipeline = world.pipeline(rows or texts(4))
    world.run(pipeline)
    world.emulator.settings(latency=3600)
    return pipeline


def in_force(world: World, pipeline: Pipeline) -> Submission:
    with world.root.ledger.read() as tx:
        submission = submissions.newest(tx, pipeline.name, "")
    assert submission is not None
    return submission


def finished(world: World, pipeline: Pipeline, partition: str = "") -> ResultsReport:
    world.emulator.end_batches()
    world.emulator.settings(latency=0)
    report = world.finish(pipeline, partition).results
    assert report is not None
    return report


def test_an_edit_of_the_prompt_keeps_the_complete_table_until_the_new_one_is_complete(world: World) -> None:
    complete(world)
    before, inode = table_file(world).read_bytes(), table_file(world).stat().st_ino
    pipeline = world.pipeline(params=EDITED, batching={"max_requests": 2})
    world.build(pipeline)
    assert joined(world, pipeline).held_back, "already before anything is sent"
    first, _ = world.submit(pipeline).submitted
    world.emulator.end_batches(first)
    partial = joined(world, pipeline)
    assert dict(partial.counts) == {"succeeded": 2, "pending": 2}
    assert (partial.held_back, partial.final, partial.is_complete) == (True, False, False)
    assert partial.uri == str(world.path("asked", "results_next", "results.parquet"))
    assert (table_file(world).read_bytes(), table_file(world).stat().st_ino) == (before, inode)
    assert list(world.waiting_table(pipeline)["result_type"]) == ["succeeded"] * 2 + ["pending"] * 2
    assert in_force(world, pipeline).held_back
    done = finished(world, pipeline)
    assert (done.held_back, done.final, done.is_complete, done.uri) == (False, True, True, str(table_file(world)))
    assert list(world.table(pipeline)["result_type"]) == ["succeeded"] * 4
    assert len(set(world.table(pipeline)["custom_id"])) == 4
    assert (files_in(world, "results"), files_in(world, "results_next")) == (["results.parquet"], [])
    assert not in_force(world, pipeline).held_back


def test_new_and_changed_rows_appear_when_all_of_them_are_answered(world: World) -> None:
    rows = texts(4)
    complete(world, rows)
    changed = {**rows, "row-1": "a changed text", "new": "a new text"}
    del changed["row-0"]
    pipeline = world.pipeline(changed)
    world.send(pipeline)
    assert joined(world, pipeline).held_back
    assert list(world.table(pipeline)["id"]) == list(rows)
    assert world.table(pipeline)["text"].tolist() == list(rows.values())
    waiting = world.waiting_table(pipeline)
    types = ["pending", "succeeded", "succeeded", "pending"]
    assert dict(zip(waiting["id"], waiting["result_type"], strict=True)) == dict(zip(changed, types, strict=True))
    finished(world, pipeline)
    assert world.table(pipeline)["text"].tolist() == list(changed.values())
    assert set(world.table(pipeline)["result_type"]) == {"succeeded"}


def test_rows_that_are_only_removed_leave_the_table_at_once(world: World) -> None:
    complete(world)
    pipeline = world.pipeline(texts(2))
    world.send(pipeline)
    assert joined(world, pipeline).is_complete
    assert list(world.table(pipeline)["id"]) == ["row-0", "row-1"]
    assert not world.path("asked", "results_next").exists()


def test_failed_rows_that_are_sent_again_keep_their_errors_until_they_are_answered(world: World) -> None:
    world.emulator.faults([{"match": CREATE, "action": {"error_mix": {"permission_error": 0.5, "first": 1}}}])
    pipeline = world.pipeline(texts(6))
    before = world.run(pipeline)
    world.emulator.reset_faults()
    world.emulator.settings(latency=3600)
    assert world.build(pipeline, retry_failed=True).written == (before["result_type"] == "errored").sum() > 0
    world.submit(pipeline)
    assert joined(world, pipeline).held_back
    assert world.table(pipeline).equals(before)
    finished(world, pipeline)
    assert set(world.table(pipeline)["result_type"]) == {"succeeded"}


def test_a_pipeline_without_a_complete_table_shows_its_first_one_at_once(world: World) -> None:
    world.emulator.settings(latency=3600)
    pipeline = world.pipeline(texts(4), batching={"max_requests": 2})
    first, _ = world.send(pipeline).submitted
    world.emulator.end_batches(first)
    assert not joined(world, pipeline).held_back
    assert list(world.table(pipeline)["result_type"]) == ["succeeded"] * 2 + ["pending"] * 2
    edited = world.pipeline(params=EDITED)
    world.send(edited)
    assert not joined(world, edited).held_back
    assert list(world.table(edited)["result_type"]) == ["pending"] * 4
    assert files_in(world, "results") == ["results.parquet"]
    assert not world.path("asked", "results_next").exists()


def test_each_partition_has_a_waiting_table_of_its_own(world: World) -> None:
    for partition in "ab":
        pipeline = world.pipeline(texts(2, partition), **PARTITIONED)
        (world.folder / "rows.jsonl").rename(world.folder / f"{partition}.jsonl")
        if partition == "a":
            world.send(pipeline, "a")
            world.finish(pipeline, "a")
    world.emulator.settings(latency=3600)
    edited = world.pipeline(params=EDITED, **PARTITIONED)
    for partition in "ab":
        world.send(edited, partition)
    assert joined(world, edited, "a").held_back
    assert not joined(world, edited, "b").held_back, "it never had a complete table"
    assert files_in(world, "results_next") == ["partition=a/results.parquet"]
    assert set(zip(*(world.table(edited)[name] for name in ("partition", "result_type")), strict=True)) == {
        ("a", "succeeded"),
        ("b", "pending"),
    }
    finished(world, edited, "a")
    assert (files_in(world, "results_next"), len(files_in(world, "results"))) == ([], 2)


def test_a_cancel_leaves_the_complete_table_and_shows_what_arrived_beside_it(world: World) -> None:
    complete(world)
    before = table_file(world).read_bytes()
    edited = world.pipeline(params=EDITED, batching={"max_requests": 2})
    first, _ = world.send(edited).submitted
    world.emulator.end_batches(first)
    joined(world, edited)
    cancel(world.root, "asked")
    done = finished(world, edited)
    assert (done.final, done.is_complete, done.held_back, done.left_by_cancel) == (True, False, True, 2)
    assert table_file(world).read_bytes() == before
    assert list(world.waiting_table(edited)["result_type"]) == ["succeeded"] * 2 + ["canceled"] * 2
    world.run(edited)
    assert list(world.table(edited)["result_type"]) == ["succeeded"] * 4
    assert files_in(world, "results_next") == []
    assert len(world.accepted_custom_ids()) == 4 + 4 + 2


def test_a_canceled_batch_leaves_the_complete_table(world: World) -> None:
    complete(world)
    edited = world.pipeline(params=EDITED, batching={"max_requests": 2})
    _, second = world.send(edited).submitted
    cancel(world.root, second)
    done = finished(world, edited)
    assert (done.final, done.is_complete, done.held_back, done.left_by_cancel) == (True, False, True, 2)
    assert set(world.table(edited)["result_type"]) == {"succeeded"}


def test_pruned_answers_leave_the_table_as_before(world: World) -> None:
    pipeline = complete(world)
    prune(world.root, "asked", -3600.0, in_force=True, is_dry=False)
    report = joined(world, pipeline)
    assert (report.counts["canceled"], report.is_complete, report.held_back) == (4, True, False)
    assert set(world.table(pipeline)["error_type"]) == {"pruned"}


def test_a_refresh_that_is_canceled_keeps_older_answers_and_is_complete(world: World) -> None:
    pipeline = complete(world)
    world.build(pipeline, refresh=True)
    world.submit(pipeline)
    cancel(world.root, "asked")
    done = finished(world, pipeline)
    assert (done.is_complete, done.kept, done.held_back) == (True, 4, False)


def test_what_a_cancel_left_without_an_answer_was_never_complete(world: World) -> None:
    world.emulator.settings(latency=3600)
    pipeline = world.pipeline(texts(4))
    world.send(pipeline)
    cancel(world.root, "asked")
    world.emulator.end_batches()
    assert not finished(world, pipeline).is_complete
    assert set(world.table(pipeline)["result_type"]) == {"canceled"}
    world.emulator.settings(latency=3600)
    world.send(pipeline)
    assert not joined(world, pipeline).held_back
    assert set(world.table(pipeline)["result_type"]) == {"pending"}


def test_a_table_of_an_earlier_version_is_complete_without_pending_rows(world: World) -> None:
    pipeline = complete(world)
    _rewrite_without_note(table_file(world))
    edited = world.pipeline(params=EDITED)
    world.send(edited)
    assert joined(world, edited).held_back
    table = pq.read_table(world.path("asked", "results_next", "results.parquet"))
    pq.write_table(table, table_file(world))  # an earlier version left it where users read
    again = world.pipeline(params=params("A third question: {{ text }}"))
    world.send(again)
    assert not joined(world, again).held_back
    assert set(world.table(pipeline)["result_type"]) == {"pending"}


def _rewrite_without_note(path: Path) -> None:
    assert b"batch_assets.complete" in pq.read_metadata(path).metadata
    pq.write_table(pq.read_table(path), path)
    assert b"batch_assets.complete" not in pq.read_metadata(path).metadata


def test_an_erased_row_leaves_both_tables_at_once(world: World) -> None:
    rows = {"gone": "born in Ulm"} | texts(3)
    complete(world, rows)
    edited = world.pipeline(params=EDITED, batching={"max_requests": 1})
    sent = world.send(edited).submitted
    world.emulator.end_batches(sent[0])
    joined(world, edited)
    assert [len(world.table(edited)), len(world.waiting_table(edited))] == [4, 4]
    assert erase(world.root, "asked", ["gone"], edited).is_complete
    for table in (world.table(edited), world.waiting_table(edited)):
        assert list(table["id"]) == list(texts(3))
    assert set(world.table(edited)["result_type"]) == {"succeeded"}
    assert joined(world, edited).held_back, "the table without the row is still known as complete"
    checked = examine(world.root, edited)
    assert checked is not None
    assert (checked.rows, checked.expected_rows, checked.misplaced) == (3, 3, [])
    finished(world, edited)
    assert list(world.table(edited)["id"]) == list(texts(3))


def test_checks_examine_the_table_that_users_read(world: World) -> None:
    schema = {
        "type": "object",
        "properties": {"label": {"type": "string"}},
        "required": ["label"],
        "additionalProperties": False,
    }
    complete(world)
    edited = world.pipeline(texts(6), output_schema=schema)
    world.send(edited)
    joined(world, edited)
    table = examine(world.root, edited)
    assert table is not None
    assert (table.rows, table.expected_rows, dict(table.counts)) == (4, 4, {"succeeded": 4})
    assert (table.columns, table.waiting_rows) == (["label is missing"], 6)
    finished(world, edited)
    table = examine(world.root, edited)
    assert table is not None
    assert (table.rows, table.columns, table.waiting_rows) == (6, [], 0)


def test_answers_that_the_complete_table_shows_are_not_pruned(world: World) -> None:
    complete(world)
    edited = world.pipeline(params=EDITED)
    world.send(edited)
    joined(world, edited)
    report = prune(world.root, "asked", -3600.0)
    assert (report.answers, report.kept) == (0, 4)
    finished(world, edited)
    assert prune(world.root, "asked", -3600.0).answers == 4


def test_a_sink_gets_complete_tables_only(world: World) -> None:
    sink = {"url": f"sqlite:///{world.folder}/answers.db"}
    world.emulator.settings(latency=3600)
    pipeline = world.pipeline(texts(3), sink=sink)
    world.send(pipeline)
    cancel(world.root, "asked")
    assert finished(world, pipeline).final
    assert write_sink(world.root, pipeline, "", in_force(world, pipeline).id) is None, "canceled rows"
    world.run(pipeline)
    first = write_sink(world.root, pipeline, "", in_force(world, pipeline).id)
    assert first is not None and first.rows == 3
    world.emulator.settings(latency=3600)
    edited = world.pipeline(params=EDITED, sink=sink)
    world.send(edited)
    joined(world, edited)
    assert write_sink(world.root, edited, "", in_force(world, edited).id) is None


def test_the_cost_so_far_is_that_of_the_waiting_table(world: World) -> None:
    complete(world)
    edited = world.pipeline(params=EDITED, batching={"max_requests": 2})
    first, _ = world.send(edited).submitted
    world.emulator.end_batches(first)
    report = joined(world, edited)
    cost = table_cost(world.root, in_force(world, edited))
    assert cost is not None and report.cost_usd
    assert cost.usd == pytest.approx(report.cost_usd)


def test_a_renamed_pipeline_keeps_both_tables(world: World) -> None:
    complete(world)
    edited = world.pipeline(params=EDITED)
    world.send(edited)
    joined(world, edited)
    before = world.table(edited)
    rename(world.root, "asked", "new")
    renamed = world.pipeline(params=EDITED, name="new")
    assert world.table(renamed).equals(before)
    assert set(world.waiting_table(renamed)["result_type"]) == {"pending"}
    finished(world, renamed)
    assert list(world.table(renamed)["result_type"]) == ["succeeded"] * 4
    assert list(world.path("new", "results_next").iterdir()) == []


def test_a_rebuilt_ledger_does_not_take_the_table_of_before_for_the_newest_one(world: World) -> None:
    """The failed rows that are sent again have the same requests, so the tables have the same custom_ids."""
    world.emulator.faults([{"match": CREATE, "action": {"error_mix": {"permission_error": 1.0}}}])
    pipeline = world.pipeline(texts(3))
    before = world.run(pipeline)
    content = table_file(world).read_bytes()
    world.emulator.reset_faults()
    world.emulator.settings(latency=3600)
    world.build(pipeline, retry_failed=True)
    world.submit(pipeline)
    lose_ledger(world)
    assert joined(world, pipeline).held_back
    assert world.table(pipeline).equals(before)
    finished(world, pipeline)
    table_file(world).write_bytes(content)  # as if the ledger were lost between the answers and the table
    lose_ledger(world)
    assert in_force(world, pipeline).announced_at is None, "Dagster has not heard of the newest table"
    finished(world, pipeline)
    assert set(world.table(pipeline)["result_type"]) == {"succeeded"}


def test_the_waiting_table_of_a_former_shape_is_removed(world: World) -> None:
    complete(world)
    edited = world.pipeline(params=EDITED)
    world.send(edited)
    joined(world, edited)
    world.emulator.end_batches()
    world.emulator.settings(latency=0)
    partitioned = world.pipeline(texts(2), **PARTITIONED)
    (world.folder / "rows.jsonl").rename(world.folder / "a.jsonl")
    world.send(partitioned, "a")
    world.finish(partitioned, "a")
    assert files_in(world, "results_next") == []
    assert files_in(world, "results") == ["partition=a/results.parquet"]
    assert write_results(world.root, "asked") is not None, "a late answer to the former submission"
    assert files_in(world, "results_next") == []


def test_a_join_writes_one_table_and_no_other(world: World) -> None:
    """Nothing is copied: the table is written once, where it belongs."""
    complete(world)
    pipeline = world.pipeline(params=EDITED, batching={"max_requests": 2})
    first, _ = world.send(pipeline).submitted
    world.emulator.end_batches(first)
    written = Counted(world)
    joined(world, pipeline)
    assert written.paths == [world.path("asked", "results_next", "results.parquet")]
    finished(world, pipeline)
    assert written.paths[-1] == table_file(world)
    assert written.paths.count(table_file(world)) == 1


class Counted:
    """The tables that the storage of a world's root publishes from now on."""

    def __init__(self, world: World) -> None:
        self.paths: list[Path] = []
        publish = world.root.storage.publish

        def counted(scratch: Path, target: str) -> None:
            if target.endswith("results.parquet"):
                self.paths.append(Path(target))
            publish(scratch, target)

        world.root.storage.publish = counted  # type: ignore[method-assign]


@pytest.fixture(scope="module")
def children() -> Iterator[ForkServer]:
    with ForkServer(__name__) as server:
        yield server


def join_one(env: dict[str, str]) -> None:
    """Collect and join in a process of its own."""
    with open_root(Settings.from_env(env)) as root:
        collect_results(root, "asked")


def test_killed_at_any_boundary_readers_see_one_of_the_two_complete_tables(
    world: World, children: ForkServer
) -> None:
    before = world.run(world.pipeline(texts(4)))
    settings = world.root.settings
    work = (f"{__name__}:join_one", {"env": environment(world.emulator.url, settings.root, settings.ledger_url)})
    seen = {"before": 0, "after": 0}
    for boundary in range(1 + STEP // 2, 1000, STEP):
        edited = world.pipeline(params=params(f"Question {boundary}: {{{{ text }}}}"))
        world.build(edited)
        assert joined(world, edited).held_back
        world.submit(edited)
        poll(world.root, now=True)
        (outcome,) = children.run(work, die_at=boundary)
        assert outcome.error == ""
        table = world.table(edited)
        is_old = table.equals(before)
        assert is_old or set(table["result_type"]) == {"succeeded"}
        assert is_old or not set(table["custom_id"]) & set(before["custom_id"])
        seen["before" if is_old else "after"] += 1
        world.query("update lease set until = 0")
        assert joined(world, edited).is_complete
        assert (files_in(world, "results"), files_in(world, "results_next")) == (["results.parquet"], [])
        before = world.table(edited)
        if not outcome.killed:
            break
    assert not outcome.killed
    assert min(seen.values()) >= 2, seen
