"""Repeated runs: answered, in-flight and given-up requests are not written again; superseded files; garbage."""

from __future__ import annotations

import shutil

from ..support import CREATE, World, params, texts


def test_an_unchanged_dataset_sends_nothing(world: World) -> None:
    pipeline = world.pipeline(texts(5))
    world.run(pipeline)
    world.forget_calls()
    report = world.build(pipeline)
    world.submit(pipeline)
    done = world.collect(pipeline)
    assert (report.requests, report.written, report.reused) == (5, 0, 5)
    assert done.results is not None
    assert done.results.final
    assert world.calls()["POST /v1/messages/batches"] == 0
    assert len(world.accepted()) == 1


def test_a_changed_prompt_sends_every_row_again_and_going_back_sends_none(world: World) -> None:
    rows = texts(5)
    world.run(world.pipeline(rows))
    world.run(world.pipeline(rows, params=params("Please: {{ text }}")))
    assert [batch["requests"] for batch in world.accepted()] == [5, 5]
    table = world.run(world.pipeline(rows))
    assert len(world.accepted()) == 2
    assert not table["response_text"].str.contains("Please").any()


def test_rows_in_flight_are_waited_for_and_not_sent_again(world: World) -> None:
    world.emulator.settings(latency=3600)
    rows = texts(3)
    world.send(world.pipeline(rows))
    pipeline = world.pipeline(rows | {"new": "a new text"})
    report = world.build(pipeline)
    assert (report.in_flight, report.written) == (3, 1)
    world.submit(pipeline)
    world.emulator.end_batches()
    world.finish(pipeline)
    assert [batch["requests"] for batch in world.accepted()] == [3, 1]
    assert list(world.table(pipeline)["result_type"]) == ["succeeded"] * 4


def test_a_second_partition_waits_on_the_first_ones_requests_and_pays_once(world: World) -> None:
    world.emulator.settings(latency=3600)
    rows = texts(3)
    world.build(world.pipeline(rows), "2024-01-01")
    world.submit(world.pipeline(), "2024-01-01")
    pipeline = world.pipeline({"other": rows["row-0"], "more": "a text of its own"})
    report = world.build(pipeline, "2024-01-02")
    assert (report.in_flight, report.written) == (1, 1)
    world.submit(pipeline, "2024-01-02")
    partial = world.collect(pipeline, "2024-01-02").results
    assert partial is not None
    assert (dict(partial.counts), partial.final) == ({"pending": 2}, False)
    world.emulator.end_batches()
    world.finish(pipeline, "2024-01-02")
    table = world.table(pipeline)
    assert list(table[table["partition"] == "2024-01-02"]["result_type"]) == ["succeeded"] * 2
    assert len(world.accepted_custom_ids()) == 4


def test_a_partition_can_send_what_another_wrote_and_never_sent(world: World) -> None:
    """It waits on the other partition's file, so its own run of `batches` submits that file."""
    rows = texts(2)
    world.build(world.pipeline(rows), "one")
    pipeline = world.pipeline(rows)
    assert world.build(pipeline, "two").written == 0
    world.submit(pipeline, "two")
    world.finish(pipeline, "two")
    assert len(world.accepted_custom_ids()) == 2
    world.submit(pipeline, "one")
    assert len(world.accepted_custom_ids()) == 2


def test_files_never_sent_are_superseded(world: World) -> None:
    rows = texts(3)
    world.build(world.pipeline(rows))
    first = world.files(world.pipeline())
    pipeline = world.pipeline(rows, params=params("Better: {{ text }}"))
    report = world.build(pipeline)
    assert report.written == 3
    (state,) = world.query("select state from request_file where id = :id", id=first[0].id)
    assert state == ("superseded",)
    world.submit(pipeline)
    world.finish(pipeline)
    assert len(world.accepted()) == 1
    assert world.table(pipeline)["response_text"].str.contains("Better").all()


def test_unsent_files_of_the_same_content_are_superseded_too(world: World) -> None:
    pipeline = world.pipeline(texts(3))
    world.build(pipeline)
    assert world.build(pipeline).written == 3
    world.submit(pipeline)
    assert len(world.accepted_custom_ids()) == 3


def test_a_file_whose_post_was_tried_is_not_superseded(world: World) -> None:
    """It may have reached the API: a new submission waits on it."""
    pipeline = world.pipeline(texts(3))
    world.emulator.faults([{"match": {**CREATE, "times": 1}, "action": {"drop": "after_commit"}}])
    world.emulator.faults(
        [{"match": {"method": "GET", "path": "/v1/messages/batches"}, "action": {"hide_from_list": 900}}]
    )
    world.root = world.reopened(BATCH_ASSETS_RECONCILE_GRACE="900")
    world.send(pipeline)
    assert world.states(pipeline) == ["unresolved"]
    report = world.build(pipeline)
    assert (report.in_flight, report.written) == (3, 0)
    world.emulator.reset_faults()
    world.submit(pipeline)
    world.finish(pipeline)
    assert len(world.accepted()) == 1


def test_given_up_requests_are_not_written_again(world: World) -> None:
    """A lasting error is final, and the row keeps it in every run."""
    pipeline = world.pipeline(texts(2), params=params(model="claude-unknown"))
    for _ in range(2):
        table = world.run(pipeline)
        assert list(table["result_type"]) == ["errored"] * 2
    assert len(world.accepted()) == 1


def test_what_a_killed_build_left_is_removed_and_nothing_else(world: World) -> None:
    pipeline = world.pipeline(texts(2))
    kept = world.submission_folder(pipeline, world.build(pipeline))
    requests = world.path("asked", "requests")
    killed = requests / "20240101T000000-dead"
    killed.mkdir()
    (killed / "part-00000.jsonl").write_text("{}")
    (killed / ".part-00001.jsonl.abc.tmp").write_text("{")
    partition = requests / "partition=x" / "20240101T000000-dead"
    shutil.copytree(killed, partition)
    world.build(pipeline)
    assert not killed.exists()
    assert partition.exists()
    assert kept.exists()
    world.build(pipeline, "x")
    assert not partition.exists()


def test_a_folder_that_was_finished_but_not_registered_is_registered(world: World) -> None:
    """Its run was killed after the manifest, or the ledger has lost it: its files are sent, and no others."""
    pipeline = world.pipeline(texts(2))
    world.build(pipeline)
    for table in ("wait", "request_file", "submission"):
        world.query(f"delete from {table}")
    report = world.build(pipeline)
    assert (report.written, report.in_flight) == (0, 2)
    assert list(world.run(pipeline)["result_type"]) == ["succeeded"] * 2
    assert len(world.accepted()) == 1
