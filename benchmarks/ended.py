"""`python -m benchmarks.ended --batches 1000`: the sensor's ticks when very many batches have ended at once.

One partition is really run, against the emulator. Its rows in the ledger are then copied under other keys, and for
each copy the emulator gets a batch, which ends at once. Ticks follow until every partition has had its run. The
runs themselves are not executed: what they would record is written to the ledger, and to Dagster that they
succeeded.

Prints CPU time and statements of the most expensive tick. Exits with 1 if a limit is missed, or if a partition did
not have exactly one run. `--batches 10000` is the largest number that the project promises; it takes 15 minutes.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections import Counter
from dataclasses import dataclass, field

import dagster as dg
import sqlalchemy as sa

from batch_assets.core.ledger import rounds, tables
from batch_assets.core.ledger.states import BatchState, FileState
from batch_assets.core.open_root import open_root
from batch_assets.dagster import keys
from batch_assets.emulator import Emulator
from benchmarks.ticks import Location, copied_location, counting
from benchmarks.workload import create_batch

CPU_SECONDS_AT_MOST = 5.0
STATEMENTS_AT_MOST = 150
_DONE = "No batch is open."


@dataclass
class Ticks:
    """What ticks cost, and what they asked for.

    Attributes:
        cpu: CPU seconds of each tick.
        statements: Statements that each tick had the ledger execute.
        runs: Runs that each tick requested.
        partitions: How many runs each partition had.
    """

    cpu: list[float] = field(default_factory=list)
    statements: list[int] = field(default_factory=list)
    runs: list[int] = field(default_factory=list)
    partitions: Counter[str] = field(default_factory=Counter)


def reopen(emulator: Emulator | None) -> None:
    """Set every submission of the ledger back to the moment after its batch was sent.

    Args:
        emulator: Gets a batch for each submission; None if the ledger shall know already that the batches ended.
    """
    state = BatchState.OPEN if emulator is not None else BatchState.ENDED
    with open_root() as root:
        with root.ledger.read() as tx:
            ids = list(tx.execute(sa.select(tables.batch.c.id)).scalars())
        new_ids = {} if emulator is None else _resubmitted(emulator.url, ids)
        with root.ledger.write() as tx:
            waiting = {"final_at": None, "announced_at": None, "joined_seq": None, "counts": None}
            tx.execute(sa.update(tables.submission).values(waiting))
            tx.execute(sa.update(tables.request_file).values(state=FileState.SUBMITTED, collected_seq=None))
            tx.execute(sa.update(tables.batch).values(state=state, next_poll_at=0.0, next_download_at=0.0))
            tx.execute(sa.update(tables.batch).values(processing_status="in_progress", ended_at=None))
            tx.execute(sa.delete(tables.round_))
            for table, column in ((tables.batch, "id"), (tables.request_file, "batch_id")):
                renamed = [{"old": old, "new": new} for old, new in new_ids.items()]
                if renamed:
                    is_old = table.c[column] == sa.bindparam("old")
                    tx.connection.execute(
                        sa.update(table).where(is_old).values({column: sa.bindparam("new")}), renamed
                    )


def _resubmitted(url: str, ids: list[str]) -> dict[str, str]:
    """Create a batch at the emulator for each id, with a request of its own. Return the new id of each."""
    return {id_: create_batch(url, f"bench-{number}", f"number {number}")["id"] for number, id_ in enumerate(ids)}


def tick_until_done(location: Location, instance: dg.DagsterInstance, most: int) -> Ticks:
    """Tick until nothing is left to do, and let every run succeed before the next tick.

    Args:
        location: The code location.
        instance: Its Dagster instance.
        most: The number of ticks after which it gives up.
    """
    ticks = Ticks()
    for _ in range(most):
        cpu = time.process_time()
        with counting() as statements:
            requests, message = location.tick()
        ticks.cpu.append(time.process_time() - cpu)
        ticks.statements.append(len(statements))
        ticks.runs.append(len(requests))
        if not requests and message == _DONE:
            return ticks
        for request in requests:
            ticks.partitions.update(_succeed(request, location, instance))
    raise RuntimeError(f"{most} ticks were not enough: {message}")


def _succeed(request: dg.RunRequest, location: Location, instance: dg.DagsterInstance) -> list[str]:
    """Record what a run of `results` would. Return the ids of its submissions."""
    leader, number = request.tags[keys.SUBMISSION], int(request.tags[keys.ROUND].split(":")[0])
    location.succeeded(request)
    round_, submission, file = tables.round_, tables.submission, tables.request_file
    is_led = sa.or_(round_.c.submission_id == leader, round_.c.leader == leader)
    with open_root() as root, root.ledger.write() as tx:
        of_run = sa.select(round_.c.submission_id).where(is_led, round_.c.state == "open")
        ids = list(tx.execute(of_run).scalars())
        files = list(tx.execute(sa.select(file.c.id).where(file.c.submission_id.in_(ids))).scalars())
        done = {"final_at": tx.now - 3600, "announced_at": tx.now, "joined_seq": tx.last_seq()}
        tx.execute(sa.update(submission).where(submission.c.id.in_(ids)).values(done))
        collected = sa.update(file).where(file.c.id.in_(files))
        tx.execute(collected.values(state=FileState.COLLECTED, collected_seq=1))
        stored = sa.update(tables.batch).where(tables.batch.c.file_id.in_(files))
        tx.execute(stored.values(state=BatchState.COLLECTED))
        rounds.close_run(tx, leader, number)
    return ids


def measure(batches: int) -> Ticks:
    """Let many batches end at once, and tick until all have had their run."""
    with copied_location(batches) as (location, emulator):
        location.instance.add_dynamic_partitions("bench", [f"key-{number}" for number in range(1, batches)])
        reopen(emulator)
        emulator.end_batches()
        return tick_until_done(location, location.instance, 20 + batches // 50)


def missed(ticks: Ticks, batches: int) -> list[str]:
    """Return the limits that ticks missed, as text."""
    problems = []
    if max(ticks.cpu) > CPU_SECONDS_AT_MOST:
        problems.append(f"a tick takes more than {CPU_SECONDS_AT_MOST:g} s of CPU time")
    if max(ticks.statements) > STATEMENTS_AT_MOST:
        problems.append(f"a tick has the ledger execute more than {STATEMENTS_AT_MOST} statements")
    if set(ticks.partitions.values()) != {1} or len(ticks.partitions) != batches:
        problems.append(f"{len(ticks.partitions):,} of {batches:,} partitions had a run, and not exactly one each")
    return problems


def main() -> None:
    """Measure, print and judge."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ended", description=__doc__)
    parser.add_argument("--batches", type=int, nargs="+", default=[1000])
    options = parser.parse_args()
    logging.disable()  # Dagster's messages about the runs
    problems = []
    for batches in options.batches:
        ticks = measure(batches)
        print(
            f"{batches:,} ended batches: {len(ticks.cpu)} ticks, {sum(ticks.runs):,} runs; the most expensive "
            f"tick takes {max(ticks.cpu):.2f} s of CPU time (at most {CPU_SECONDS_AT_MOST:g}) and "
            f"{max(ticks.statements)} statements (at most {STATEMENTS_AT_MOST})",
            flush=True,
        )
        problems += missed(ticks, batches)
    sys.exit("; ".join(problems) or 0)


if __name__ == "__main__":
    main()
