"""The campaign: every kind of fault, several trials at a time, counted in the lines of one table."""

from __future__ import annotations

import random
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.chaos import kills
from tests.chaos.bench import Bench
from tests.chaos.deployment_kills import run_deployment_kills
from tests.chaos.faults import Case, cases, run_case
from tests.chaos.judge import Verdict
from tests.chaos.table import Line

MINUTES = 7.0  # for kills and faults; those of daemon, code server and run worker take about 3 more
RANDOM_KILLS = 100  # at least, before the positions, whose number is known
BENCHES = 3  # trials wait for leases to expire more than they compute
_PROGRESS_SECONDS = 10.0
# On one bench batches run for a while, so that a batch in doubt is found by its count before its results prove it.
_LATENCY = 0.3

Outcome = tuple[Verdict, str, int]
Job = tuple[str, Callable[[Bench], Outcome]]


class Counting:
    """The table's lines, filled by several threads."""

    def __init__(self) -> None:
        self.lines: dict[str, Line] = {}
        self._lock = threading.Lock()
        self._began = self._shown = time.monotonic()

    def add(self, fault: str, outcome: Outcome) -> None:
        verdict, where, faults = outcome
        with self._lock:
            line = self.lines.setdefault(fault, Line(fault))
            line.add(verdict, where, faults)
            if not verdict.good:
                self._say(line.bad[-1])
            elif time.monotonic() - self._shown > _PROGRESS_SECONDS:
                self._shown = time.monotonic()
                self._say(f"{sum(line.tried for line in self.lines.values()):,} faults tried; now {fault}")

    def expect(self, fault: str) -> None:
        """Add a fault's line to the table."""
        self.lines[fault] = Line(fault)

    def tried(self, fault: str) -> int:
        with self._lock:
            return self.lines[fault].tried

    def say(self, text: str) -> None:
        with self._lock:
            self._say(text)

    def _say(self, text: str) -> None:
        print(f"{time.monotonic() - self._began:5.0f} s  {text}", file=sys.stderr, flush=True)


def run_campaign(folder: Path, *, kills: int | None, seed: int, benches: int, dagster: bool) -> list[Line]:
    """Run everything.

    Args:
        folder: Empty; it gets what the trials leave.
        kills: How many kills of the process, by position and at random times, however long it takes; None: at
            every position and `RANDOM_KILLS` at random times, as far as `MINUTES` allow. The other faults come
            first, and all of them are tried.
        benches: How many trials at a time.
        dagster: Whether to kill daemon, code server and run worker too.

    Returns:
        The lines of the table.
    """
    counting = Counting()
    _Trials(folder, counting, kills, seed, benches).run()
    if dagster:
        for fault, outcome in run_deployment_kills(folder / "deployment"):
            counting.add(fault, outcome)
    return list(counting.lines.values())


class _Trials:
    """Trials on several benches at once."""

    def __init__(self, folder: Path, counting: Counting, kill_count: int | None, seed: int, benches: int) -> None:
        self._folder, self._counting = folder, counting
        self._kill_count, self._chosen, self._benches = kill_count, random.Random(seed), benches
        self._deadline = time.monotonic() + 60 * MINUTES if kill_count is None else float("inf")
        self._faults: deque[Job] = deque()
        self._positions: deque[Job] = deque()
        self._at_random = RANDOM_KILLS
        self._planned = threading.Event()
        self._failed: list[BaseException] = []

    def run(self) -> None:
        threads = [threading.Thread(target=self._work, args=(number,)) for number in range(self._benches)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self._failed:
            raise self._failed[0]
        if not_tried := len(self._faults) + len(self._positions):
            self._counting.say(f"the time was up: {not_tried} of the planned trials were not made")

    def _work(self, number: int) -> None:
        folder = self._folder / f"bench-{number}"
        folder.mkdir(parents=True)
        try:
            with Bench(folder, latency=_LATENCY if number == 1 else 0.0) as bench:
                if number == 0:
                    self._plan(bench)
                self._planned.wait()
                for fault, job in self._next_jobs():
                    self._counting.add(fault, job(bench))
        except BaseException as error:
            self._failed.append(error)
        finally:
            self._planned.set()

    def _plan(self, bench: Bench) -> None:
        kinds = () if self._kill_count == 0 else (*kills.STAGES.values(), kills.RANDOM)
        for fault in (*kinds, *(case.fault for case in cases())):
            self._counting.expect(fault)
        self._faults.extend((case.fault, _fault(case)) for case in cases())
        if self._kill_count == 0:
            self._at_random = 0
        else:
            self._plan_kills(bench)
        self._planned.set()

    def _plan_kills(self, bench: Bench) -> None:
        counted = {stage: len(kills.positions(bench, stage)) for stage in kills.STAGES}
        self._counting.say(f"kill positions: {counted}")
        planned = [(stage, position) for stage, count in counted.items() for position in range(1, count + 1)]
        self._chosen.shuffle(planned)
        if self._kill_count is not None:
            self._at_random = max(min(RANDOM_KILLS, self._kill_count // 2), self._kill_count - len(planned))
            planned = planned[: self._kill_count - self._at_random]
        self._positions.extend((kills.STAGES[stage], _kill_at(stage, at)) for stage, at in planned)

    def _next_jobs(self) -> Iterator[Job]:
        while not self._failed and time.monotonic() < self._deadline:
            try:
                if self._faults:
                    yield self._faults.popleft()
                elif self._at_random and self._counting.tried(kills.RANDOM) < self._at_random:
                    yield kills.RANDOM, _kill_at_random(self._chosen.getrandbits(32))
                else:
                    yield self._positions.popleft()
            except IndexError:  # another bench took the last one
                if not self._positions:
                    return


def _fault(case: Case) -> Callable[[Bench], Outcome]:
    return lambda bench: run_case(bench, case)


def _kill_at(stage: str, position: int) -> Callable[[Bench], Outcome]:
    return lambda bench: kills.kill_at(bench, stage, position)


def _kill_at_random(seed: int) -> Callable[[Bench], Outcome]:
    return lambda bench: kills.kill_at_random(bench, seed)
