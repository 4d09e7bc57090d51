"""One run of `batches` over many partitions: their files are sent side by side, and each has its own outcome."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from batch_assets.core.batches import submit
from batch_assets.core.batches.submit import Outcome, submit_partitions
from batch_assets.core.batches.submit_report import SubmitReport
from batch_assets.core.batches.upload import Upload
from batch_assets.core.errors import StorageError, SubmissionStoppedError, UnreachableError
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.remedies import RunStage, Stage
from batch_assets.core.root import Root

from ..proxy import Proxy
from ..support import BATCHES, CREATE, LIST, World, texts

POST = f"POST {BATCHES}"
KEYS = ["a", "b", "c", "d"]


def build(world: World, rows: dict[str, int]) -> Pipeline:
    """Build the requests of some partitions, each with this number of rows of its own."""
    pipeline = world.pipeline(texts(1))
    for key, number in rows.items():
        world.build(world.pipeline(texts(number, f"{key} row")), key)
    return pipeline


def submitted(outcomes: dict[str, Outcome]) -> dict[str, int]:
    """The number of batches that each partition's report has."""
    return {key: len(each.submitted) if isinstance(each, SubmitReport) else -1 for key, each in outcomes.items()}


def test_files_of_several_partitions_are_in_transit_at_once(new_world: Callable[..., World]) -> None:
    world = new_world()
    build(world, {"a": 3, "b": 4, "c": 5, "d": 6})
    outcomes: dict[str, Outcome] = {}
    with Proxy(world.emulator.url) as proxy:
        through = new_world(BATCH_ASSETS_EMULATOR=proxy.url, BATCH_ASSETS_TRANSFERS="4")
        proxy.hold("request", 4)
        run = threading.Thread(target=lambda: outcomes.update(submit_partitions(through.root, "asked", KEYS)))
        run.start()
        assert proxy.held.wait(60), "the run sends one partition after the other"
        assert world.query("select distinct state from request_file") == [("sending",)]
        names = {name for (name,) in world.query("select name from lease") if name.startswith("sending:")}
        assert len(names) == 4, "other runs must see that all of these partitions are being sent"
        proxy.let_go()
        run.join()
    assert submitted(outcomes) == dict.fromkeys(KEYS, 1)
    assert world.query("select name from lease") == []
    of_file = world.query("select batch_id, partition from request_file")
    for batch_id, key in of_file:
        outcome = outcomes[key]
        assert isinstance(outcome, SubmitReport)
        assert outcome.submitted == [batch_id]


def test_files_of_equal_counts_are_kept_apart_between_partitions(new_world: Callable[..., World]) -> None:
    world = new_world(BATCH_ASSETS_TRANSFERS="4")
    build(world, dict.fromkeys(KEYS, 2))
    assert submitted(submit_partitions(world.root, "asked", KEYS)) == dict.fromkeys(KEYS, 1)
    under_way = Counter[str]()
    for (state,) in world.query("select to_state from history where kind = 'file' order by seq"):
        under_way[state] += 1
        assert under_way["sending"] - under_way["submitted"] <= 1


def test_a_refused_partition_stops_no_other(world: World) -> None:
    build(world, {"a": 3, "b": 4, "c": 5})
    refusal = {"status": 400, "body": {"error": {"type": "invalid_request_error", "message": "not this one"}}}
    world.emulator.faults([{"match": {**CREATE, "nth": [2]}, "action": refusal}])
    outcomes = submit_partitions(world.root, "asked", ["a", "b", "c", "nothing"])
    assert submitted(outcomes) == {"a": 1, "b": 0, "c": 1, "nothing": -1}
    assert outcomes["nothing"] is None
    assert isinstance(outcomes["b"], SubmitReport)
    (why,) = outcomes["b"].refused.values()
    assert "not this one" in why


def test_a_failure_of_one_partition_stops_no_other(world: World) -> None:
    pipeline = build(world, {"a": 3, "b": 4, "c": 5})
    (file,) = world.files(pipeline, "b")
    receipt = world.path("asked", "requests", "partition=b", file.submission_id, "part-00000.batch.json")
    receipt.mkdir()
    outcomes = submit_partitions(world.root, "asked", ["a", "b", "c"])
    assert isinstance(outcomes["b"], StorageError)
    assert submitted(outcomes) == {"a": 1, "b": -1, "c": 1}
    assert world.states(pipeline, "b") == ["submitted"]


def test_a_lost_reply_holds_back_no_partition_with_the_same_count(world: World) -> None:
    """It is found in the API's list in the same run, which then sends what it held back."""
    build(world, dict.fromkeys([*KEYS, "e"], 5))
    world.emulator.faults([{"match": {**CREATE, "nth": [1, 3]}, "action": {"drop": "after_commit"}}])
    outcomes = submit_partitions(world.root, "asked", [*KEYS, "e"])
    assert submitted(outcomes) == dict.fromkeys([*KEYS, "e"], 1)
    assert [each.waiting for each in outcomes.values() if isinstance(each, SubmitReport)] == [{}] * 5
    assert [batch["requests"] for batch in world.accepted()] == [5] * 5


def test_a_doubt_that_cannot_be_settled_ends_the_run(world: World) -> None:
    build(world, dict.fromkeys(KEYS, 5))
    hidden = {"match": {**LIST, "nth": [2, 3, 4, 5, 6, 7, 8, 9]}, "action": {"status": 500}}
    world.emulator.faults([{"match": CREATE, "action": {"drop": "after_commit"}}, hidden])
    outcomes = submit_partitions(world.root, "asked", KEYS)
    assert submitted(outcomes) == dict.fromkeys(KEYS, 0)
    assert all(isinstance(each, SubmitReport) and each.waiting for each in outcomes.values())
    assert len(world.accepted()) == 1


@pytest.mark.parametrize(
    ("owner", "name", "key_of"),
    [
        pytest.param(Root, "catch_up", lambda root, pipeline, key: key, id="before"),
        pytest.param(submit, "plan_again", lambda root, submission, *_: submission.partition, id="retries"),
        pytest.param(Upload, "run", lambda upload, progress: upload._file.partition, id="upload"),
        pytest.param(submit, "finish_replaced", lambda root, submission: submission.partition, id="after"),
    ],
)
def test_an_error_of_the_system_in_one_partition_stops_no_other(
    world: World, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, key_of: Callable[..., str]
) -> None:
    build(world, {"a": 3, "b": 4, "c": 5})
    step = getattr(owner, name)

    def fail(*arguments: Any, **named: Any) -> Any:
        if key_of(*arguments) == "b":
            raise OSError(28, "No space left on device")
        return step(*arguments, **named)

    monkeypatch.setattr(owner, name, fail)
    outcomes = submit_partitions(world.root, "asked", ["a", "b", "c"])
    assert isinstance(outcomes["b"], OSError)
    assert submitted(outcomes) == {"a": 1, "b": -1, "c": 1}


def test_a_refusal_of_the_account_stops_all_partitions_at_once(new_world: Callable[..., World]) -> None:
    world = new_world(BATCH_ASSETS_TRANSFERS="2")
    build(world, {"a": 3, "b": 4, "c": 5, "d": 6})
    world.emulator.faults([{"match": CREATE, "action": {"status": 401}}])
    outcomes = submit_partitions(world.root, "asked", KEYS)
    assert world.calls()[POST] <= 2, "the others would be refused for the same reason"
    for key, outcome in outcomes.items():
        assert isinstance(outcome, SubmissionStoppedError)
        assert outcome.remedy == RunStage(Stage.BATCHES, "asked", key)
    assert world.query("select distinct state from request_file") == [("stopped",)]
    world.emulator.reset_faults()
    assert submitted(submit_partitions(world.root, "asked", KEYS)) == dict.fromkeys(KEYS, 1)


def test_an_api_that_asks_to_wait_is_not_asked_for_each_partition(world: World) -> None:
    build(world, {"a": 3, "b": 4, "c": 5})
    answer = {"status": 429, "headers": {"retry-after": "100"}}
    world.emulator.faults([{"match": {**CREATE, "nth": [2]}, "action": answer}])
    outcomes = submit_partitions(world.root, "asked", ["a", "b", "c"])
    assert submitted(outcomes) == {"a": 1, "b": 0, "c": 0}
    assert world.calls()[POST] == 2
    for key in ("b", "c"):
        outcome = outcomes[key]
        assert isinstance(outcome, SubmitReport)
        assert outcome.waiting


@pytest.mark.usefixtures("prompt_retries")
def test_without_a_connection_each_partition_with_something_to_send_fails(
    new_world: Callable[..., World],
) -> None:
    world = new_world(BATCH_ASSETS_EMULATOR="http://127.0.0.1:9")  # where nothing listens
    build(world, {"a": 3, "b": 4})
    world.build(world.pipeline({}), "empty")
    outcomes = submit_partitions(world.root, "asked", ["a", "b", "empty"])
    assert [type(outcomes[key]) for key in ("a", "b", "empty")] == [
        UnreachableError,
        UnreachableError,
        SubmitReport,
    ]
