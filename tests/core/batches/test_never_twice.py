"""Cases in which requests were once paid twice, or rows waited without end, because stages met at a bad moment."""

from __future__ import annotations

import json
import urllib.request
from collections import Counter
from typing import Any

import pytest

from batch_assets.core.batches.poll import poll
from batch_assets.core.errors import MissingFileError, SubmissionStoppedError, UnreachableError
from batch_assets.core.ledger import joins, submissions
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.planning.steps import Round, Send
from batch_assets.core.requests.registration import Registrar
from batch_assets.core.results.run import collect_results

from ..support import BATCHES, CREATE, LIST, World, params, round_for, texts, wait_for


def work(world: World, pipeline: Pipeline, partition: str = "") -> Round | None:
    """Return the work that the sensor would find."""
    with world.root.ledger.read() as tx:
        newest = submissions.newest(tx, pipeline.name, partition)
        assert newest is not None
        return round_for(tx, newest)


def asked_more_than_once(world: World) -> int:
    return sum(count > 1 for count in Counter(world.accepted_custom_ids()).values())


def announce(world: World, pipeline: Pipeline) -> None:
    with world.root.ledger.write() as tx:
        newest = submissions.newest(tx, pipeline.name, "")
        assert newest is not None
        joins.announced(tx, newest.id)


def expired_once(world: World) -> Pipeline:
    """A pipeline whose requests all expired in their first attempt, and whose next batch runs without end."""
    world.emulator.settings(latency=3600)
    pipeline = world.pipeline(texts(4))
    world.send(pipeline)
    world.emulator.expire_batches()
    world.collect(pipeline)
    return pipeline


def test_files_sent_while_the_next_submission_is_built_are_not_sent_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.emulator.settings(latency=3600)
    pipeline = world.pipeline(texts(20), batching={"max_requests": 10})
    world.build(pipeline)
    register = Registrar.register

    def sent_just_before(*arguments: Any) -> bool:
        world.submit(pipeline)
        return register(*arguments)

    monkeypatch.setattr(Registrar, "register", sent_just_before)
    world.build(pipeline)
    monkeypatch.undo()
    world.submit(pipeline)
    assert len(world.accepted_custom_ids()) == 20
    assert asked_more_than_once(world) == 0


def test_failed_requests_are_planned_once_even_if_the_api_is_unavailable(world: World) -> None:
    pipeline = expired_once(world)
    world.emulator.faults([{"match": LIST, "action": {"status": 500}}])
    with pytest.raises(UnreachableError):
        world.submit(pipeline, unattended=True)
    world.emulator.reset_faults()
    collect_results(world.root, pipeline.name)
    world.submit(pipeline, unattended=True)
    assert [file.requests for file in world.files(pipeline)] == [4, 4]
    assert len(world.accepted_custom_ids()) == 8, "each request in its first and its second attempt"


def test_nothing_is_left_to_do_while_failed_requests_are_retried(world: World) -> None:
    pipeline = expired_once(world)
    assert work(world, pipeline) is not None
    world.submit(pipeline, unattended=True)
    collect_results(world.root, pipeline.name)
    assert work(world, pipeline) is None
    world.emulator.end_batches()
    world.finish(pipeline)
    assert set(world.table(pipeline)["attempts"]) == {2}


def test_a_partition_waits_on_requests_that_another_retries(world: World) -> None:
    world.emulator.settings(latency=3600)
    pipeline = world.pipeline(texts(4))
    world.send(pipeline, "A")
    world.send(pipeline, "B")
    world.emulator.expire_batches()
    world.collect(pipeline, "A")
    world.submit(pipeline, "A", unattended=True)
    world.collect(pipeline, "B")
    world.submit(pipeline, "B", unattended=True)
    assert len(world.accepted()) == 2
    world.emulator.end_batches()
    poll(world.root, now=True)
    assert collect_results(world.root, pipeline.name, "A").results.final  # type: ignore[union-attr]
    assert work(world, pipeline, "B") is not None
    assert collect_results(world.root, pipeline.name, "B").results.final  # type: ignore[union-attr]


def test_requests_stopped_in_one_partition_are_sent_by_another_only_once(world: World) -> None:
    pipeline = world.pipeline(texts(4))
    body = {
        "type": "error",
        "error": {"type": "invalid_request_error", "message": "Your credit balance is too low"},
    }
    world.emulator.faults([{"match": {**CREATE, "times": 1}, "action": {"status": 400, "body": body}}])
    world.build(pipeline, "A")
    with pytest.raises(SubmissionStoppedError):
        world.submit(pipeline, "A")
    assert not isinstance(work(world, pipeline, "A"), Send)
    world.send(pipeline, "B")
    world.finish(pipeline, "B")
    world.submit(pipeline, "A")
    world.finish(pipeline, "A")
    assert len(world.accepted_custom_ids()) == 4


@pytest.mark.parametrize("left", [2, 0])
def test_a_smaller_dataset_gets_its_table_without_sending_anything(world: World, left: int) -> None:
    pipeline = world.pipeline(texts(4))
    world.run(pipeline)
    announce(world, pipeline)
    assert work(world, pipeline) is None
    pipeline = world.pipeline(dict(list(texts(4).items())[:left]))
    world.send(pipeline)
    next_round = work(world, pipeline)
    assert next_round is not None
    assert not isinstance(next_round, Send)
    assert collect_results(world.root, pipeline.name).results.final  # type: ignore[union-attr]
    assert len(world.table(pipeline)) == left


def lose(world: World, pipeline: Pipeline, partition: str = "", hidden: float = 2.0) -> None:
    """Send a file whose batch the list hides for a while, so that it is sent again (the grace period is 0)."""
    world.emulator.faults(
        [
            {"match": {**CREATE, "times": 1}, "action": {"drop": "after_commit"}},
            {"match": LIST, "action": {"hide_from_list": hidden}},
        ]
    )
    world.send(pipeline, partition)
    world.submit(pipeline, partition)
    world.emulator.reset_faults()
    world.finish(pipeline, partition)


def test_a_batch_hidden_beyond_the_grace_period_is_found_unattended_and_reported(world: World) -> None:
    pipeline = world.pipeline(texts(4))
    lose(world, pipeline, hidden=3600)
    announce(world, pipeline)
    next_round = work(world, pipeline)
    assert next_round is not None
    assert isinstance(next_round, Send)
    world.submit(pipeline, unattended=True)
    collect_results(world.root, pipeline.name)
    assert sorted(world.query("select state, paid_twice from batch")) == [("collected", 0), ("collected", 1)]
    assert len(world.accepted()) == 2


def test_a_late_batch_of_ours_is_not_recorded_as_foreign_by_another_file(world: World) -> None:
    pipeline = world.pipeline(texts(4))
    lose(world, pipeline, "A", hidden=3600)
    other = world.pipeline(texts(4, "other"))
    world.emulator.faults([{"match": {**CREATE, "times": 1}, "action": {"drop": "before_commit"}}])
    world.send(other, "B")
    world.submit(other, "B")
    assert ("foreign",) not in world.query("select state from batch")
    assert (1,) in world.query("select paid_twice from batch")


def post(world: World, path: str, method: str, body: Any = None) -> Any:
    """Call the API as someone else in the same workspace."""
    request = urllib.request.Request(
        world.emulator.url + path,
        data=json.dumps(body).encode() if body is not None else None,
        method=method,
        headers={"x-api-key": "k", "content-type": "application/json", "anthropic-version": "2023-06-01"},
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request) as answer:
        return json.load(answer)


def test_a_strangers_batch_that_is_deleted_does_not_hold_our_file(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.emulator.settings(latency=3600)
    pipeline = world.pipeline(texts(4))
    world.emulator.faults([{"match": {**CREATE, "times": 1}, "action": {"drop": "before_commit"}}])
    world.build(pipeline)
    monkeypatch.setattr("batch_assets.core.batches.submit.reconcile", lambda root: [])
    world.submit(pipeline)
    monkeypatch.undo()
    body = {"requests": [{"custom_id": f"s{number}", "params": params("hi")} for number in range(4)]}
    stranger = post(world, BATCHES, "POST", body)["id"]
    world.submit(pipeline)
    assert world.query("select id, provisional from batch") == [(stranger, 1)]
    world.emulator.end_batches()
    post(world, f"{BATCHES}/{stranger}", "DELETE")
    poll(world.root, now=True)
    world.query("update batch set missing_since = missing_since - 1000")
    poll(world.root, now=True)
    assert world.states(pipeline) == ["unresolved"]
    wait_for(lambda: world.submit(pipeline) and world.states(pipeline) == ["submitted"], "sending again")
    world.emulator.end_batches()
    world.finish(pipeline)


def test_a_lost_request_file_of_one_pipeline_does_not_stop_another(world: World) -> None:
    pipeline = world.pipeline(texts(4), name="lost")
    world.emulator.faults([{"match": {**CREATE, "times": 1}, "action": {"drop": "before_commit"}}])
    report = world.build(pipeline)
    world.submit(pipeline)
    for part in world.submission_folder(pipeline, report).glob("*.jsonl"):
        part.unlink()
    other = world.pipeline(texts(3, "other"), name="other")
    world.run(other)
    assert len(world.table(other)) == 3
    pipeline = world.pipeline(texts(4), name="lost")
    assert world.build(pipeline).in_flight == 4
    world.submit(pipeline)
    world.run(pipeline)
    assert list(world.table(pipeline)["result_type"]) == ["succeeded"] * 4


def test_with_the_index_lost_as_well_what_is_in_flight_is_unknown(world: World) -> None:
    for word in ("first", "second"):  # most files of the pipeline are there
        world.run(world.pipeline(texts(2, word), name="lost"))
    world.emulator.settings(latency=3600)
    pipeline = world.pipeline(texts(4), name="lost")
    report = world.send(pipeline)
    for path in world.path("lost", "requests", report.submission_id).iterdir():
        path.unlink()
    with pytest.raises(MissingFileError, match=r"part-00000\.jsonl is submitted, but it is gone"):
        world.build(pipeline)


def test_more_batches_than_files_may_be_open_are_joined(world: World) -> None:
    pipeline = world.pipeline(texts(20), batching={"max_requests": 1})
    world.run(pipeline)
    table = world.table(pipeline)
    assert len(set(table["batch_id"])) == 20
    assert [text in answer for text, answer in zip(table["text"], table["response_text"], strict=True)] == [
        True
    ] * 20


def test_what_a_killed_download_left_is_removed_by_the_next(world: World) -> None:
    pipeline = world.pipeline(texts(2))
    world.send(pipeline)
    ((batch_id,),) = world.query("select id from batch")
    folder = world.path(pipeline.name, "responses")
    folder.mkdir(parents=True)
    left = [folder / f".{batch_id}.parquet.raw.0123.tmp", folder / f".{batch_id}.parquet.4567.tmp"]
    others = folder / ".msgbatch_other.parquet.89ab.tmp"
    for path in [*left, others]:
        path.write_bytes(b"half")
    world.finish(pipeline)
    assert [path.name for path in folder.glob(".*")] == [others.name]
