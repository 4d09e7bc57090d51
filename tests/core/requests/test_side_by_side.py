"""Builds and retries of different partitions go on side by side, and no request is sent twice.

What others register meanwhile is registered by `on_rows`, which a build calls after it has selected its requests
and before it registers them.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import sqlalchemy as sa

from batch_assets.core.batches import ask_again
from batch_assets.core.errors import BusyError, LeaseLostError
from batch_assets.core.ledger import leases, submissions
from batch_assets.core.ledger.records import RequestFile
from batch_assets.core.ledger.request_leases import hold_partition, hold_pipeline, partition_lease_name
from batch_assets.core.ledger.states import EntityKind
from batch_assets.core.open_root import open_root
from batch_assets.core.pipeline.blocks import RetentionConfig
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.requests import selection
from batch_assets.core.requests.build import build_requests
from batch_assets.core.requests.registration import Registrar
from batch_assets.core.results.retention import apply_retention
from batch_assets.core.root import Root
from batch_assets.core.settings import Settings
from batch_assets.core.store.manifest import remove_submission
from batch_assets.core.store.registered_since import read_in_flight
from tests.forked import ForkServer

from ..support import CREATE, World, environment, make_pipeline, params, texts, wait_for, write_rows

NAME = "asked"
PROMPT = "{{ text }}"


def pipeline_of(folder: Path, partition: str, **attributes: Any) -> Pipeline:
    return make_pipeline(folder, {"path": f"{partition}.jsonl", "key": "id"}, params=params(PROMPT), **attributes)


class Partitions:
    """Partitions of one pipeline, each with a dataset of its own, and a second root as another process has one."""

    def __init__(self, world: World) -> None:
        self.world, self.other = world, open_root(world.root.settings)
        self.rows: dict[str, dict[str, str]] = {}

    def dataset(self, partition: str, rows: dict[str, str], **attributes: Any) -> Pipeline:
        self.rows[partition] = rows
        write_rows(self.world.folder / f"{partition}.jsonl", rows)
        return pipeline_of(self.world.folder, partition, **attributes)

    def build(self, pipeline: Pipeline, partition: str, *meanwhile: Callable[[], Any], **more: Any) -> Any:
        """Build a partition, and do something between its selection and its registration, once."""
        left = list(meanwhile)

        def on_rows(_: int) -> None:
            while left:
                left.pop(0)()

        return build_requests(self.world.root, pipeline, partition, on_rows, **more)

    def build_elsewhere(self, pipeline: Pipeline, partition: str, **more: Any) -> Any:
        return build_requests(self.other, pipeline, partition, **more)

    def finish(self, pipeline: Pipeline, partition: str) -> None:
        self.world.submit(pipeline, partition)
        self.world.emulator.end_batches()
        self.world.finish(pipeline, partition)

    def run(self, pipeline: Pipeline, partition: str) -> None:
        """Take a partition through all stages."""
        self.build(pipeline, partition)
        self.finish(pipeline, partition)

    def table(self, partition: str) -> pd.DataFrame:
        path = self.world.path(NAME, "results", f"partition={partition}", "results.parquet")
        table: pd.DataFrame = pd.read_parquet(path)
        return table

    def check(self) -> None:
        """Every table is complete, and every request was accepted once."""
        for partition, rows in self.rows.items():
            table = self.table(partition)
            assert dict(zip(table["id"], table["result_type"], strict=True)) == dict.fromkeys(rows, "succeeded")
        ids = [custom_id[-22:] for custom_id in self.world.accepted_custom_ids()]
        assert len(ids) == len(set(ids)) == len({text for rows in self.rows.values() for text in rows.values()})


@pytest.fixture
def partitions(new_world: Callable[..., World], ledger_url: str) -> Iterator[Partitions]:
    world = new_world(ledger=ledger_url)
    world.emulator.settings(latency=3600)
    made = Partitions(world)
    yield made
    made.other.close()


def test_an_equal_request_that_another_partition_registers_meanwhile_is_not_sent(partitions: Partitions) -> None:
    first = partitions.dataset("A", texts(3, "shared") | texts(2, "first"))
    second = partitions.dataset("B", texts(3, "shared") | texts(2, "second"))
    report = partitions.build(first, "A", lambda: partitions.build_elsewhere(second, "B"))
    assert (report.written, report.in_flight) == (2, 3)
    for partition, pipeline in (("B", second), ("A", first)):
        partitions.finish(pipeline, partition)
    partitions.check()


def test_an_equal_request_that_is_even_answered_meanwhile_is_not_sent(partitions: Partitions) -> None:
    rows = texts(3, "shared")
    first, second = partitions.dataset("A", rows), partitions.dataset("B", rows)

    def elsewhere() -> None:
        partitions.build_elsewhere(second, "B")
        partitions.finish(second, "B")

    report = partitions.build(first, "A", elsewhere)
    assert (report.written, report.reused) == (0, 3)
    partitions.finish(first, "A")
    partitions.check()


def test_two_refreshes_at_a_time_send_a_request_once(partitions: Partitions) -> None:
    rows = texts(3, "shared")
    first, second = partitions.dataset("A", rows), partitions.dataset("B", rows)
    for partition, pipeline in (("A", first), ("B", second)):
        partitions.run(pipeline, partition)
    accepted = len(partitions.world.accepted_custom_ids())

    def elsewhere() -> None:
        partitions.build_elsewhere(second, "B", refresh=True)
        partitions.finish(second, "B")

    report = partitions.build(first, "A", elsewhere, refresh=True)
    assert (report.written, report.in_flight) == (0, 3)
    partitions.finish(first, "A")
    assert len(partitions.world.accepted_custom_ids()) == accepted + 3
    assert set(partitions.table("A")["result_type"]) == {"succeeded"}


def test_failed_requests_that_two_partitions_retry_are_sent_once(partitions: Partitions) -> None:
    rows = texts(2, "shared")
    first, second = (partitions.dataset(key, rows, retry={"max_attempts": 1}) for key in "AB")
    fails = {"error_mix": {"overloaded_error": 1.0}}
    partitions.world.emulator.faults([{"match": {**CREATE, "nth": [1, 2]}, "action": fails}])
    for partition, pipeline in (("A", first), ("B", second)):
        partitions.run(pipeline, partition)
    accepted = len(partitions.world.accepted_custom_ids())

    def elsewhere() -> None:
        partitions.build_elsewhere(second, "B", retry_failed=True)
        partitions.finish(second, "B")

    report = partitions.build(first, "A", elsewhere, retry_failed=True)
    assert (report.written, report.in_flight) == (0, 2)
    partitions.finish(first, "A")
    assert len(partitions.world.accepted_custom_ids()) == accepted + 2


@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)  # SQLite has one writer for all pipelines
def test_a_registration_that_is_committed_late_is_found(
    partitions: Partitions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On PostgreSQL, a line of another pipeline may have a higher number and be committed earlier."""
    world = partitions.world
    rows = texts(2, "shared")
    first, second = partitions.dataset("A", rows), partitions.dataset("B", rows)
    has_written, has_looked, may_commit = threading.Event(), threading.Event(), threading.Event()
    register = submissions.register

    def slow(tx: Any, new: Any, *rest: Any) -> bool:
        is_registered = register(tx, new, *rest)
        if new[0].entry.partition == "B":
            has_written.set()
            assert may_commit.wait(60)
        return is_registered

    def late(root: Root, look: Any, partition: str, rows: int) -> Any:
        if partition == "B" or has_written.is_set():
            return read_in_flight(root, look, partition, rows)
        others.append(pool.submit(partitions.build_elsewhere, second, "B"))
        assert has_written.wait(60)
        with root.ledger.write("another_pipeline") as tx:
            tx.record(EntityKind.FILE, "another", None, "ready", "")
        others.append(pool.submit(let_commit))
        read = read_in_flight(root, look, partition, rows)
        has_looked.set()
        return read

    def let_commit() -> None:
        wait_for(lambda: has_looked.is_set() or _lock_waits(world.root.settings.ledger_url), "the look")
        may_commit.set()

    monkeypatch.setattr(submissions, "register", slow)
    monkeypatch.setattr(selection, "read_in_flight", late)
    with ThreadPoolExecutor(2) as pool:
        others: list[Future[Any]] = []
        report = partitions.build(first, "A")
        assert others[0].result(60).written == 2
    assert (report.written, report.in_flight) == (0, 2)


def _lock_waits(url: str) -> int:
    """Return how many sessions of the ledger's database wait for a lock."""
    engine = sa.create_engine(url, poolclass=sa.pool.NullPool)
    waiting = sa.text(
        "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
    )
    with engine.connect() as connection:
        return int(connection.execute(waiting).scalar_one())


def test_other_requests_of_other_partitions_cost_no_second_build(partitions: Partitions) -> None:
    """The manifests are in the order of registration, by which a lost ledger is rebuilt."""
    first, second = partitions.dataset("A", texts(3, "first")), partitions.dataset("B", texts(3, "second"))
    others: list[Any] = []
    report = partitions.build(first, "A", lambda: others.append(partitions.build_elsewhere(second, "B")))
    assert (report.written, report.rendered) == (3, 3)
    created = [
        json.loads(partitions.world.submission_folder(pipeline, each, key).joinpath("manifest.json").read_text())
        for pipeline, each, key in ((second, others[0], "B"), (first, report, "A"))
    ]
    assert created[0]["created_at"] < created[1]["created_at"]


def test_a_limit_counts_only_what_is_sent(partitions: Partitions) -> None:
    first = partitions.dataset("A", texts(3, "shared") | texts(2, "first"))
    second = partitions.dataset("B", texts(3, "shared"))
    report = partitions.build(first, "A", lambda: partitions.build_elsewhere(second, "B"), limit=2)
    assert (report.written, report.in_flight, report.left_out) == (2, 3, 0)


def test_history_that_a_build_needs_is_not_removed(partitions: Partitions) -> None:
    """The other partition's submission is sent, answered and superseded meanwhile, and its history is over."""
    rows = texts(2, "shared")
    first, second = partitions.dataset("A", rows), partitions.dataset("B", rows)
    retention = RetentionConfig(history_days=0)

    def elsewhere() -> None:
        partitions.build_elsewhere(second, "B")
        partitions.finish(second, "B")
        partitions.build_elsewhere(partitions.dataset("B", rows | texts(1, "new")), "B")
        assert apply_retention(partitions.other, NAME, retention) == []

    report = partitions.build(first, "A", elsewhere)
    assert (report.written, report.reused) == (0, 2)
    removed = "select count(*) from submission where history_removed_at is not null"
    assert partitions.world.query(removed) == [(0,)]
    assert apply_retention(partitions.other, NAME, retention) == []
    assert partitions.world.query(removed) == [(1,)]


def test_retention_with_nothing_due_takes_no_lease(
    partitions: Partitions, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = partitions.dataset("A", texts(1))
    partitions.build(pipeline, "A")
    partitions.finish(pipeline, "A")
    taken: list[str] = []
    take = leases.try_take
    monkeypatch.setattr(
        leases, "try_take", lambda ledger, name, *more, **named: taken.append(name) or take(ledger, name, *more)
    )
    apply_retention(
        partitions.world.root, NAME, RetentionConfig(batches_days=9, request_files_days=9, history_days=9)
    )
    assert taken == []
    apply_retention(partitions.world.root, NAME, RetentionConfig(request_files_days=0))
    assert taken == [f"requests:{NAME}"]


@pytest.mark.parametrize("has_manifest", [False, True])
def test_a_build_that_lost_its_lease_registers_nothing_and_leaves_nothing(
    partitions: Partitions, monkeypatch: pytest.MonkeyPatch, has_manifest: bool
) -> None:
    """It was frozen for longer than its lease, and another process has built the partition."""
    rows = texts(3)
    pipeline, other = partitions.dataset("A", rows), partitions.dataset("B", rows)
    reports: list[Any] = []

    def take_over() -> None:
        name = partition_lease_name(NAME, "A")
        partitions.world.query("update lease set until = 0 where name = :name", name=name)
        assert partitions.build_elsewhere(other, "B").written == 3  # its catching up leaves the manifest out
        reports.append(partitions.build_elsewhere(pipeline, "A"))

    write = Registrar._write_manifests
    if has_manifest:
        monkeypatch.setattr(Registrar, "_write_manifests", _then(write, take_over))
    with pytest.raises(LeaseLostError, match=r"taken over the requests of asked \[A\]"):
        partitions.build(pipeline, "A", *([] if has_manifest else [take_over]))
    assert [report.in_flight for report in reports] == [3]
    folders = partitions.world.path(NAME, "requests", "partition=A")
    assert [folder.name for folder in folders.iterdir()] == [reports[0].submission_id]
    assert partitions.world.query("select name from lease") == []
    for partition, each in (("B", other), ("A", pipeline)):
        partitions.finish(each, partition)
    partitions.check()


def _then(function: Callable[..., Any], after: Callable[[], Any]) -> Callable[..., Any]:
    """A function that does something after its first call."""
    left = [after]

    def called(*arguments: Any) -> Any:
        value = function(*arguments)
        while left:
            left.pop()()
        return value

    return called


def test_the_manifest_of_what_is_not_registered_is_removed_first(partitions: Partitions) -> None:
    world = partitions.world
    report = partitions.build(partitions.dataset("A", texts(1)), "A")
    folder = world.path(NAME, "requests", "partition=A", report.submission_id)
    removed: list[tuple[str, ...]] = []
    storage = world.root.storage
    remove = storage.remove
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, "remove", lambda *parts: removed.append(parts) or remove(*parts))
        remove_submission(storage, NAME, "A", report.submission_id)
    assert removed[0][-1] == "manifest.json"
    assert not folder.exists()


def test_a_lost_file_that_was_replaced_meanwhile_holds_nothing(partitions: Partitions) -> None:
    """The other partition's file is in flight at the first look, is gone, and is replaced before it is missed."""
    world = partitions.world
    first = partitions.dataset("A", texts(2))
    report = partitions.build(first, "A")
    folder = world.path(NAME, "requests", "partition=A", report.submission_id)
    looks: list[int] = []

    def look() -> tuple[int, list[RequestFile]]:
        with world.root.ledger.read() as tx:
            found = submissions.files_in_flight(tx, NAME)
        if not looks:
            for name in ("part-00000.jsonl", "part-00000.digests", "index.parquet"):
                (folder / name).unlink()
            partitions.dataset("A", texts(2, "new"))
            partitions.build_elsewhere(first, "A")
        looks.append(len(looks))
        return looks[-1], found

    in_ledger, requests = read_in_flight(world.root, look, "B", 0)
    assert (in_ledger, requests.problems) == (1, [])


def test_a_build_waits_once_for_what_has_to_be_done_before(
    partitions: Partitions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ledger is behind the files, and other work on the pipeline takes too long."""
    world, pipeline = partitions.world, partitions.dataset("A", texts(1))
    ledger = world.root.ledger
    unknown = world.path(NAME, "requests", "partition=B", "20260101T000000-00000000")
    unknown.mkdir(parents=True)
    (unknown / "manifest.json").write_text("{}")
    clock = 0.0

    def sleep(_: float) -> None:
        nonlocal clock
        clock += 1.0

    monkeypatch.setattr(time, "monotonic", lambda: clock)
    monkeypatch.setattr(time, "sleep", sleep)
    with (
        hold_partition(ledger, NAME, "C"),
        pytest.raises(BusyError, match="another run is busy with the requests of asked; repeat"),
    ):
        partitions.build(pipeline, "A")
    assert clock == leases.PATIENCE


def test_retries_of_equal_requests_do_not_meet(partitions: Partitions, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = texts(2, "shared")
    first, second = partitions.dataset("A", rows), partitions.dataset("B", rows)
    world = partitions.world
    world.emulator.faults([{"match": {**CREATE, "nth": [1]}, "action": {"error_mix": {"overloaded_error": 1.0}}}])
    partitions.build(first, "A")
    world.submit(first, "A")
    partitions.build(second, "B")
    world.emulator.end_batches()
    for pipeline, partition in ((first, "A"), (second, "B")):
        world.collect(pipeline, partition)
    with world.root.ledger.read() as tx:
        newest = {key: submissions.newest(tx, NAME, key) for key in "AB"}
    assert all(each is not None and each.ask_again == 2 for each in newest.values())
    patched = _then(ask_again.outcomes_for, lambda: ask_again.plan_again(partitions.other, newest["B"]))
    monkeypatch.setattr(ask_again, "outcomes_for", patched)
    assert ask_again.plan_again(world.root, newest["A"]) == (0, [])
    assert world.query("select count(*) from request_file") == [(2,)]
    for pipeline, partition in ((second, "B"), (first, "A")):
        partitions.finish(pipeline, partition)
    assert len(world.accepted_custom_ids()) == 4
    for partition in "AB":
        assert set(partitions.table(partition)["result_type"]) == {"succeeded"}


def test_work_on_the_whole_pipeline_excludes_builds_and_waits_for_them(partitions: Partitions) -> None:
    ledger = partitions.world.root.ledger
    with hold_partition(ledger, NAME, "A"), hold_partition(ledger, NAME, "B"), hold_pipeline(ledger, "another"):
        with pytest.raises(BusyError, match=r"is busy with the requests of asked; repeat"):
            hold_pipeline(ledger, NAME).__enter__()
        with pytest.raises(BusyError, match=r"is busy with the requests of asked \[A\]; repeat"):
            hold_partition(ledger, NAME, "A").__enter__()
    with hold_pipeline(ledger, NAME):
        with pytest.raises(BusyError, match=r"is busy with the requests of asked; repeat"):
            hold_partition(ledger, NAME, "A").__enter__()
        with hold_partition(ledger, f"{NAME}_more", "A"):
            pass
    with hold_partition(ledger, NAME, "A" * 200) as lease:
        with pytest.raises(BusyError):
            hold_pipeline(ledger, NAME).__enter__()
        partitions.world.query("update lease set until = 0 where name = :name", name=lease.name)
        with hold_pipeline(ledger, NAME):
            pass


def build_all(env: dict[str, str], folder: str, keys: list[str], die: tuple[str, str] | None = None) -> list[int]:
    """Build partitions. With `die`, the process is killed before or after a step of the first registration."""
    if die is not None:
        when, name = die
        step = getattr(Registrar, name)

        def stepped(*arguments: Any) -> Any:
            if when == "after":
                step(*arguments)
            os.kill(os.getpid(), signal.SIGKILL)

        setattr(Registrar, name, stepped)
    with open_root(Settings.from_env(env)) as root:
        return [build_requests(root, pipeline_of(Path(folder), key), key).written for key in keys]


@pytest.fixture(scope="module")
def children() -> Iterator[ForkServer]:
    with ForkServer(__name__, "anthropic", "httpx2") as server:
        yield server


@pytest.mark.parametrize(
    "die",
    [
        pytest.param(None, id="alive"),
        pytest.param(("before", "_write_manifests"), id="killed before the manifest"),
        pytest.param(("before", "_try_register"), id="killed before the registration"),
        pytest.param(("after", "_try_register"), id="killed after the registration"),
    ],
)
def test_two_processes_race(partitions: Partitions, children: ForkServer, die: tuple[str, str] | None) -> None:
    """Partitions with equal rows are built by two processes at the same time, one of which may be killed."""
    world, shared = partitions.world, texts(4, "shared")
    keys = {"A": ["A0", "A1"], "B": ["B0", "B1"]}
    pipelines = {key: partitions.dataset(key, shared | texts(2, key)) for key in [*keys["A"], *keys["B"]]}
    settings = world.root.settings
    env = environment(world.emulator.url, settings.root, settings.ledger_url)
    work, common = f"{__name__}:build_all", {"env": env, "folder": str(world.folder)}
    killed, other = children.run(
        (work, common | {"keys": keys["A"], "die": die}), (work, common | {"keys": keys["B"]})
    )
    assert (killed.killed, killed.error, other.error) == (die is not None, "", "")
    world.query("update lease set until = 0")
    for key, pipeline in pipelines.items():
        partitions.build(pipeline, key)
    assert world.query("select count(*) from request_file where state = 'unresolved'") == [(0,)]
    for key, pipeline in pipelines.items():
        world.submit(pipeline, key)
    world.emulator.end_batches()
    for key, pipeline in pipelines.items():
        world.finish(pipeline, key)
    partitions.check()
