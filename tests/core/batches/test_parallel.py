"""Several uploads and downloads at a time: as safe as one after the other."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from batch_assets.core.batches.poll import poll
from batch_assets.core.batches.submit import submit_batches
from batch_assets.core.errors import SettingsError, SubmissionStoppedError
from batch_assets.core.io.names import PartName
from batch_assets.core.io.pace import BrokenOffError
from batch_assets.core.io.storage import Storage
from batch_assets.core.io.transfers import Progress, Transfers
from batch_assets.core.results.run import collect_results
from batch_assets.core.settings import Settings
from batch_assets.core.store.part_writer import PartWriter
from tests.forked import ForkServer

from ..proxy import Proxy
from ..support import BATCHES, CREATE, RESULTS, World, environment, texts, wait_for
from ..test_kill import _FINISH, _SUBMIT, Scene, _kill

# From here on no two request files of four in a row are of the same size.
VARIED = {"max_requests": 1000}
POST, DOWNLOAD = f"POST {BATCHES}", f"GET {BATCHES}/{{id}}/results"


@pytest.fixture
def new_world(new_world: Callable[..., World]) -> Callable[..., World]:
    """A scene with the default number of transfers."""
    return partial(new_world, BATCH_ASSETS_TRANSFERS="4")


@pytest.fixture
def scene(new_world: Callable[..., World], python: ForkServer) -> Iterator[Scene]:
    made = new_world()
    with Proxy(made.emulator.url) as proxy:
        built = Scene(new_world(BATCH_ASSETS_EMULATOR=proxy.url), proxy, python)
        yield built
        for child in built.children:
            child.kill()
            child.communicate()


@pytest.mark.parametrize("part", ["request", "reply"])
def test_killed_during_four_uploads(scene: Scene, part: str) -> None:
    """The server got all four files or none: each batch is found by its count, or its file is sent again."""
    scene.world.build(scene.world.pipeline(texts(4100), batching=VARIED))
    scene.proxy.hold(part, 4)
    child = scene.start(_SUBMIT)
    assert scene.proxy.held.wait(120)
    assert scene.rows() == [("sending",)] * 4 + [("ready",)]
    accepted = [1000, 999, 998, 997] if part == "reply" else []
    assert sorted((batch["requests"] for batch in scene.world.accepted()), reverse=True) == accepted
    _kill(child)
    scene.proxy.cut()
    scene.finish_in_another_process()
    scene.check(4100)


def test_killed_during_four_downloads(scene: Scene) -> None:
    scene.world.send(scene.world.pipeline(texts(4100), batching=VARIED))
    scene.world.emulator.faults([{"match": RESULTS, "action": {"delay": 3600}}])
    child = scene.start(_FINISH)
    wait_for(lambda: scene.world.calls()[DOWNLOAD] == 4, "four downloads")
    _kill(child)
    assert not list(scene.world.path("asked", "responses").glob("*.parquet"))
    scene.world.emulator.reset_faults()
    scene.finish_in_another_process()
    scene.check(4100)


def test_files_with_the_same_request_count_are_never_sent_at_the_same_time(world: World) -> None:
    pipeline = world.pipeline(texts(15), batching={"max_requests": 2})
    assert len(world.send(pipeline).submitted) == 8, "none had to wait for a later run"
    under_way: Counter[int] = Counter()
    counts = {file.id: file.requests for file in world.files(pipeline)}
    assert sorted(counts.values()) == [1, *[2] * 7]
    for file, state in world.query("select entity, to_state from history where kind = 'file' order by seq"):
        under_way[counts[file]] += {"sending": 1, "submitted": -1}.get(state, 0)
        assert under_way[counts[file]] <= 1


@pytest.mark.parametrize(("status", "left"), [(401, "stopped"), (429, "ready")])
def test_a_refusal_keeps_the_others_from_starting(world: World, status: int, left: str) -> None:
    pipeline = world.pipeline(texts(6000), batching=VARIED)
    world.build(pipeline)
    answer = {"status": status, "headers": {"retry-after": "100"}}
    world.emulator.faults([{"match": CREATE, "action": answer}])
    if left == "stopped":
        with pytest.raises(SubmissionStoppedError, match="HTTP 401"):
            world.submit(pipeline)
    else:
        waiting = world.submit(pipeline).waiting
        assert list(waiting) == [file.id for file in world.files(pipeline)]
    assert world.calls()[POST] <= 4
    assert world.states(pipeline) == [left] * 7
    world.emulator.reset_faults()
    world.query("update request_file set not_before = 0")
    world.submit(pipeline)
    assert len(world.accepted_custom_ids()) == len(set(world.accepted_custom_ids())) == 6000


def test_outcomes_of_files_are_reported_in_the_order_of_the_files(world: World) -> None:
    """The order does not depend on how long each file takes, and the caller's thread reports."""
    threads = []
    pipeline = world.pipeline(texts(3500), batching=VARIED)
    world.build(pipeline)
    world.emulator.faults([{"match": {**CREATE, "times": 1}, "action": {"delay": 0.5}}])
    report = submit_batches(
        world.root, pipeline.name, on_file=lambda _: threads.append(threading.current_thread())
    )
    assert report is not None
    assert report.submitted == [file.batch_id for file in world.files(pipeline)]
    ids = report.submitted
    poll(world.root, now=True)
    cut = {"truncate": {"lines": 3}, "ending": "abort"}
    world.emulator.faults(
        [
            {"match": {"path": f"{BATCHES}/{ids[0]}/results"}, "action": {"delay": 0.5}},
            {"match": {"path": f"{BATCHES}/{ids[1]}/results"}, "action": cut},
        ]
    )
    done = collect_results(
        world.root, pipeline.name, on_batch=lambda *_: threads.append(threading.current_thread())
    )
    assert [batch.batch_id for batch in done.collected] == [ids[0], *ids[2:]]
    (problem,) = done.problems
    assert ids[1] in problem
    assert len(threads) > len(ids)
    assert set(threads) == {threading.main_thread()}


class Aborted(BaseException):
    """The exception that a signal raises in the main thread."""


@pytest.mark.parametrize("stage", ["submit", "collect"])
def test_a_later_run_continues_after_one_that_was_ended_in_the_middle(world: World, stage: str) -> None:
    pipeline = world.pipeline(texts(2500), batching=VARIED)
    world.build(pipeline)
    reports = 0

    def hook(*_: Any) -> None:
        nonlocal reports
        reports += 1
        if reports == 2:
            if stage == "collect":  # downloads that are not stored yet are removed
                threads = threading.enumerate
                wait_for(lambda: "transfer" not in [thread.name for thread in threads()], "all downloads")
            raise Aborted

    if stage == "submit":
        with pytest.raises(Aborted):
            submit_batches(world.root, pipeline.name, on_file=hook)
    world.submit(pipeline)
    poll(world.root, now=True)
    if stage == "collect":
        with pytest.raises(Aborted):
            collect_results(world.root, pipeline.name, on_batch=hook)
        assert world.query("select name from lease") == []
        assert list(Path(world.root.settings.root).rglob("*.raw*")) == []
    world.finish(pipeline)
    assert len(world.accepted_custom_ids()) == len(set(world.accepted_custom_ids())) == 2500
    assert set(world.table(pipeline)["result_type"]) == {"succeeded"}


@pytest.mark.parametrize(
    ("limits", "line", "lines", "counts"),
    [
        ((1000, 10**9), 50, 16886, [*range(1000, 984, -1), 1000, 6]),
        ((999, 10**9), 50, 3000, [999, 999, 999, 3]),
        ((10**5, 30_014), 100, 4986, [*range(300, 284, -1), 300, 6]),
        ((10**5, 10_014), 100, 250, [100, 100, 50]),
    ],
    ids=["by requests", "small ones are as they are", "by bytes", "few by bytes"],
)
def test_files_in_a_row_differ_in_their_counts(
    tmp_path: Path, limits: tuple[int, int], line: int, lines: int, counts: list[int]
) -> None:
    names = map(PartName, range(99))
    text = b"x" * (line - 1) + b"\n"
    with PartWriter(Storage(str(tmp_path)), ("s",), 1, limits, names.__next__) as writer:
        for size in [1, lines - 1]:
            writer.add([text] * size)
    assert [part.requests for part in writer.written] == counts
    assert all(part.bytes <= limits[1] for part in writer.written)


def test_the_number_of_transfers_is_used_and_equal_counts_are_kept_apart() -> None:
    together = threading.Barrier(3)
    under_way: list[str] = []

    def work(item: str, _: Progress) -> list[str]:
        assert item[0] not in [other[0] for other in under_way]
        assert len(under_way) < 3
        under_way.append(item)
        if item[0] in "abc":
            together.wait(60)
        under_way.remove(item)
        return []

    Transfers(3, work, apart=lambda item: item[0]).run(["a1", "a2", "b1", "a3", "b2", "b3", "c1", "c2", "c3", "d"])
    assert together.n_waiting == 0


_ONE_THREAD = """
import resource, threading
from batch_assets.core.io.transfers import Transfers

def work(item, progress):
    while True:  # until it is broken off
        progress(item)

gigabyte = 1 << 30
threading.stack_size(gigabyte)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + gigabyte * 3 // 2,) * 2)
Transfers(3, work, breaks_off=True).run([1, 2, 3])
"""


def test_a_thread_that_cannot_begin_is_not_waited_for(python: ForkServer) -> None:
    """The machine has room for one."""
    done = python.python("-c", _ONE_THREAD, timeout=120)
    assert done.stderr.endswith("RuntimeError: can't start new thread\n")


def test_replacements_of_an_item_come_next() -> None:
    done = []

    def work(item: int, _: Progress) -> list[int]:
        done.append(item)
        return [item // 2, item // 2] if item > 4 else []

    Transfers(1, work).run([8, 1])
    assert done == [8, 4, 4, 1]


def test_the_step_after_an_item_runs_in_the_callers_thread_and_occupies_its_transfer() -> None:
    events: list[str] = []
    second_begun = threading.Event()

    def work(item: int, _: Progress) -> list[int]:
        events.append(f"begin {item}")
        if item == 2:
            second_begun.set()
        assert second_begun.wait(60)
        return []

    def after(item: int) -> None:
        assert threading.current_thread() is threading.main_thread()
        events.append(f"after {item}")
        if item < 3:
            begun = sum(event.startswith("begin") for event in events)
            assert begun - sum(event.startswith("after") for event in events) <= 1, "its place is not free yet"

    Transfers(2, work, after=after).run([1, 2, 3, 4])
    assert sorted(events) == sorted(f"{kind} {item}" for kind in ("begin", "after") for item in (1, 2, 3, 4))
    assert set(events[:2]) == {"begin 1", "begin 2"}
    Transfers(1, work, after=after).run([5])
    assert events[-2:] == ["begin 5", "after 5"]


def test_when_the_step_after_an_item_fails_the_others_finish() -> None:
    both, ended = threading.Barrier(2), []

    def work(item: int, _: Progress) -> list[int]:
        both.wait(60)
        return []

    def after(item: int) -> None:
        ended.append(item)
        raise ValueError(f"item {item}")

    with pytest.raises(ValueError, match="item 1"):
        Transfers(2, work, after=after).run([1, 2, 3])
    assert sorted(ended) == [1, 2]


def test_the_first_failure_in_order_is_raised_and_running_items_finish() -> None:
    second_failed, ended = threading.Event(), []

    def work(item: int, _: Progress) -> list[int]:
        if item == 2:
            second_failed.set()
            raise ValueError("second")
        assert second_failed.wait(60)
        ended.append(item)
        if item == 1:
            raise KeyError("first")
        return []

    with pytest.raises(KeyError, match="first"):
        Transfers(3, work).run([1, 2, 3, 4, 5])
    assert sorted(ended) == [1, 3]


@pytest.mark.parametrize("error", [ValueError, Aborted])
def test_running_items_are_interrupted_if_they_can_start_again(error: type[BaseException]) -> None:
    broken_off = []

    def work(item: int, progress: Progress) -> list[int]:
        try:
            while True:
                progress(item)
        except BrokenOffError:
            broken_off.append(item)
            raise

    def report(item: int, _: int) -> None:
        if item == 2:
            raise error

    with pytest.raises(error):
        Transfers(2, work, progress=report, breaks_off=True).run([1, 2, 3])
    assert sorted(broken_off) == [1, 2]


@pytest.mark.parametrize("value", ["0", "17", "four", "-1", "2.5"])
def test_a_number_that_cannot_be_used_is_named(value: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=f"BATCH_ASSETS_TRANSFERS is '{value}'.* 1 to 16"):
        Settings.from_env(environment("http://127.0.0.1:1", tmp_path, BATCH_ASSETS_TRANSFERS=value))
    assert Settings.from_env(environment("http://127.0.0.1:1", tmp_path)).transfers == 4
