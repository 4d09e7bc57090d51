"""`python -m benchmarks.fleet` (`make fleet`): a backfill on one machine and on two, and what kills do to it.

Starts the services of deploy/compose.yaml as processes, each in a network namespace of its own: PostgreSQL, Redis,
an S3 server, code server, daemon, webserver, and Celery workers with one slot each. Each call to the object store
and to the API takes 0.2 s longer, so that the work waits and does not compute, and is recorded with the address of
its caller.

The same backfill of 200 partitions runs with one worker, with two, and once more with two while every kind of
process is killed three times. Processes that were killed are started again, as an init system does; no run is
launched again. What was sent is counted in the API's own log, and every table is compared with its dataset.

Exits with 1 if a limit is missed. The limits of speed and shares apply to 200 partitions; with fewer, the figures
are printed without a verdict. Needs root, and takes about two hours.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import signal
import sys
import time
from pathlib import Path

from benchmarks.fleet import judge
from benchmarks.fleet.judge import Work
from benchmarks.fleet.kills import KINDS, kill_all_kinds
from benchmarks.fleet.machines import Machines

PARTITIONS = 200
SPEED_UP_AT_LEAST = 1.7
SHARE_AT_LEAST = 0.4
CALLS_AT_MOST = 1.05
_TIMES = 3
# How long a backfill may take, for each partition and in any case.
_SECONDS_A_PARTITION, _MOST_SECONDS = 30.0, 1800.0


def missing() -> list[str]:
    """Return what this machine lacks for the trial, as text."""
    lacks = [] if os.geteuid() == 0 else ["root, for network namespaces"]
    lacks += [
        program for program in ("ip", "setpriv", "redis-server", "redis-cli") if shutil.which(program) is None
    ]
    if not any(Path("/usr/lib/postgresql").glob("*/bin/initdb")) and shutil.which("initdb") is None:
        lacks.append("PostgreSQL's server")
    packages = ("dagster_celery", "moto", "psycopg2", "s3fs", "redis")
    return lacks + [f"the package {name}" for name in packages if importlib.util.find_spec(name) is None]


class Trial:
    """Backfills of so many partitions and rows.

    Attributes:
        problems: The limits that were missed, as text.
    """

    def __init__(self, partitions: int, rows: int) -> None:
        self._partitions, self._rows = partitions, rows
        self._patience = _MOST_SECONDS + _SECONDS_A_PARTITION * partitions
        self._is_judging = partitions >= PARTITIONS
        self.problems: list[str] = []

    def run(self, workers: int) -> tuple[float, Work]:
        """Run the backfill; return what it took in seconds, and who did what."""
        with Machines(workers, self._partitions, self._rows) as machines:
            began = time.monotonic()
            machines.launch()
            machines.wait(machines.is_done, self._patience, "every partition has its answers")
            seconds = time.monotonic() - began
            work = judge.work_of(machines)
            print(f"{workers} worker{'s' * (workers > 1)}: {seconds:.0f} s, runs: {machines.runs()}", flush=True)
            for what, counts in [("calls", work.calls), *work.partitions.items()]:
                print(f"  {what:10}{', '.join(f'{name} {count:,}' for name, count in sorted(counts.items()))}")
            print(f"  calls of other processes: {work.others:,}", flush=True)
            self.problems += judge.problems_of(machines)
        return seconds, work

    def compare(self) -> None:
        """Run the backfill with one worker and with two, and compare."""
        alone, work_alone = self.run(1)
        together, work = self.run(2)
        share = min(work.shares().values())
        ratio = work.calls.total() / work_alone.calls.total()
        self._limit(
            f"two workers are {alone / together:.2f} times as fast as one", SPEED_UP_AT_LEAST, alone / together
        )
        self._limit(f"each does at least {share:.0%} of calls and partitions", SHARE_AT_LEAST, share)
        self._limit(f"together they make {ratio:.3f} times the calls of one", -CALLS_AT_MOST, -ratio)

    def _limit(self, text: str, least: float, measured: float) -> None:
        is_met = measured >= least
        limit = f"limit: {abs(least):g}, {'ok' if is_met else 'MISSED'}" if self._is_judging else "no limit"
        print(f"{text} ({limit})", flush=True)
        if self._is_judging and not is_met:
            self.problems.append(text)

    def kill(self, times: int) -> None:
        """Run the backfill with two workers, and kill every kind of process."""
        with Machines(2, self._partitions, self._rows) as machines:
            began = time.monotonic()
            machines.launch()
            kills = kill_all_kinds(machines, times)
            machines.wait(machines.is_done, self._patience, "every partition has its answers")
            seconds = time.monotonic() - began
            lost = judge.problems_of(machines)
            print(
                f"{len(kills)} kills: {seconds:.0f} s, {len(lost)} problems, runs: {machines.runs()}", flush=True
            )
        self.problems += lost
        if len(kills) < times * len(KINDS) and self._is_judging:
            self.problems.append(f"only {len(kills)} of {times * len(KINDS)} kills hit work in progress")


def main() -> None:
    """Run the trial, print and judge."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.fleet",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--partitions", type=int, default=PARTITIONS)
    parser.add_argument("--rows", type=int, default=5, help="rows of a partition")
    parser.add_argument("--kills", type=int, default=_TIMES, help="kills of each kind of process; 0 for none")
    parser.add_argument("--only-kills", action="store_true", help="do not compare one worker with two")
    options = parser.parse_args()
    if lacks := missing():
        print(f"SKIPPED: the trial needs {', '.join(lacks)}")
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # the processes end with this one
    trial = Trial(options.partitions, options.rows)
    if not options.only_kills:
        trial.compare()
    if options.kills:
        trial.kill(options.kills)
    sys.exit("; ".join(trial.problems) or 0)


if __name__ == "__main__":
    main()
