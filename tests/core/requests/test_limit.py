"""A limit: only the first requests are sent, every row is in the index, and the limit is never exceeded."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from batch_assets.core.errors import SubmissionStoppedError
from batch_assets.core.ledger import submissions
from batch_assets.core.ledger.records import Submission
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.planning.steps import Send
from batch_assets.core.planning.texts import reason
from batch_assets.core.results.report import ResultsReport

from ..lost_ledger import lose_ledger
from ..support import CREATE, World, round_for, texts, wait_for


def send(world: World, pipeline: Pipeline, limit: int, **more: bool) -> tuple[int, int]:
    """Run `requests` and `batches`, and return (written, left out)."""
    report = world.build(pipeline, limit=limit, **more)
    world.submit(pipeline)
    return report.written, report.left_out


def in_force(world: World, pipeline: Pipeline) -> Submission:
    with world.root.ledger.read() as tx:
        submission = submissions.newest(tx, pipeline.name, "")
    assert submission is not None
    return submission


def settle(world: World, pipeline: Pipeline) -> ResultsReport:
    """Do what the sensor does until nothing is left to do."""

    def step() -> ResultsReport | None:
        done = world.collect(pipeline).results
        if done is not None and done.final:
            return done
        with world.root.ledger.read() as tx:
            submission = submissions.newest(tx, pipeline.name, "")
            assert submission is not None
            work = round_for(tx, submission)
            moving = [file for file in submissions.waited_on(tx, submission.id) if file.state != "collected"]
        if isinstance(work, Send):
            world.submit(pipeline, unattended=True)
        return done if work is None and not moving else None

    return wait_for(step, "nothing left to do")


def types(world: World, pipeline: Pipeline) -> list[str]:
    return list(world.table(pipeline)["result_type"])


def test_the_first_requests_are_sent_and_the_others_wait_for_a_run_without_limit(world: World) -> None:
    pipeline = world.pipeline(texts(5))
    assert send(world, pipeline, 2) == (2, 3)
    done = settle(world, pipeline)
    assert (done.final, done.left_out, done.held_back) == (False, 3, False)
    assert types(world, pipeline) == ["succeeded"] * 2 + ["pending"] * 3
    assert list(world.table(pipeline)["id"]) == list(texts(5))
    assert in_force(world, pipeline).left_out == 3
    assert send(world, pipeline, 2) == (2, 1), "what is answered counts no more"
    settle(world, pipeline)
    assert types(world, pipeline) == ["succeeded"] * 4 + ["pending"]
    world.run(pipeline)
    assert types(world, pipeline) == ["succeeded"] * 5
    assert (len(world.accepted_custom_ids()), in_force(world, pipeline).left_out) == (5, 0)


def test_a_limit_that_leaves_nothing_out_has_no_effect(world: World) -> None:
    pipeline = world.pipeline(texts(3))
    assert send(world, pipeline, 3) == (3, 0)
    assert settle(world, pipeline).final


def test_a_limit_counts_requests_and_not_rows(world: World) -> None:
    same = {"a": "the same", "empty": "", "b": "the same", "c": "another", "d": "a third", "e": "another"}
    pipeline = world.pipeline(same)
    assert send(world, pipeline, 1) == (1, 2)
    settle(world, pipeline)
    assert types(world, pipeline) == ["succeeded", "rejected", "succeeded", "pending", "pending", "pending"]


def test_a_limit_does_not_count_requests_in_flight(world: World) -> None:
    world.emulator.settings(latency=3600)
    pipeline = world.pipeline(texts(4))
    send(world, pipeline, 1)
    assert send(world, pipeline, 1) == (1, 2)
    world.emulator.end_batches()
    settle(world, pipeline)
    assert types(world, pipeline) == ["succeeded"] * 2 + ["pending"] * 2


def test_retries_do_not_exceed_the_limit(world: World) -> None:
    """Requests that failed before and have attempts left count like requests that were never sent."""
    pipeline = world.pipeline(texts(3), retry={"max_attempts": 3})
    world.emulator.faults([{"match": CREATE, "action": {"error_mix": {"expired": 1.0}}}])
    world.send(pipeline)
    world.collect(pipeline)
    assert send(world, pipeline, 1) == (1, 2)
    settle(world, pipeline)
    assert [batch["requests"] for batch in world.accepted()] == [3, 1, 1]
    assert types(world, pipeline) == ["expired", "pending", "pending"]
    world.emulator.reset_faults()
    assert send(world, pipeline, 2, retry_failed=True) == (2, 1)
    settle(world, pipeline)
    assert types(world, pipeline) == ["succeeded", "succeeded", "pending"]


def test_requests_within_the_limit_are_retried(world: World) -> None:
    world.emulator.faults([{"match": {**CREATE, "times": 1}, "action": {"error_mix": {"overloaded_error": 1.0}}}])
    pipeline = world.pipeline(texts(3))
    assert send(world, pipeline, 1) == (1, 2)
    settle(world, pipeline)
    assert types(world, pipeline) == ["succeeded", "pending", "pending"]
    assert next(iter(world.table(pipeline)["attempts"])) == 2


def test_given_up_requests_beyond_the_limit_stay_as_they_are(world: World) -> None:
    """Only requests without an outcome are left out: a run without a limit sends them."""
    rows = {"a": "one", "b": "two", "c": "two"}
    pipeline = world.pipeline(rows)
    world.emulator.faults([{"match": CREATE, "action": {"error_mix": {"permission_error": 1.0}}}])
    world.run(pipeline)
    world.emulator.reset_faults()
    pipeline = world.pipeline(rows | {"new": "a new text"})
    report = world.build(pipeline, limit=1, retry_failed=True)
    assert (report.written, report.left_out, report.reused) == (1, 1, 1)
    world.submit(pipeline)
    settle(world, pipeline)
    assert types(world, pipeline) == ["errored"] * 3, "until the new one is complete"
    assert list(world.waiting_table(pipeline)["result_type"]) == ["succeeded", "errored", "errored", "pending"]
    assert send(world, pipeline, 1, retry_failed=True) == (1, 1)
    settle(world, pipeline)
    world.run(pipeline)
    assert types(world, pipeline) == ["succeeded"] * 4
    assert [batch["requests"] for batch in world.accepted()] == [2, 1, 1, 1]


@pytest.mark.parametrize("more", [{}, {"limit": 1}, {"retry_failed": True}])
def test_an_ordinary_run_sends_no_more_of_a_limited_refresh_and_ends_it(
    world: World, more: dict[str, Any]
) -> None:
    """The user agreed to this number of requests, and to no others."""
    pipeline = world.pipeline(texts(3))
    world.run(pipeline)
    assert send(world, pipeline, 1, refresh=True) == (1, 2)
    done = settle(world, pipeline)
    assert (done.held_back, done.counts["pending"]) == (True, 2)
    assert types(world, pipeline) == ["succeeded"] * 3
    report = world.build(pipeline, **more)
    assert (report.written, report.reused, report.left_out, report.is_refresh) == (0, 3, 0, False)
    world.submit(pipeline)
    assert settle(world, pipeline).final
    first, second = [batch["id"] for batch in world.accepted()]
    assert list(world.table(pipeline)["batch_id"]) == [second, first, first]
    assert send(world, pipeline, 1, refresh=True) == (1, 2), "another refresh sends all of them again"


def test_a_limit_does_not_shorten_a_refresh_that_was_agreed_to(world: World) -> None:
    pipeline = world.pipeline(texts(4), batching={"max_requests": 1})
    world.run(pipeline)
    world.build(pipeline, refresh=True)
    wrong = {"type": "error", "error": {"type": "invalid_request_error", "message": "requests.0: wrong"}}
    refused = {"status": 400, "body": wrong}
    world.emulator.faults([{"match": {**CREATE, "nth": nth}, "action": refused} for nth in (2, 3)])
    with contextlib.suppress(SubmissionStoppedError):
        world.submit(pipeline)
    world.emulator.reset_faults()
    assert len(world.accepted()) == 6
    report = world.build(pipeline, limit=1)
    assert (report.is_refresh, report.written, report.left_out) == (True, 1, 1)
    world.submit(pipeline)
    assert world.build(pipeline).is_refresh
    world.submit(pipeline)
    settle(world, pipeline)
    assert [batch["requests"] for batch in world.accepted()] == [1] * 8


@pytest.mark.parametrize("limit", [2, None])
def test_a_refresh_that_is_built_again_before_more_of_it_is_sent_is_the_same_one(
    world: World, limit: int | None
) -> None:
    """A user inspects the requests, or a run is stopped before it sends."""
    pipeline = world.pipeline(texts(4), batching={"max_requests": 2})
    world.run(pipeline)
    if limit is None:
        world.build(pipeline, refresh=True)
        world.emulator.faults([{"match": {**CREATE, "nth": 2}, "action": {"status": 400}}])
        with contextlib.suppress(SubmissionStoppedError):
            world.submit(pipeline)
        world.emulator.reset_faults()
    else:
        send(world, pipeline, limit, refresh=True)
        settle(world, pipeline)
    for _ in range(2):
        report = world.build(pipeline, refresh=limit is not None)
        assert (report.is_refresh, report.written) == (True, 2)
    world.submit(pipeline)
    assert settle(world, pipeline).final
    assert [batch["requests"] for batch in world.accepted()] == [2] * 4


def test_a_limited_refresh_that_is_in_flight_brings_its_answers_though_it_was_ended(world: World) -> None:
    pipeline = world.pipeline(texts(2))
    world.run(pipeline)
    world.emulator.settings(latency=3600)
    send(world, pipeline, 1, refresh=True)
    report = world.build(pipeline)
    assert (report.written, report.reused, report.in_flight) == (0, 1, 1)
    world.submit(pipeline)
    done = world.collect(pipeline).results
    assert done is not None and done.final
    world.emulator.end_batches()
    settle(world, pipeline)
    first, second = [batch["id"] for batch in world.accepted()]
    assert list(world.table(pipeline)["batch_id"]) == [second, first]


def test_a_limited_refresh_goes_on_with_the_next_one(world: World) -> None:
    pipeline = world.pipeline(texts(4))
    world.run(pipeline)
    send(world, pipeline, 1, refresh=True)
    settle(world, pipeline)
    assert send(world, pipeline, 1, refresh=True) == (1, 2)
    settle(world, pipeline)
    report = world.build(pipeline, refresh=True)
    assert (report.written, report.reused, report.is_refresh) == (2, 2, True)
    world.submit(pipeline)
    assert world.build(pipeline).is_refresh, "all of it was agreed to by now"
    world.finish(pipeline)
    order = [batch["id"] for batch in world.accepted()]
    assert list(world.table(pipeline)["batch_id"]) == [order[1], order[2], order[3], order[3]]


def test_a_canceled_limited_submission_waits_for_nothing(world: World) -> None:
    from batch_assets.core.cancel import cancel

    pipeline = world.pipeline(texts(2))
    send(world, pipeline, 1)
    settle(world, pipeline)
    report = cancel(world.root, pipeline.name)
    submission = in_force(world, pipeline)
    assert report.submissions == [submission.id]
    assert cancel(world.root, pipeline.name).submissions == []
    with world.root.ledger.read() as tx:
        work = round_for(tx, submission)
    assert work is not None
    assert reason(work) == "its table was not written since it was canceled"
    assert settle(world, pipeline).final
    assert types(world, pipeline) == ["succeeded", "canceled"]


def test_a_limit_survives_a_lost_ledger(world: World) -> None:
    pipeline = world.pipeline(texts(3), retry={"max_attempts": 2})
    world.emulator.faults([{"match": CREATE, "action": {"error_mix": {"expired": 1.0}}}])
    world.send(pipeline)
    world.collect(pipeline)
    send(world, pipeline, 1)
    lose_ledger(world)
    assert in_force(world, pipeline).left_out == 2
    settle(world, pipeline)
    assert [batch["requests"] for batch in world.accepted()] == [3, 1]
    assert types(world, pipeline) == ["expired", "pending", "pending"]
