"""Transfers over a line that is too slow for all of them to end in the time of a run."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field

import pytest

from batch_assets.core.batches.consent import begin_all
from batch_assets.core.batches.poll import poll
from batch_assets.core.batches.submit import submit_batches
from batch_assets.core.io.pace import SLOW_LINE, GivenWayError, Pace
from batch_assets.core.io.transfers import Progress, Transfers
from batch_assets.core.ledger import Ledger
from batch_assets.core.ledger.shared_line import SharedLine
from batch_assets.core.results.run import collect_results

from ..support import World, texts

MINUTE = 60.0
NewWorld = Callable[..., World]


@dataclass
class Line:
    """A line whose transfers share its speed equally, with a clock of its own.

    Attributes:
        speed: Bytes per second.
        landed: The transfers that are complete.
    """

    speed: float
    now: float = 0.0
    landed: list[str] = field(default_factory=list)

    def run(self, pace: Pace[str], sizes: dict[str, float], until: float, at_most: int = 4) -> None:
        """Transfer items until all are done, none may begin, or the run is ended from outside."""
        waiting, left = list(sizes), {}
        while self.now < until:
            while waiting and len(left) < at_most and pace.may_begin(waiting[0], list(left)):
                left[waiting[0]] = sizes[waiting[0]]
                pace.begun(waiting.pop(0))
            if not left:
                return
            self.now += 1.0
            share = self.speed / len(left)
            for item in list(left):
                left[item] -= share
                pace.progress(item, int(sizes[item] - max(left[item], 0.0)))
                if left[item] <= 0:
                    del left[item]
                    pace.ended(item)
                    self.landed.append(item)


@dataclass
class Run:
    """A run of a pipeline, with one transfer."""

    name: str
    size: float
    pace: Pace[str]
    done: float = 0.0
    is_over: bool = False

    def step(self, speed: float) -> None:
        if self.done == 0.0:
            if not self.pace.may_begin(self.name, []):
                self.is_over = True
                return
            self.pace.begun(self.name)
        self.done += speed
        self.pace.progress(self.name, int(self.done))
        self.is_over = self.done >= self.size or self.pace.gives_way(self.name)


def rounds_until_all_landed(
    ledger: Ledger, sizes: dict[str, float], *, shared: bool, at_most: int, known: bool = True
) -> int:
    """Runs of several pipelines begin together, in rounds of an hour, on a line of 1,000 bytes a second."""
    left, clock = dict(sizes), [0.0]
    for number in range(1, at_most + 1):
        with ExitStack() as stack:
            runs = []
            for name, size in left.items():
                line = stack.enter_context(SharedLine(ledger, "p").used()) if shared else None
                pace: Pace[str] = Pace(
                    55 * MINUTE, left.__getitem__, 1.0 if known else None, now=lambda: clock[0], line=line
                )
                runs.append(Run(name, size, pace))
            for _ in range(60):
                clock[0] += MINUTE
                going = [run for run in runs if not run.is_over]
                for run in going:
                    run.step(MINUTE * 1000.0 / len(going))
            left = {run.name: run.size for run in runs if run.done < run.size}
        if not left:
            return number
    return 0


@pytest.mark.parametrize("known", [True, False], ids=["uploads", "downloads"])
def test_runs_of_several_pipelines_that_share_a_line_land_one_after_the_other(world: World, known: bool) -> None:
    """Each transfer alone takes 17 minutes. Four at once take more than the hour that each run has."""
    sizes = dict.fromkeys("abcd", 17 * MINUTE * 1000.0)
    ledger = world.root.ledger
    assert rounds_until_all_landed(ledger, sizes, shared=False, at_most=5, known=known) == 0
    assert rounds_until_all_landed(ledger, sizes, shared=True, at_most=5, known=known) in (2, 3, 4)


def test_runs_that_all_end_in_time_do_not_wait_for_each_other(world: World) -> None:
    sizes = dict.fromkeys("abcd", 10 * MINUTE * 1000.0)
    assert rounds_until_all_landed(world.root.ledger, sizes, shared=True, at_most=1) == 1


def test_a_run_begins_beside_another_one_unless_the_line_is_slow(new_world: NewWorld, ledger_url: str) -> None:
    world = new_world(ledger=ledger_url)
    ledger = world.root.ledger
    with SharedLine(ledger, "p").used() as first, SharedLine(ledger, "p").used() as second:
        assert [line.is_taken() for line in (first, second)] == [False, False]
        assert [line.gives_way() for line in (first, second)] == [False, True]
        assert [line.is_taken() for line in (first, second)] == [False, True]
        world.query("update lease set until = until - 4000 where name = 'slow line'")
        assert not second.is_taken()
    with SharedLine(ledger, "p").used() as alone:
        assert not alone.gives_way()


class _Busy:
    """A line that another run uses."""

    def __init__(self) -> None:
        self.is_slow = False

    def is_taken(self) -> bool:
        return self.is_slow

    def gives_way(self) -> bool:
        self.is_slow = True
        return True


@pytest.mark.parametrize("at_most", [1, 2])
def test_a_transfer_that_gives_way_is_broken_off_and_left(at_most: int) -> None:
    clock = [0.0]
    broken_off: list[int] = []

    def work(item: int, progress: Progress) -> list[int]:
        try:
            while True:
                clock[0] += 61.0
                progress(1)
                threading.Event().wait(0.001)
        except GivenWayError:
            broken_off.append(item)
            raise
        return []

    pace: Pace[int] = Pace(3300.0, lambda _: 1e9, bytes_per_weight=1.0, now=lambda: clock[0], line=_Busy())
    transfers = Transfers(at_most, work, pace=pace)
    transfers.run([1, 2])
    assert (broken_off, transfers.left) == ([1], [1, 2])


def test_an_upload_that_gives_way_is_ready_again_and_was_not_accepted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = world.pipeline(texts(6), batching={"max_requests": 2})
    world.build(pipeline)
    begin_all(world.root, pipeline.name, [""])
    with SharedLine(world.root.ledger, "p").used():
        with monkeypatch.context() as patched:
            patched.setattr("batch_assets.core.io.pace._GIVES_WAY_SECONDS", 0.0)
            report = submit_batches(world.root, pipeline.name, unattended=True, seconds=1e-9)
        assert report is not None and list(report.waiting.values()) == [SLOW_LINE] * 3
        assert world.accepted() == [] and world.states(pipeline) == ["ready"] * 3
        again = submit_batches(world.root, pipeline.name, unattended=True, seconds=3000.0)
        assert again is not None and list(again.waiting.values()) == [SLOW_LINE] * 3
        assert world.calls()["POST /v1/messages/batches"] == 1
    submit_batches(world.root, pipeline.name, unattended=True, seconds=3000.0)
    assert world.states(pipeline) == ["submitted"] * 3
    assert len(world.accepted_custom_ids()) == 6


def upload_pace(line: Line, seconds: float | None, sizes: dict[str, float]) -> Pace[str]:
    return Pace(seconds, lambda item: sizes[item], bytes_per_weight=1.0, now=lambda: line.now)


def test_four_uploads_that_need_more_than_the_run_has_land_one_after_the_other() -> None:
    """Each upload alone takes a quarter of an hour and a little; all four together take more than the hour."""
    sizes = dict.fromkeys("abcd", 17 * MINUTE * 1000.0)
    line = Line(speed=1000.0)
    line.run(upload_pace(line, 55 * MINUTE, sizes), sizes, until=60 * MINUTE)
    assert line.landed == ["a", "b", "c"], "and d, which could not end in time, was not begun"
    assert line.now < 55 * MINUTE


def test_without_a_pace_nothing_lands() -> None:
    sizes = dict.fromkeys("abcd", 17 * MINUTE * 1000.0)
    line = Line(speed=1000.0)
    line.run(upload_pace(line, None, sizes), sizes, until=60 * MINUTE)
    assert line.landed == []


def test_on_a_fast_line_all_begin_after_the_first_second() -> None:
    sizes = dict.fromkeys("abcd", 20_000.0)
    line = Line(speed=1000.0)
    pace = upload_pace(line, 55 * MINUTE, sizes)
    line.run(pace, sizes, until=2.0)
    assert [pace.may_begin(item, ["a"]) for item in "bcd"] == [True, True, True]


@pytest.mark.parametrize("minutes", [5, 17, 30, 54])
def test_downloads_of_unknown_size_land_one_by_one(minutes: int) -> None:
    """The size of a download is estimated from its requests, once another one has landed."""
    requests = dict.fromkeys("abcd", 100.0)
    line = Line(speed=1000.0)
    pace: Pace[str] = Pace(55 * MINUTE, lambda item: requests[item], now=lambda: line.now)
    line.run(pace, dict.fromkeys("abcd", minutes * MINUTE * 1000.0), until=60 * MINUTE)
    assert len(line.landed) == min(55 // minutes, 4)
    assert line.now <= 55 * MINUTE


def test_a_transfer_that_needs_more_than_the_whole_time_is_tried_all_the_same() -> None:
    """The line may be faster than before."""
    sizes = {"a": 90 * MINUTE * 1000.0}
    line = Line(speed=1000.0)
    line.run(upload_pace(line, 55 * MINUTE, sizes), sizes, until=60 * MINUTE)
    assert line.now == 60 * MINUTE


def test_transfers_ask_before_each_item_and_name_those_that_are_left() -> None:
    clock = [0.0]
    begun: list[int] = []

    def work(item: int, progress: Progress) -> list[int]:
        begun.append(item)
        clock[0] += 10.0
        progress(100)
        return []

    pace: Pace[int] = Pace(25.0, lambda _: 100.0, bytes_per_weight=1.0, now=lambda: clock[0])
    transfers = Transfers(4, work, pace=pace)
    transfers.run([1, 2, 3, 4])
    assert (begun, transfers.left) == ([1, 2], [3, 4])


def test_a_second_transfer_begins_while_the_first_one_runs_if_both_end_in_time() -> None:
    clock = [0.0]
    both = threading.Barrier(2)

    def work(item: int, progress: Progress) -> list[int]:
        if item == 1:
            clock[0] = 2.0
            progress(50)
        both.wait(60)
        return []

    pace: Pace[int] = Pace(60.0, lambda _: 100.0, bytes_per_weight=1.0, now=lambda: clock[0])
    Transfers(4, work, pace=pace).run([1, 2])
    assert both.n_waiting == 0


def test_files_and_batches_that_are_left_are_named_and_come_next(world: World) -> None:
    pipeline = world.pipeline(texts(6), batching={"max_requests": 2})
    world.build(pipeline)
    begin_all(world.root, pipeline.name, [""])
    first = submit_batches(world.root, pipeline.name, unattended=True, seconds=0.0)
    assert first is not None and len(first.submitted) == 1
    assert list(first.waiting.values()) == [SLOW_LINE] * 2
    submit_batches(world.root, pipeline.name, unattended=True, seconds=3600.0)
    world.emulator.end_batches()
    poll(world.root, now=True)
    left = [collect_results(world.root, pipeline.name, seconds=0.0).problems for _ in range(3)]
    assert [sum(SLOW_LINE in problem for problem in problems) for problems in left] == [2, 1, 0]
    assert list(world.table(pipeline)["result_type"]) == ["succeeded"] * 6
