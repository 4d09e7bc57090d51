"""`python -m benchmarks.long_ledger`: what ticks and commands cost with 1,000,000 lines in the history.

Three pipelines of 500 partitions are really run for one partition each, against the emulator. What the ledger has
of them is then copied: once for each partition, or 33 times, as a year of rebuilt partitions leaves it. What is in
force is the same both times, so the costs should be, too. Prints the statements, the work of the database and the
CPU time of each step, and exits with 1 if one needs too many times what it needs without the history.

The work of SQLite is counted in instructions of its virtual machine, that of PostgreSQL in rows that it reads.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
import sqlalchemy as sa
from click.testing import CliRunner

from batch_assets import build_message_batch_assets
from batch_assets.cli import main as command
from batch_assets.core.batches.poll import poll
from batch_assets.core.batches.submit import submit_batches
from batch_assets.core.ledger import rounds, tables
from batch_assets.core.ledger.rounds import RoundEntry
from batch_assets.core.open_root import open_root
from batch_assets.core.pipeline.load import load_pipeline
from batch_assets.core.pipeline.pipeline import NO_HOOKS, Pipeline
from batch_assets.core.requests.build import build_requests
from batch_assets.core.results.run import collect_results
from batch_assets.emulator import Emulator
from benchmarks.long_ledger_copies import copy_files, copy_rows
from benchmarks.ticks import Location
from benchmarks.workload import MAX_TOKENS, MODEL, USER_TEMPLATE
from tests.core.old_ledgers import downgrade
from tests.core.postgres import PostgresServer, find_server

PARTITIONS, LINES = 500, 1_000_000
RATIO_AT_MOST, UPGRADE_SECONDS_AT_MOST = 1.5, 10.0
# What a stage may do for each submission that its pipeline ever had: it reads their ids, and two stages
# compare the index of answers with the response files.
INSTRUCTIONS_A_SUBMISSION = {"requests": 100, "batches": 10, "results": 100}
# PostgreSQL reads a table of 50,000 rows whole rather than look up 1,500 of them. It must not so read the history.
ROWS_A_SUBMISSION = 10
# Instructions that a few new submissions may add.
_SLACK = 2000
_PIPELINES = ("bench_0", "bench_1", "bench_2")
_FIRST = "key-0"
_UPGRADE = "upgrading the tables"
_LINES_A_SUBMISSION = 20
# Runs that the sensor requested for each submission: of all stages, and of retries.
_ROUNDS = 5
_INSTRUCTIONS = 100
# PostgreSQL counts what a connection read a moment after it was closed.
_STATISTICS_SECONDS = 0.3
# The version of the tables before the history had indexes.
_OLD_VERSION = "0013"


@dataclass
class Cost:
    """What a step costs.

    Attributes:
        statements: Statements that reach the ledger.
        work: Instructions of SQLite, or rows that PostgreSQL reads.
        cpu: CPU seconds of this process.
    """

    statements: int = 0
    work: int = 0
    cpu: float = 0.0


class Meter:
    """Measures what reaches the ledger.

    Args:
        url: The URL of a ledger on PostgreSQL; None for SQLite.
    """

    def __init__(self, url: str | None) -> None:
        self._url = url
        self._statements = self._instructions = 0
        sa.event.listen(sa.pool.Pool, "connect", self._connected)
        sa.event.listen(sa.Engine, "before_cursor_execute", self._executing)

    def close(self) -> None:
        sa.event.remove(sa.pool.Pool, "connect", self._connected)
        sa.event.remove(sa.Engine, "before_cursor_execute", self._executing)

    def _connected(self, connection: Any, _record: Any) -> None:
        if self._url is not None:
            return
        files = [row[2] for row in connection.execute("pragma database_list")]
        if any(file.endswith("ledger.db") for file in files):
            connection.set_progress_handler(self._progressing, _INSTRUCTIONS)

    def _progressing(self) -> int:
        self._instructions += _INSTRUCTIONS
        return 0

    def _executing(self, connection: sa.Connection, *_: Any) -> None:
        database = str(connection.engine.url.database)
        own = sa.make_url(self._url).database if self._url is not None else "ledger.db"
        self._statements += database.endswith(str(own))

    @contextmanager
    def measure(self) -> Iterator[Cost]:
        """Measure what happens in the block, which closes its connections."""
        cost = Cost()
        self._statements = self._instructions = 0
        read, cpu = self._read(), time.process_time()
        yield cost
        cost.cpu, cost.statements = time.process_time() - cpu, self._statements
        cost.work = self._read() - read if self._url is not None else self._instructions

    def _read(self) -> int:
        """The rows that PostgreSQL has read so far. It counts those of a connection when that is closed."""
        if self._url is None:
            return 0
        time.sleep(_STATISTICS_SECONDS)
        engine = sa.create_engine(self._url, poolclass=sa.NullPool)
        with engine.connect() as connection:
            statement = (
                "select sum(seq_tup_read) + (select sum(idx_tup_read) from pg_stat_user_indexes) "
                "from pg_stat_user_tables"
            )
            return int(connection.exec_driver_sql(statement).scalar_one())


def fields(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "dataset": {"path": f"{name}-{{partition}}.csv", "key": "id"},
        "partitions": {"dynamic": True},
        "params": {
            "model": MODEL,
            "max_tokens": MAX_TOKENS,
            "messages": [{"role": "user", "content": USER_TEMPLATE}],
        },
    }


class World:
    """A root with a long ledger, and the steps that are measured.

    Args:
        folder: An empty folder.
        emulator: The API.
    """

    def __init__(self, folder: Path, emulator: Emulator, instance: dg.DagsterInstance) -> None:
        self._folder, self._emulator = folder, emulator
        assets = [
            asset
            for name in _PIPELINES
            for asset in build_message_batch_assets(**fields(name), folder=folder, project=folder)
        ]
        self.location = Location(assets, instance)

    def pipeline(self, name: str) -> Pipeline:
        return load_pipeline(fields(name), folder=self._folder, source="bench/defs.yaml", hooks=NO_HOOKS)

    def build(self, name: str, partition: str) -> None:
        with open_root() as root:
            build_requests(root, self.pipeline(name), partition)

    def send(self, name: str, partition: str) -> None:
        with open_root() as root:
            submit_batches(root, name, partition)

    def collect(self, name: str, partition: str, **more: Any) -> None:
        with open_root() as root:
            done = collect_results(root, name, partition, **more)
        assert done.results is not None and done.results.final, "not every row has its answer"
        assert not done.problems, done.problems[0]

    def poll(self) -> None:
        with open_root() as root:
            poll(root, now=True)

    def write(self, name: str, partition: str) -> None:
        (self._folder / f"{name}-{partition}.csv").write_text(f"id,text\n1,one {partition}\n2,two {partition}\n")

    def fill(self, copies: int) -> int:
        """Run the first partition of each pipeline, and copy what it left."""
        for name in _PIPELINES:
            self.write(name, _FIRST)
            self.build(name, _FIRST)
            self.send(name, _FIRST)
        self._emulator.end_batches()
        self.poll()
        for name in _PIPELINES:
            self.collect(name, _FIRST)
        with open_root() as root:
            with root.ledger.write() as tx:
                ids = list(tx.execute(sa.select(tables.submission.c.id)).scalars())
                for _ in range(_ROUNDS):
                    before = rounds.current_of(tx, ids)
                    opened = rounds.open_runs(tx, [[RoundEntry(id_, "1 ended batch")] for id_ in ids], before)
                    for round_ in opened:
                        rounds.close_run(tx, round_.leader, round_.leader_number)
                tx.execute(sa.update(tables.submission).values(announced_at=tx.now))
            lines = copy_rows(root, PARTITIONS, copies)
            for name in _PIPELINES:
                copy_files(root, name, PARTITIONS, copies)
        return lines


def run_command(*arguments: str) -> None:
    done = CliRunner().invoke(command, list(arguments))
    assert done.exit_code == 0, done.output


def measured(world: World, emulator: Emulator, meter: Meter) -> dict[str, Cost]:
    """Measure all steps. What a partition costs is that of the second one, when everything is imported."""
    costs: dict[str, Cost] = {}
    name = _PIPELINES[0]

    def step(what: str, do: Callable[[], Any]) -> None:
        with meter.measure() as costs[what]:
            do()

    step("opening the root", open_ledger)
    step("a tick with nothing to do", world.location.tick)
    step("status", lambda: run_command("status"))
    step("status NAME", lambda: run_command("status", name))
    step("status NAME --history", lambda: run_command("status", name, "--history"))
    for number in range(2):
        partition = f"new-{number}"
        world.write(name, partition)
        step("requests", partial(world.build, name, partition))
        step("batches", partial(world.send, name, partition))
        emulator.end_batches()
        step("a tick with an ended batch", world.location.tick)
        step("results", partial(world.collect, name, partition))
    with open_root() as root, root.ledger.write() as tx:
        downgrade(tx.connection, _OLD_VERSION)
    step(_UPGRADE, open_ledger)
    return costs


def open_ledger() -> None:
    with open_root() as root:
        root.ledger  # noqa: B018  # opened by its first use


def run(copies: int, server: PostgresServer | None) -> dict[str, Cost]:
    """Fill a ledger, and measure all steps with it."""
    with tempfile.TemporaryDirectory() as folder, Emulator(latency=0.0) as emulator:
        os.environ |= {"BATCH_ASSETS_EMULATOR": emulator.url, "BATCH_ASSETS_ROOT": str(Path(folder, "root"))}
        os.environ.pop("BATCH_ASSETS_LEDGER", None)
        url = None if server is None else server.new_database()
        if url is not None:
            os.environ["BATCH_ASSETS_LEDGER"] = url
        with dg.DagsterInstance.local_temp(folder) as instance:
            world, began = World(Path(folder), emulator, instance), time.perf_counter()
            lines = world.fill(copies)
            print(f"{lines:,} lines, made in {time.perf_counter() - began:.0f} s", flush=True)
            meter = Meter(url)
            try:
                return measured(world, emulator, meter)
            finally:
                meter.close()


def missed(short: dict[str, Cost], long: dict[str, Cost], copies: int, *, is_sqlite: bool) -> list[str]:
    """Print what each step costs, and return the limits that are missed, as text."""
    problems, unit = [], "instructions" if is_sqlite else "rows"
    print(f"{'':28}{'statements':>12}{unit:>24}{'CPU s':>14}")
    for step, few in short.items():
        many = long[step]
        print(
            f"{step:28}{few.statements:>6,}{many.statements:>6,}{few.work:>12,}{many.work:>12,}"
            f"{few.cpu:>7.2f}{many.cpu:>7.2f}",
            flush=True,
        )
        if many.statements > RATIO_AT_MOST * few.statements:
            problems.append(f"{step}: {many.statements:,} statements, without the history {few.statements:,}")
        if step == _UPGRADE:
            if many.cpu > UPGRADE_SECONDS_AT_MOST:
                problems.append(f"{step}: more than {UPGRADE_SECONDS_AT_MOST:g} s of CPU time")
            continue
        allowed = INSTRUCTIONS_A_SUBMISSION.get(step, 0) * copies + _SLACK
        if not is_sqlite:
            allowed = ROWS_A_SUBMISSION * copies * len(_PIPELINES)
        if many.work > RATIO_AT_MOST * few.work + allowed:
            problems.append(f"{step}: {many.work:,} {unit}, without the history {few.work:,}")
    return problems


def main() -> None:
    """Measure, print and judge."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.long_ledger", description=__doc__)
    parser.add_argument("--lines", type=int, default=LINES, help="lines of the history")
    options = parser.parse_args()
    logging.disable()  # Dagster's messages about the runs
    copies = max(PARTITIONS, options.lines // (len(_PIPELINES) * _LINES_A_SUBMISSION))
    problems = missed(run(PARTITIONS, None), run(copies, None), copies, is_sqlite=True)
    programs, why = find_server()
    if programs is None:
        print(f"PostgreSQL is SKIPPED: {why}")
    else:
        with PostgresServer(programs) as server:
            problems += missed(run(PARTITIONS, server), run(copies, server), copies, is_sqlite=False)
    sys.exit("; ".join(problems) or 0)


if __name__ == "__main__":
    main()
