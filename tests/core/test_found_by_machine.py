"""Defects that the state machine and the tests with many processes have found, each in a test of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pandas as pd
import pytest

from batch_assets.cli.headless import run_pipeline
from batch_assets.core.batches import ask_again
from batch_assets.core.batches.poll import poll
from batch_assets.core.batches.submit import submit_batches
from batch_assets.core.cancel import cancel
from batch_assets.core.ledger import submissions
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.planning.steps import Send
from batch_assets.core.requests.report import AskAgain
from batch_assets.core.results.join import JoinedRows, ResultsJoin
from batch_assets.core.results.run import collect_results

from .support import CREATE, World, round_for, texts, write_rows


class Watcher:
    """A watcher that does, when something is reported, what another process might do at that moment."""

    def __init__(self, **callbacks: Callable[[Any], Any]) -> None:
        self._callbacks = callbacks

    def __getattr__(self, name: str) -> Callable[..., None]:
        return self._callbacks.get(name, lambda *_: None)


def test_a_run_continues_if_the_sensor_retries_before_it_can(world: World) -> None:
    mix = {"overloaded_error": 1.0, "first": 1}
    world.emulator.faults([{"match": CREATE, "action": {"error_mix": mix}}])
    pipeline = world.pipeline(texts(3))
    sensor = Watcher(
        submitted=lambda _: world.collect(pipeline),
        joined=lambda _: submit_batches(world.root, pipeline.name, unattended=True),
    )
    assert run_pipeline(world.root, pipeline, "", sensor, again=AskAgain()).counts == {"succeeded": 3}
    assert [batch["requests"] for batch in world.accepted()] == [3, 3]


def retried_by_another(world: World) -> tuple[Pipeline, Pipeline]:
    """A pipeline over the rows of A and of B, in which the same request failed.

    A's next submission, not sent yet, will send it again.
    """
    world.emulator.settings(latency=3600)
    a, b = (
        world.pipeline(dataset={"path": str(write_rows(world.folder / f"{name}.jsonl", texts(1))), "key": "id"})
        for name in "AB"
    )
    world.send(a, "A")
    world.send(b, "B")
    world.emulator.expire_batches()
    world.collect(a, "A")
    world.collect(b, "B")
    world.build(a, "A")
    return a, b


def run_sensor(world: World, pipeline: Pipeline, partition: str) -> int:
    """Do what the sensor does until it has no work. Return the attempt that brought the only answer."""
    for _ in range(10):
        poll(world.root, now=True)
        with world.root.ledger.read() as tx:
            newest = submissions.newest(tx, pipeline.name, partition)
            assert newest is not None
            work = round_for(tx, newest)
        if work is None:
            break
        if isinstance(work, Send):
            world.submit(pipeline, partition, unattended=True)
        world.emulator.end_batches()
        poll(world.root, now=True)
        collect_results(world.root, pipeline.name, partition)
    ((kind, attempts),) = pd.read_parquet(
        world.path(pipeline.name, "results", f"partition={partition}"), columns=["result_type", "attempts"]
    ).to_numpy()
    assert kind == "succeeded"
    return int(attempts)


def test_a_file_that_is_superseded_during_a_join_is_not_waited_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = retried_by_another(world)
    slices = ResultsJoin.slices

    def superseded_meanwhile(join: ResultsJoin) -> Iterator[JoinedRows]:
        yield from slices(join)
        monkeypatch.undo()
        write_rows(world.folder / "A.jsonl", texts(1, "other"))
        world.build(a, "A")

    monkeypatch.setattr(ResultsJoin, "slices", superseded_meanwhile)
    world.collect(b, "B")
    assert run_sensor(world, b, "B") == 2


def test_a_file_that_is_canceled_while_retries_are_planned_is_not_waited_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = retried_by_another(world)
    request_lines = ask_again._request_lines

    def canceled_meanwhile(*arguments: Any) -> Iterator[tuple[int, bytes]]:
        yield from request_lines(*arguments)
        monkeypatch.undo()
        cancel(world.root, a.name, "A")

    monkeypatch.setattr(ask_again, "_request_lines", canceled_meanwhile)
    world.submit(b, "B", unattended=True)
    assert run_sensor(world, b, "B") == 2
