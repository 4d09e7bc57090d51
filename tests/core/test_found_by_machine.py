"""Mistakes that the state machine and the many processes have found, each by itself."""

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
from batch_assets.core.results.join import Join, JoinedRows
from batch_assets.core.results.run import collect_results

from .support import CREATE, World, round_for, texts, write_rows


class Watcher:
    """Does, when it is told of something, what another process might do at that moment."""

    def __init__(self, **told: Callable[[Any], Any]) -> None:
        self._told = told

    def __getattr__(self, name: str) -> Callable[..., None]:
        return self._told.get(name, lambda *_: None)


def test_a_run_goes_on_when_the_sensor_asks_again_before_it_can(world: World) -> None:
    mix = {"overloaded_error": 1.0, "first": 1}
    world.emulator.faults([{"match": CREATE, "action": {"error_mix": mix}}])
    pipeline = world.pipeline(texts(3))
    sensor = Watcher(
        submitted=lambda _: world.collect(pipeline),
        joined=lambda _: submit_batches(world.root, pipeline.name, unattended=True),
    )
    assert run_pipeline(world.root, pipeline, "", sensor, again=AskAgain()).counts == {"succeeded": 3}
    assert [batch["requests"] for batch in world.accepted()] == [3, 3]


def asked_again_by_another(world: World) -> tuple[Pipeline, Pipeline]:
    """A pipeline over the rows of A and of B; both have asked for the same request in vain, and A's next
    submission, not sent yet, asks it again."""
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


def sensor_goes_on(world: World, pipeline: Pipeline, partition: str) -> int:
    """Goes on as long as the sensor would; which attempt has brought the one answer."""
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


def test_a_file_that_is_set_aside_during_a_join_is_not_waited_on_for_ever(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = asked_again_by_another(world)
    slices = Join.slices

    def set_aside_meanwhile(join: Join) -> Iterator[JoinedRows]:
        yield from slices(join)
        monkeypatch.undo()
        write_rows(world.folder / "A.jsonl", texts(1, "other"))
        world.build(a, "A")

    monkeypatch.setattr(Join, "slices", set_aside_meanwhile)
    world.collect(b, "B")
    assert sensor_goes_on(world, b, "B") == 2


def test_a_file_that_is_canceled_while_failed_requests_are_planned_is_not_waited_on_for_ever(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = asked_again_by_another(world)
    failed_lines = ask_again._failed_lines

    def canceled_meanwhile(*given: Any) -> Iterator[tuple[int, bytes]]:
        yield from failed_lines(*given)
        monkeypatch.undo()
        cancel(world.root, a.name, "A")

    monkeypatch.setattr(ask_again, "_failed_lines", canceled_meanwhile)
    world.submit(b, "B", unattended=True)
    assert sensor_goes_on(world, b, "B") == 2
