"""Given-up requests are sent again, and results are not final while a failed request is in flight again."""

from __future__ import annotations

from typing import Any

import pytest

from batch_assets.core.io.storage import Storage
from batch_assets.core.ledger import joins, submissions
from batch_assets.core.ledger.records import RequestFile
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.planning.texts import reason
from batch_assets.core.requests.build import build_requests
from batch_assets.core.requests.report import RequestsReport
from batch_assets.core.results.run import collect_results
from batch_assets.core.store import in_flight

from ..support import CREATE, World, round_for, texts


def fail(world: World, **mix: Any) -> None:
    """Set the outcomes of requests in all batches from now on."""
    world.emulator.reset_faults()
    if mix:
        world.emulator.faults([{"match": CREATE, "action": {"error_mix": mix}}])


def build_again(world: World, pipeline: Pipeline) -> RequestsReport:
    return build_requests(world.root, pipeline, retry_failed=True)


def types(world: World, pipeline: Pipeline) -> list[str]:
    return list(world.table(pipeline)["result_type"])


def is_final(world: World, pipeline: Pipeline) -> bool:
    """Join the table and return what the ledger records about it."""
    done = collect_results(world.root, pipeline.name)
    assert done.results is not None
    with world.root.ledger.read() as tx:
        newest = submissions.newest(tx, pipeline.name, "")
    assert newest is not None
    assert done.results.final == (newest.final_at is not None)
    return done.results.final


@pytest.mark.parametrize("kind", ["permission_error", "expired", "archived"])
def test_given_up_requests_are_sent_once_more_only_with_retry_failed(world: World, kind: str) -> None:
    if kind == "archived":
        world.emulator.settings(latency=3600)
    else:
        fail(world, **{kind: 1.0})
    pipeline = world.pipeline(texts(3), retry={"max_attempts": 2})
    world.send(pipeline)
    if kind == "archived":
        world.emulator.end_batches()
        world.emulator.archive_batches()
    world.finish(pipeline)
    spent = 2 if kind == "expired" else 1
    assert list(world.table(pipeline)["attempts"]) == [spent] * 3
    assert world.build(pipeline).written == 0

    fail(world)
    world.emulator.settings(latency=3600)
    report = build_again(world, pipeline)
    assert (report.written, report.reused) == (3, 0)
    assert not is_final(world, pipeline)
    world.submit(pipeline)
    assert not is_final(world, pipeline)
    assert "pending" not in types(world, pipeline)  # the complete table of before stays
    assert list(world.waiting_table(pipeline)["result_type"]) == ["pending"] * 3
    world.emulator.end_batches()
    world.finish(pipeline)
    assert types(world, pipeline) == ["succeeded"] * 3
    assert list(world.table(pipeline)["attempts"]) == [spent + 1] * 3
    assert len(world.accepted_custom_ids()) == 3 * (spent + 1)


def test_retry_failed_gives_one_attempt_even_if_it_fails_for_a_passing_reason(world: World) -> None:
    fail(world, expired=1.0)
    pipeline = world.pipeline(texts(2), retry={"max_attempts": 2})
    world.run(pipeline)
    for attempts in (3, 4):
        build_again(world, pipeline)
        world.submit(pipeline)
        world.finish(pipeline)
        assert list(world.table(pipeline)["attempts"]) == [attempts] * 2
    assert types(world, pipeline) == ["expired"] * 2
    assert len(world.accepted_custom_ids()) == 8


def test_requests_with_attempts_left_are_still_retried_afterwards(world: World) -> None:
    """A request with a lasting failure is sent again, and then fails for a passing reason."""
    fail(world, permission_error=1.0)
    pipeline = world.pipeline(texts(2), retry={"max_attempts": 3})
    world.run(pipeline)
    fail(world, expired=1.0)
    build_again(world, pipeline)
    world.submit(pipeline)
    world.finish(pipeline)
    assert list(world.table(pipeline)["attempts"]) == [3, 3]
    assert [batch["requests"] for batch in world.accepted()] == [2, 2, 2]


def test_answered_requests_and_requests_in_flight_are_left_alone(world: World) -> None:
    world.emulator.settings(latency=3600)
    pipeline = world.pipeline(texts(2))
    world.send(pipeline)
    assert build_again(world, pipeline).in_flight == 2
    world.emulator.end_batches()
    world.finish(pipeline)
    report = build_again(world, pipeline)
    assert (report.written, report.reused) == (0, 2)
    assert len(world.accepted_custom_ids()) == 2


def test_another_partition_waits_on_a_failed_request_that_is_sent_again(world: World) -> None:
    fail(world, permission_error=1.0)
    pipeline = world.pipeline(texts(2))
    for partition in ("A", "B"):
        world.send(pipeline, partition)
        world.finish(pipeline, partition)
        with world.root.ledger.write() as tx:
            newest = submissions.newest(tx, pipeline.name, partition)
            assert newest is not None
            joins.announced(tx, newest.id)
    fail(world)
    world.emulator.settings(latency=3600)
    build_requests(world.root, pipeline, "B", retry_failed=True)
    world.submit(pipeline, "B")
    done = collect_results(world.root, pipeline.name, "A")
    assert done.results is not None
    assert done.results.counts == {"pending": 2}
    world.emulator.end_batches()
    world.finish(pipeline, "B")
    world.finish(pipeline, "A")
    with world.root.ledger.read() as tx:
        newest = submissions.newest(tx, pipeline.name, "A")
        assert newest is not None
        work = round_for(tx, newest)
    assert work is not None
    assert reason(work) == "the complete results are not announced yet"


def test_without_failures_the_request_files_are_not_read(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the batches are open during the join. Their files contain requests that were never answered."""
    world.emulator.settings(latency=3600)
    pipeline = world.pipeline(texts(4), batching={"max_requests": 2})
    first, _ = world.send(pipeline).submitted
    world.emulator.end_batches(first)
    reads: list[str] = []
    inner = in_flight.known_digests

    def counted(storage: Storage, file: RequestFile, *, own_partition: str | None = None) -> in_flight.FileDigests:
        reads.append(file.id)
        return inner(storage, file, own_partition=own_partition)

    monkeypatch.setattr(in_flight, "known_digests", counted)
    world.collect(pipeline)
    assert types(world, pipeline) == ["succeeded"] * 2 + ["pending"] * 2
    assert reads == []
    world.build(pipeline)
    assert reads, "the build does read them: the check itself works"
