"""Kills of every kind of process while a backfill is under way."""

from __future__ import annotations

import random
import time
from typing import NamedTuple

from benchmarks.fleet.machines import Machines

_FIRST_SECONDS, _LAST_SECONDS = 15.0, 45.0
_DOWN_SECONDS = 2.0
KINDS = ("worker", "pool process", "daemon", "code server", "PostgreSQL", "Redis")


class Kill(NamedTuple):
    """A kill: what was killed, and how many partitions had all their answers by then."""

    kind: str
    final: int


def kill_all_kinds(machines: Machines, times: int, seed: int = 1) -> list[Kill]:
    """Kill each kind of process some times. Ends early if there is no work left.

    Args:
        machines: Their backfill was launched.
        times: How often each kind is killed.
        seed: Decides the moments.
    """
    chosen = random.Random(seed)
    kills: list[Kill] = []
    for number in range(times):
        worker = machines.workers()[number % len(machines.workers())]
        for kind in KINDS:
            time.sleep(chosen.uniform(_FIRST_SECONDS, _LAST_SECONDS))
            final = machines.final() or 0
            if final == len(machines.keys):
                return kills
            _kill(machines, kind, worker)
            kills.append(Kill(kind, final))
            print(f"  killed: {kind}, when {final} partitions were final", flush=True)
    return kills


def _kill(machines: Machines, kind: str, worker: str) -> None:
    if kind == "pool process":  # the worker replaces it
        machines.kill_pool_process(worker)
        return
    process = {
        "worker": worker,
        "daemon": "daemon",
        "code server": "code",
        "PostgreSQL": "postgres",
        "Redis": "redis",
    }[kind]
    machines.kill(process)
    time.sleep(_DOWN_SECONDS)
    machines.start_again(process)
