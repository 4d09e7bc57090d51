"""Refreshes: answered requests are sent again once, and no answer is lost."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from batch_assets.core.batches.poll import poll
from batch_assets.core.batches.submit import submit_batches
from batch_assets.core.io.storage import Storage
from batch_assets.core.ledger import submissions
from batch_assets.core.ledger.records import Submission
from batch_assets.core.open_root import open_root
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.planning.texts import reason
from batch_assets.core.requests.build import build_requests
from batch_assets.core.requests.report import RequestsReport
from batch_assets.core.results.join import ResultsJoin
from batch_assets.core.results.report import ResultsReport
from batch_assets.core.results.run import collect_results
from batch_assets.core.settings import Settings
from batch_assets.core.store.refreshes import refreshes_of
from tests.forked import ForkServer

from ..lost_ledger import end_grace_period, lose_ledger
from ..support import CREATE, World, environment, make_pipeline, params, round_for, texts


def refresh(world: World, pipeline: Pipeline, partition: str = "") -> RequestsReport:
    """Run `requests` and `batches` of a refresh."""
    report = world.build(pipeline, partition, refresh=True)
    world.submit(pipeline, partition)
    return report


def fail(world: World, **mix: float) -> None:
    world.emulator.reset_faults()
    if mix:
        world.emulator.faults([{"match": CREATE, "action": {"error_mix": mix}}])


def batches_of(world: World, pipeline: Pipeline) -> list[int]:
    """Return for each row the number of the batch that its answer came from, in order of acceptance."""
    order = [batch["id"] for batch in world.accepted()]
    return [order.index(batch_id) for batch_id in world.table(pipeline)["batch_id"]]


def in_force(world: World, pipeline: Pipeline, partition: str = "") -> Submission:
    with world.root.ledger.read() as tx:
        submission = submissions.newest(tx, pipeline.name, partition)
    assert submission is not None
    return submission


def join(world: World, pipeline: Pipeline, partition: str = "") -> ResultsReport:
    report = world.collect(pipeline, partition).results
    assert report is not None
    return report


def table_file(world: World, pipeline: Pipeline) -> Path:
    return world.path(pipeline.name, "results", "results.parquet")


def test_everything_is_sent_again_and_the_new_answers_are_in_force(world: World) -> None:
    pipeline = world.pipeline(texts(3))
    world.run(pipeline)
    report = refresh(world, pipeline)
    assert (report.written, report.reused, report.in_flight, report.is_refresh) == (3, 0, 0, True)
    world.finish(pipeline)
    assert batches_of(world, pipeline) == [1, 1, 1]
    assert list(world.table(pipeline)["attempts"]) == [1, 1, 1]
    later = world.build(pipeline)
    assert (later.written, later.reused, later.is_refresh) == (0, 3, False)
    world.finish(pipeline)
    assert batches_of(world, pipeline) == [1, 1, 1]
    refresh(world, pipeline)
    world.finish(pipeline)
    assert batches_of(world, pipeline) == [2, 2, 2]
    assert len(world.accepted_custom_ids()) == 9


def test_the_old_table_stays_complete_until_the_refresh_is_complete(world: World) -> None:
    pipeline = world.pipeline(texts(4), batching={"max_requests": 2})
    world.run(pipeline)
    before = table_file(world, pipeline).read_bytes()
    world.emulator.settings(latency=3600)
    report = world.build(pipeline, refresh=True)
    assert join(world, pipeline).held_back
    first, _ = world.submit(pipeline).submitted
    world.emulator.end_batches(first)
    partial = join(world, pipeline)
    assert dict(partial.counts) == {"succeeded": 2, "pending": 2}
    assert (partial.held_back, partial.final, report.written) == (True, False, 4)
    assert table_file(world, pipeline).read_bytes() == before
    world.emulator.end_batches()
    done = join(world, pipeline)
    assert (done.held_back, done.final, done.kept) == (False, True, 0)
    assert batches_of(world, pipeline) == [2, 2, 3, 3]


def test_a_refresh_without_a_complete_table_shows_pending_rows(world: World) -> None:
    """A pending row in the table of a refresh never shows an answer from before it."""
    world.emulator.settings(latency=3600)
    pipeline = world.pipeline(texts(4), batching={"max_requests": 2})
    first, second = world.send(pipeline).submitted
    world.emulator.end_batches(first)
    join(world, pipeline)
    refresh(world, pipeline)
    partial = join(world, pipeline)
    assert not partial.held_back
    table = world.table(pipeline)
    assert list(table["result_type"]) == ["pending"] * 4
    assert table["response_text"].isna().all()
    assert partial.cost_usd == 0.0
    world.emulator.end_batches(second)
    join(world, pipeline)
    assert list(world.table(pipeline)["result_type"]) == ["pending"] * 2 + ["succeeded"] * 2
    world.emulator.end_batches()
    world.finish(pipeline)
    assert batches_of(world, pipeline) == [2, 2, 1, 1]


def test_an_answer_that_comes_in_while_the_table_is_made_waits_for_the_next(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another partition's run collects the answer between two reads of the response files."""
    pipeline = world.pipeline(texts(1))
    world.run(pipeline)
    refresh(world, pipeline)
    arrived = world.path("asked", "responses", f"{world.accepted()[1]['id']}.parquet")
    world.finish(pipeline)
    with world.root.ledger.read() as tx:
        submission, refreshes = in_force(world, pipeline), refreshes_of(tx, pipeline.name)
    hidden = arrived.rename(arrived.with_suffix(".later"))
    list_versions = Storage.versions

    def versions(storage: Storage, *parts: str) -> dict[str, str]:
        listed = list_versions(storage, *parts)
        if parts[-1] == "responses" and hidden.exists():
            hidden.rename(arrived)
        return listed

    monkeypatch.setattr(Storage, "versions", versions)
    slices = list(ResultsJoin(world.root, submission, [], refreshes, {}, None).slices())
    assert [joined.table["result_type"].to_pylist() for joined in slices] == [["pending"]]
    slices = list(ResultsJoin(world.root, submission, [], refreshes, {}, None).slices())
    assert [joined.table["batch_id"].to_pylist() for joined in slices] == [[world.accepted()[1]["id"]]]


def test_requests_in_flight_count_for_a_refresh_and_are_not_sent_again(world: World) -> None:
    world.emulator.settings(latency=3600)
    rows = texts(3)
    world.send(world.pipeline(rows))
    report = refresh(world, world.pipeline())
    assert (report.in_flight, report.written) == (3, 0)
    world.emulator.end_batches()
    done = world.finish(world.pipeline()).results
    assert done is not None
    assert done.kept == 0
    assert batches_of(world, world.pipeline()) == [0, 0, 0]
    assert len(world.accepted_custom_ids()) == 3


def test_a_row_whose_refresh_fails_for_good_keeps_its_answer(world: World) -> None:
    pipeline = world.pipeline(texts(2), retry={"max_attempts": 2})
    world.run(pipeline)
    fail(world, expired=1.0)
    refresh(world, pipeline)
    done = world.finish(pipeline).results
    assert done is not None
    assert done.kept == 2
    table = world.table(pipeline)
    assert list(table["result_type"]) == ["succeeded"] * 2
    assert table["error_type"].isna().all()
    assert batches_of(world, pipeline) == [0, 0]
    assert [batch["requests"] for batch in world.accepted()] == [2, 2, 2], "two attempts of the refresh's own"
    assert world.build(pipeline).written == 0


def test_a_row_without_any_answer_has_its_last_failure(world: World) -> None:
    pipeline = world.pipeline(texts(2), retry={"max_attempts": 2})
    fail(world, expired=1.0)
    world.run(pipeline)
    fail(world, permission_error=1.0)
    refresh(world, pipeline)
    done = world.finish(pipeline).results
    assert done is not None
    assert done.kept == 0
    table = world.table(pipeline)
    assert list(table["error_type"]) == ["permission_error"] * 2
    assert list(table["attempts"]) == [1, 1]
    fail(world)
    world.build(pipeline, retry_failed=True)
    world.submit(pipeline)
    world.finish(pipeline)
    assert list(world.table(pipeline)["result_type"]) == ["succeeded"] * 2
    assert list(world.table(pipeline)["attempts"]) == [2, 2]


def test_a_refresh_continues_through_later_submissions_until_it_is_complete(world: World) -> None:
    """A scheduled run during a refresh neither forgets pending rows nor pays again for answered ones."""
    pipeline = world.pipeline(texts(2), batching={"max_requests": 1})
    world.run(pipeline)
    world.emulator.settings(latency=3600)
    refresh(world, pipeline)
    begun = in_force(world, pipeline).fresh_after
    third = world.accepted()[2]["id"]
    world.emulator.end_batches(third)
    join(world, pipeline)
    for again in ({}, {"refresh": True}):
        report = world.build(pipeline, **again)
        assert (report.written, report.reused, report.in_flight, report.is_refresh) == (0, 1, 1, True)
        assert in_force(world, pipeline).fresh_after == begun
        world.submit(pipeline)
    world.emulator.end_batches()
    world.finish(pipeline)
    assert batches_of(world, pipeline) == [2, 3]
    assert not world.build(pipeline).is_refresh


def test_a_refresh_that_was_never_sent_is_dropped_by_the_next_submission(world: World) -> None:
    pipeline = world.pipeline(texts(2))
    world.run(pipeline)
    assert world.build(pipeline, refresh=True).written == 2
    report = world.build(pipeline)
    assert (report.written, report.is_refresh) == (0, False)
    assert join(world, pipeline).final


def test_a_canceled_refresh_leaves_the_old_answers(world: World) -> None:
    from batch_assets.core.cancel import cancel

    pipeline = world.pipeline(texts(2), batching={"max_requests": 1})
    world.run(pipeline)
    world.emulator.settings(latency=3600, cancel_delay=0.0)
    refresh(world, pipeline)
    world.emulator.end_batches(world.accepted()[3]["id"])
    cancel(world.root, pipeline.name)
    done = world.finish(pipeline).results
    assert done is not None
    assert done.kept == 1
    assert batches_of(world, pipeline) == [0, 3]
    assert list(world.table(pipeline)["result_type"]) == ["succeeded"] * 2
    assert world.build(pipeline).written == 0


def test_new_rows_and_edited_prompts_are_sent_with_the_rest(world: World) -> None:
    rows = texts(2)
    world.run(world.pipeline(rows))
    pipeline = world.pipeline(rows | {"new": "a new text"})
    assert refresh(world, pipeline).written == 3
    world.finish(pipeline)
    assert list(world.table(pipeline)["id"]) == [*rows, "new"]
    assert batches_of(world, pipeline) == [1, 1, 1]
    assert refresh(world, world.pipeline(params=params("Please: {{ text }}"))).written == 3


def test_another_partition_uses_the_newest_answer(world: World) -> None:
    """Partitions with the same requests share answers of the newest refresh, and neither waits on the other."""
    pipeline = world.pipeline(texts(2))
    for partition in ("A", "B"):
        world.send(pipeline, partition)
        world.finish(pipeline, partition)
    refresh(world, pipeline, "B")
    world.finish(pipeline, "B")
    assert world.build(pipeline, "A").written == 0
    assert join(world, pipeline, "A").final
    assert batches_of(world, pipeline) == [1] * 4
    assert refresh(world, pipeline, "A").written == 2


def test_of_two_answers_the_newest_refresh_counts_however_late_the_other_comes(world: World) -> None:
    pipeline = world.pipeline(texts(1))
    world.run(pipeline)
    refresh(world, pipeline)
    world.finish(pipeline)
    first, second = (world.path("asked", "responses", f"{batch['id']}.parquet") for batch in world.accepted())
    assert batches_of(world, pipeline) == [1]
    import pyarrow.parquet as pq

    table = pq.read_table(first)  # as if the first batch had ended last
    pq.write_table(table.replace_schema_metadata({b"ended_at": b"9999999999.0"}), first)
    assert pq.read_schema(second).metadata[b"ended_at"] < b"9999999999.0"
    join(world, pipeline)
    assert batches_of(world, pipeline) == [1]


@pytest.mark.parametrize("when", ["built", "sent", "half", "ended", "over"])
def test_a_lost_ledger_in_the_middle_of_a_refresh(world: World, when: str) -> None:
    pipeline = world.pipeline(texts(2), batching={"max_requests": 1})
    world.run(pipeline)
    world.emulator.settings(latency=3600)
    world.build(pipeline, refresh=True)
    begun = in_force(world, pipeline).fresh_after
    if when != "built":
        world.submit(pipeline)
    if when == "half":
        world.emulator.end_batches(world.accepted()[2]["id"])
        join(world, pipeline)
    if when in ("ended", "over"):
        world.emulator.end_batches()
    if when == "over":
        world.finish(pipeline)
    lose_ledger(world)
    assert in_force(world, pipeline).fresh_after == begun
    if when == "built":  # only for the user to decide: in doubt, and sent again after the grace period
        world.submit(pipeline)
        end_grace_period(world)
        world.submit(pipeline)
    elif when != "over":
        assert not join(world, pipeline).final or when == "ended"
    world.emulator.end_batches()
    world.finish(pipeline)
    assert sorted(batches_of(world, pipeline)) == [2, 3]
    assert world.build(pipeline).written == 0
    assert len(world.accepted_custom_ids()) == 4


def test_a_lost_ledger_does_not_make_old_answers_new(world: World) -> None:
    """This also holds if rows of a refresh wait on another submission's file: the manifest names it."""
    world.emulator.settings(latency=3600)
    rows = texts(2)
    world.send(world.pipeline(rows))
    world.emulator.end_batches()
    world.finish(world.pipeline())
    more = world.pipeline(rows | {"new": "a new text"})
    world.send(more)
    report = refresh(world, more)
    assert (report.in_flight, report.written) == (1, 2)
    world.emulator.end_batches(world.accepted()[1]["id"])
    join(world, more)
    lose_ledger(world)
    partial = join(world, more)
    assert dict(partial.counts) == {"succeeded": 1, "pending": 2}
    world.emulator.end_batches()
    world.finish(more)
    assert batches_of(world, more) == [2, 2, 1]


def test_a_refresh_whose_table_was_not_there_yet_is_announced_after_the_ledger_was_lost(world: World) -> None:
    pipeline = world.pipeline(texts(1))
    world.run(pipeline)
    refresh(world, pipeline)
    lose_ledger(world)
    world.finish(pipeline)
    with world.root.ledger.read() as tx:
        work = round_for(tx, in_force(world, pipeline))
    assert work is not None
    assert "not announced" in reason(work)


def test_a_response_file_that_was_deleted_belongs_to_its_refresh_again(world: World) -> None:
    pipeline = world.pipeline(texts(1))
    world.run(pipeline)
    refresh(world, pipeline)
    world.finish(pipeline)
    for batch in world.accepted():
        world.path("asked", "responses", f"{batch['id']}.parquet").unlink()
    collect_results(world.root, pipeline.name)
    world.finish(pipeline)
    assert batches_of(world, pipeline) == [1]


def refresh_in_a_process(folder: str, variables: dict[str, str], how: dict[str, bool]) -> None:
    """Do what a run with --refresh does, in a process that is killed."""
    root = open_root(Settings.from_env(variables))
    pipeline = make_pipeline(Path(folder), {"path": "rows.jsonl", "key": "id"}, batching={"max_requests": 1})
    build_requests(root, pipeline, **how)
    submit_batches(root, pipeline.name)
    while True:
        poll(root, now=True)
        done = collect_results(root, pipeline.name).results
        if done is not None and done.final:
            return
        submit_batches(root, pipeline.name, unattended=True)


def test_killed_anywhere_a_refresh_starts_again_and_nothing_is_paid_three_times(
    new_world: Callable[..., World], python: ForkServer
) -> None:
    """After the kill the refresh is started again, as a user would."""
    work = "tests.core.requests.test_refresh:refresh_in_a_process"
    for die_at in range(random.randint(1, 100), 600, 100):  # other positions in every run
        world = new_world(name=f"killed at {die_at}")
        # Texts of its own: another root's batch of the very same requests could be taken for a lost one.
        pipeline = world.pipeline(texts(2, f"row {die_at}"), batching={"max_requests": 1})
        world.run(pipeline)
        variables = environment(world.emulator.url, world.root.settings.root)
        arguments = {"folder": str(world.folder), "variables": variables, "how": {"refresh": True}}
        (outcome,) = python.run((work, arguments), die_at=die_at)
        assert outcome.killed or not outcome.error, outcome
        world.query("update lease set until = 0")
        over = in_force(world, pipeline).fresh_after is not None and in_force(world, pipeline).final_at is not None
        (outcome,) = python.run((work, arguments | {"how": {"refresh": not over}}))
        assert not outcome.error, outcome
        assert sorted(batches_of(world, pipeline)) == [2, 3], die_at
        assert [batch["requests"] for batch in world.accepted()] == [1] * 4, die_at
        if over:
            break
    else:
        raise AssertionError("it was killed every time: look further")
