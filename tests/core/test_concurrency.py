"""Many processes use one root, all started at the same moment: each row is answered, nothing is paid twice."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from batch_assets.cli.headless import run_pipeline
from batch_assets.core.batches.poll import poll
from batch_assets.core.batches.submit import submit_batches
from batch_assets.core.errors import BusyError
from batch_assets.core.ledger import joins, rounds, submissions
from batch_assets.core.open_root import open_root
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.planning.steps import Round, Send
from batch_assets.core.planning.texts import reason
from batch_assets.core.requests.build import build_requests
from batch_assets.core.requests.report import AskAgain
from batch_assets.core.results.run import collect_results
from batch_assets.core.root import Root
from batch_assets.core.settings import Settings
from tests.forked import ForkServer

from .observer import Observer, Source
from .support import CREATE, World, environment, make_pipeline, params, round_for, write_rows

LOST = {"match": {**CREATE, "nth": [2, 5]}, "action": {"drop": "after_commit"}}
SLOWER = {"match": {**CREATE, "nth": [1]}, "action": {"status": 429, "headers": {"retry-after": "0"}}}
FAILING = {"match": CREATE, "action": {"error_mix": {"overloaded_error": 0.3, "expired": 0.2, "first": 1}}}
PROMPT = "{{ text }}"
# What a child waits for happens long before this, or never.
DEADLINE = 120.0
POLL_SECONDS = 0.3


class _Quiet:
    """A watcher that ignores all reports."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: None


def pipeline_of(folder: str, name: str, partition: str) -> Pipeline:
    dataset = {"path": f"{name}-{partition}.jsonl", "key": "id"}
    return make_pipeline(Path(folder), dataset, name=name, params=params(PROMPT), batching={"max_requests": 3})


def like_cli(env: dict[str, str], folder: str, name: str, partition: str) -> dict[str, int]:
    """Run `batch-assets run`."""
    with open_root(Settings.from_env(env)) as root:
        pipeline = pipeline_of(folder, name, partition)
        return dict(run_pipeline(root, pipeline, partition, _Quiet(), again=AskAgain()).counts)


def like_ui(env: dict[str, str], folder: str, name: str, partition: str) -> dict[str, int]:
    """Materialize the three assets, and repeat the later two until the table is complete."""
    with open_root(Settings.from_env(env)) as root:
        _build(root, pipeline_of(folder, name, partition), partition)
        unattended = False
        end = time.monotonic() + DEADLINE
        while time.monotonic() < end:
            submit_batches(root, name, partition, unattended=unattended)
            unattended = True
            poll(root, now=True)
            done = collect_results(root, name, partition).results
            assert done is not None
            if done.final:
                return dict(done.counts)
            time.sleep(POLL_SECONDS)
        raise AssertionError(f"never final: {done.counts}")


def _build(root: Root, pipeline: Pipeline, partition: str) -> None:
    """Build, and repeat after a BusyError, which allows that: files were sent during each of its builds."""
    for _ in range(10):
        try:
            build_requests(root, pipeline, partition)
            return
        except BusyError:
            continue
    raise AssertionError("busy all the time")


def like_sensor(env: dict[str, str], names: list[str]) -> int:
    """Do ticks of a sensor and its runs until every table is complete. Return how many rounds it opened."""
    opened = 0
    end = time.monotonic() + DEADLINE
    with open_root(Settings.from_env(env)) as root:
        while time.monotonic() < end:
            poll(root, now=True)
            with root.ledger.read() as tx:
                in_force = [s for s in submissions.all_newest(tx) if s.pipeline in names]
                work = {s.id: next_round for s in in_force if (next_round := round_for(tx, s)) is not None}
            if not work and all(s.announced_at is not None for s in in_force):
                return opened
            for submission in in_force:
                if submission.id in work:
                    opened += _round(root, submission, work[submission.id])
            time.sleep(POLL_SECONDS)
    raise AssertionError(f"never done: {work}")


def _round(root: Root, submission: Any, work: Round) -> bool:
    with root.ledger.write() as tx:
        last = rounds.current_of(tx, [submission.id])
        if submission.id in last and last[submission.id].is_open:
            return False
        (opened,) = rounds.open_runs(tx, [[rounds.RoundEntry(submission.id, reason(work))]], last)
    if isinstance(work, Send):
        submit_batches(root, submission.pipeline, submission.partition, unattended=True)
    done = collect_results(root, submission.pipeline, submission.partition).results
    with root.ledger.write() as tx:
        if done is not None and done.final:
            joins.announced(tx, done.submission_id)
        rounds.close_all(tx, [(submission.id, opened.number)])
    return True


def tick(env: dict[str, str], folder: str, names: list[str]) -> list[str]:
    """Run one tick of the real sensor. Return the run keys that it asks for."""
    import dagster as dg

    from batch_assets import build_message_batch_assets, build_message_batch_sensor

    os.environ.update(env)
    assets: list[Any] = []
    for name in names:
        assets += build_message_batch_assets(
            name=name,
            dataset={"path": f"{name}-.jsonl", "key": "id"},
            params=params(PROMPT),
            folder=folder,
            project=folder,
        )
    sensor = build_message_batch_sensor()
    repository = dg.Definitions(assets=assets, sensors=[sensor]).get_repository_def()
    with (
        dg.DagsterInstance.ephemeral() as instance,
        dg.build_sensor_context(instance=instance, repository_def=repository) as context,
    ):
        return [str(request.run_key) for request in sensor.evaluate_tick(context).run_requests or []]


class Scene:
    """A world, its child processes, and the rows of its datasets."""

    def __init__(self, world: World, children: ForkServer) -> None:
        self.world, self._children = world, children
        settings = world.root.settings
        self.env = environment(
            world.emulator.url, settings.root, settings.ledger_url, BATCH_ASSETS_RECONCILE_GRACE="900"
        )
        self.rows: dict[tuple[str, str], dict[str, str]] = {}

    def dataset(self, name: str, partition: str, numbers: range) -> dict[str, str]:
        """Write rows whose texts the pipeline's partitions share. Return arguments for a child."""
        self.rows[name, partition] = {f"row-{number}": f"text {number} of {name}" for number in numbers}
        write_rows(self.world.folder / f"{name}-{partition}.jsonl", self.rows[name, partition])
        return {"name": name, "partition": partition}

    def run(self, *works: tuple[Callable[..., Any], dict[str, Any]]) -> list[Any]:
        """Run the functions at the same time, each in its own process. None may raise."""
        orders = [
            (f"{__name__}:{function.__name__}", {"env": self.env, **arguments}) for function, arguments in works
        ]
        outcomes = self._children.run(*orders)
        assert not any(outcome.error for outcome in outcomes), "\n".join(outcome.error for outcome in outcomes)
        return [outcome.value for outcome in outcomes]

    def check(self) -> None:
        """Check that nothing is lost or paid twice, and that running everything again changes nothing."""
        observer = Observer(self.world)
        observer.watch_moves()
        observer.check_ledger()
        paid = observer.paid()
        observer.check_paid(paid)
        tables = {key: self._table(*key) for key in self.rows}
        for key, table in tables.items():
            observer.check_complete(table, Source(self.rows[key], PROMPT), paid)
            assert set(table["result_type"]) == {"succeeded"}
        assert self.world.query("select name from lease") == []
        accepted = len(self.world.accepted())
        folder = str(self.world.folder)
        for name, partition in self.rows:
            like_ui(self.env, folder, name, partition)
            assert self._table(name, partition).equals(tables[name, partition])
        assert len(self.world.accepted()) == accepted

    def _table(self, name: str, partition: str) -> pd.DataFrame:
        inner = (f"partition={partition}",) if partition else ()
        table: pd.DataFrame = pd.read_parquet(self.world.path(name, "results", *inner, "results.parquet"))
        return table

    def opened_rounds(self) -> dict[str, int]:
        """The number of rounds by submission. No submission may have two open rounds."""
        open_now: dict[str, int] = {}
        opened: dict[str, int] = {}
        rows = self.world.query("select entity, to_state from history where kind = 'round' order by seq")
        for entity, state in rows:
            submission_id = entity.rpartition(":")[0]
            open_now[submission_id] = open_now.get(submission_id, 0) + (1 if state == "open" else -1)
            opened[submission_id] = opened.get(submission_id, 0) + (state == "open")
            assert 0 <= open_now[submission_id] <= 1
        return opened


@pytest.fixture(scope="module")
def children() -> Iterator[ForkServer]:
    with ForkServer(
        __name__, "anthropic", "httpx2", "dagster", "batch_assets.dagster.sensors.results_sensor"
    ) as server:
        yield server


@pytest.fixture
def scene(new_world: Callable[..., World], children: ForkServer, ledger_url: str) -> Scene:
    world = new_world(ledger=ledger_url)
    world.emulator.settings(latency=0.2)
    return Scene(world, children)


def test_the_command_line_and_the_ui_run_one_pipeline_at_once(scene: Scene) -> None:
    scene.world.emulator.faults([SLOWER, FAILING])
    arguments = {"folder": str(scene.world.folder), **scene.dataset("asked", "", range(8))}
    counts = scene.run((like_cli, arguments), (like_ui, arguments))
    assert counts == [{"succeeded": 8}] * 2
    scene.check()


def test_two_sensors_ask_for_one_round_at_a_time(scene: Scene) -> None:
    scene.world.emulator.faults([FAILING])
    folder = str(scene.world.folder)
    datasets = [scene.dataset(name, "", range(8)) for name in ("first", "second", "third")]
    for dataset in datasets:
        pipeline = pipeline_of(folder, **dataset)
        build_requests(scene.world.root, pipeline)
        submit_batches(scene.world.root, pipeline.name)
    arguments = {"names": [dataset["name"] for dataset in datasets]}
    opened = scene.run((like_sensor, arguments), (like_sensor, arguments))
    rounds_opened = scene.opened_rounds()
    assert sum(rounds_opened.values()) == sum(opened)
    assert len(rounds_opened) == 3
    scene.check()


def test_ticks_of_the_sensor_at_the_same_moment_ask_for_each_run_once(world: World, children: ForkServer) -> None:
    scene = Scene(world, children)
    folder = str(scene.world.folder)
    datasets = [scene.dataset(name, "", range(4)) for name in ("first", "second")]
    for dataset in datasets:
        pipeline = pipeline_of(folder, **dataset)
        build_requests(scene.world.root, pipeline)
        submit_batches(scene.world.root, pipeline.name)
    scene.world.emulator.end_batches()
    scene.world.query("update batch set next_poll_at = 0")
    arguments = {"folder": folder, "names": [dataset["name"] for dataset in datasets]}
    asked_runs = scene.run(*[(tick, arguments)] * 4)
    keys = [key for run_keys in asked_runs for key in run_keys]
    assert len(keys) == len(set(keys)) == 2
    assert set(scene.opened_rounds().values()) == {1}


def test_eight_processes_at_one_ledger(scene: Scene) -> None:
    scene.world.emulator.faults([LOST, SLOWER, FAILING])
    datasets = [
        scene.dataset("first", "A", range(6)),
        scene.dataset("first", "B", range(3, 9)),
        scene.dataset("second", "A", range(6)),
        scene.dataset("second", "B", range(3, 9)),
    ]
    works = [({"folder": str(scene.world.folder), **dataset}) for dataset in datasets]
    counts = scene.run(*[(function, arguments) for arguments in works for function in (like_ui, like_cli)])
    assert counts == [{"succeeded": 6}] * 8
    scene.check()
