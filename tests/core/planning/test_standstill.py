"""Requests are not retried while their request file is gone. Everything else continues, with growing pauses."""

from __future__ import annotations

from pathlib import Path

import pytest

from batch_assets.cli.headless import RunFailedError, run_pipeline
from batch_assets.core.ledger import standstills, submissions
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.planning.steps import Round, Send
from batch_assets.core.requests.report import AskAgain
from batch_assets.core.results.report import ResultsReport

from ..support import CREATE, World, round_for, texts

EXPIRED = {"match": {**CREATE, "times": 1}, "action": {"error_mix": {"expired": 1.0}}}


def work(world: World, pipeline: Pipeline) -> Round | None:
    """The work that the sensor would find."""
    with world.root.ledger.read() as tx:
        submission = submissions.newest(tx, pipeline.name, "")
        assert submission is not None
        return round_for(tx, submission)


def later(world: World, seconds: float) -> None:
    """Let time pass since the retries that failed."""
    world.query("update history set at = at - :seconds where kind = 'submission'", seconds=seconds)


def folder(world: World, pipeline: Pipeline) -> Path:
    return world.path(pipeline.name, "requests", world.files(pipeline)[0].submission_id)


def parts(world: World, pipeline: Pipeline) -> list[str]:
    """The names of all request files in the folder, hidden ones included."""
    return sorted(path.name for path in folder(world, pipeline).iterdir() if "jsonl" in path.name)


def test_a_lost_request_file_is_reported_and_delays_nothing_else(world: World) -> None:
    """The first of three batches expires, and its request file is lost. The last batch still runs."""
    world.emulator.settings(latency=3600)
    world.emulator.faults([EXPIRED])
    pipeline = world.pipeline(texts(6), batching={"max_requests": 2})
    first, second, last = world.send(pipeline).submitted
    world.emulator.end_batches(first)
    world.collect(pipeline)
    lost = folder(world, pipeline) / "part-00000.jsonl"
    kept = lost.rename(world.folder / "kept.jsonl")

    next_round = work(world, pipeline)
    assert next_round is not None and isinstance(next_round, Send)
    report = world.submit(pipeline, unattended=True)
    (why,) = report.waiting.values()
    assert "part-00000.jsonl is gone" in why and "Restore it" in why
    world.emulator.end_batches(second)
    done = world.collect(pipeline)
    assert done.results is not None and dict(done.results.counts) == {"pending": 4, "succeeded": 2}
    for waited in (61, 100, 300):  # the pause grows
        assert work(world, pipeline) is None
        later(world, waited)
        next_round = work(world, pipeline)
        assert next_round is not None and isinstance(next_round, Send)
        world.submit(pipeline, unattended=True)
    later(world, 61)
    assert work(world, pipeline) is None
    assert len(world.accepted()) == 3

    kept.rename(lost)  # as the error advises
    assert world.submit(pipeline).planned_again == 2, "a user's run does not wait"
    assert world.query("select count(*) from history where to_state = 'goes on'") == [(1,)]
    world.emulator.end_batches()
    world.finish(pipeline)
    assert list(world.table(pipeline)["result_type"]) == ["succeeded"] * 6
    assert list(world.table(pipeline)["attempts"]) == [2, 2, 1, 1, 1, 1]
    assert len(world.accepted()) == 4
    assert [batch["id"] for batch in world.accepted()][:3] == [first, second, last]


def test_a_lost_file_does_not_keep_the_failed_requests_of_others(world: World) -> None:
    """Requests whose text is there are sent again at once, and only once; the others wait for their file."""
    world.emulator.faults([{**EXPIRED, "match": {**CREATE, "times": 2}}])
    pipeline = world.pipeline(texts(8), batching={"max_requests": 4})
    world.send(pipeline)
    world.collect(pipeline)
    lost = folder(world, pipeline) / "part-00001.jsonl"
    kept = lost.rename(world.folder / "kept.jsonl")
    for planned in (4, 0):
        report = world.submit(pipeline)
        assert "part-00001.jsonl is gone" in report.waiting["retries"]
        assert report.planned_again == planned
    assert parts(world, pipeline) == ["part-00000.jsonl", "part-00002.jsonl"]
    assert world.query("select ask_again from submission") == [(4,)]
    kept.rename(lost)
    assert world.submit(pipeline).planned_again == 4
    world.finish(pipeline)
    assert list(world.table(pipeline)["attempts"]) == [2] * 8


def test_a_standstill_ends_with_the_first_successful_try(world: World) -> None:
    world.send(world.pipeline(texts(1)))
    ((name,),) = world.query("select id from submission")
    with world.root.ledger.write() as tx:
        standstills.end(tx, name)
        assert standstills.current(tx, name) is None
        standstills.note(tx, name, "one")
        standstills.note(tx, name, "two")
        standstill = standstills.current(tx, name)
        assert standstill is not None and (standstill.why, standstill.last - standstill.since) == ("two", 0.0)
        assert standstill.next_try(60.0, 3600.0) == standstill.last + 60.0
        standstills.end(tx, name)
        assert standstills.current(tx, name) is None
        standstills.note(tx, name, "three")
        assert standstills.current(tx, name) == standstills.Standstill(tx.now, tx.now, "three")


class _Losing:
    """A watcher that removes the request file after its requests have failed."""

    def __init__(self, world: World, pipeline: Pipeline) -> None:
        self._world, self._pipeline = world, pipeline
        self.counts: list[dict[str, int]] = []

    def joined(self, results: ResultsReport) -> None:
        self.counts.append(dict(results.counts))
        (folder(self._world, self._pipeline) / "part-00000.jsonl").unlink(missing_ok=True)

    def __getattr__(self, _name: str) -> object:
        return lambda *_: None


def test_a_run_with_nothing_else_to_wait_for_ends_and_says_what_to_do(world: World) -> None:
    world.emulator.faults([EXPIRED])
    pipeline = world.pipeline(texts(4), batching={"max_requests": 2})
    watcher = _Losing(world, pipeline)
    with pytest.raises(RunFailedError, match=r"part-00000\.jsonl is gone .*Restore it"):
        run_pipeline(world.root, pipeline, "", watcher, again=AskAgain())  # type: ignore[arg-type]
    assert watcher.counts[-1] == {"pending": 2, "succeeded": 2}
    assert len(world.accepted()) == 2


def test_a_lost_file_that_is_in_flight_does_not_keep_answers_from_the_table(world: World) -> None:
    """It is unknown which of the failed requests the file holds, so they are pending until its batch ends."""
    world.emulator.settings(latency=3600)
    world.emulator.faults([EXPIRED])
    pipeline = world.pipeline(texts(6), batching={"max_requests": 2}, retry={"max_attempts": 1})
    first, second, _ = world.send(pipeline).submitted
    kept = (folder(world, pipeline) / "part-00002.jsonl").rename(world.folder / "kept.jsonl")
    (folder(world, pipeline) / "part-00002.digests").unlink()
    world.emulator.end_batches(first)
    world.emulator.end_batches(second)
    done = world.collect(pipeline)
    assert done.results is not None and dict(done.results.counts) == {"pending": 4, "succeeded": 2}
    (problem,) = done.problems
    assert "part-00002.jsonl is submitted, but it is gone" in problem
    kept.rename(folder(world, pipeline) / "part-00002.jsonl")
    done = world.collect(pipeline)
    assert done.results is not None
    assert dict(done.results.counts) == {"expired": 2, "pending": 2, "succeeded": 2}
    assert done.problems == []
