"""`python -m benchmarks.polls --batches 10000`: how long the look at open batches takes, and what it costs.

The batches are created at the emulator, and put into the ledger as batches of one request file. The look is that
of a tick of the sensor, whose time is limited. Prints its seconds, CPU time, calls and statements: while all
batches run, when none is due, after some have ended, and when all have ended.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import sqlalchemy as sa

from batch_assets.core.api.objects import BatchObject
from batch_assets.core.batches.poll import poll
from batch_assets.core.batches.submit import submit_batches
from batch_assets.core.ledger import batches, tables
from batch_assets.core.open_root import open_root
from batch_assets.core.pipeline.load import load_pipeline
from batch_assets.core.requests.build import build_requests
from batch_assets.core.root import Root
from batch_assets.core.settings import Settings
from batch_assets.emulator import Emulator
from benchmarks.ticks import counting
from benchmarks.workload import MAX_TOKENS, MODEL, USER_TEMPLATE, create_batch

_BUDGET_SECONDS = 30.0
_ROWS_AT_ONCE = 5000
_AGE_SECONDS = 7200.0


def create(emulator: Emulator, count: int) -> list[BatchObject]:
    """Create batches of one request."""
    return [BatchObject.parse(create_batch(emulator.url, "a", "Hello", max_tokens=5)) for _ in range(count)]


def prepare(root: Root, folder: Path, created: list[BatchObject]) -> None:
    """Submit one row, and record the batches as further ones of its file, submitted some time ago."""
    (folder / "rows.csv").write_text("id,text\n1,one\n")
    messages = [{"role": "user", "content": USER_TEMPLATE}]
    attributes = {
        "name": "bench",
        "dataset": {"path": "rows.csv", "key": "id"},
        "params": {"model": MODEL, "max_tokens": MAX_TOKENS, "messages": messages},
    }
    build_requests(root, load_pipeline(attributes, folder=folder))
    submit_batches(root, "bench")
    with root.ledger.write() as tx:
        row = dict(tx.execute(sa.select(tables.batch)).one()._mapping)
        age = {"submitted_at": row["submitted_at"] - _AGE_SECONDS, "next_poll_at": 0.0}
        copies = [{**row, **age, **batches.reported_columns(batch), "id": batch.id} for batch in created]
        for start in range(0, len(copies), _ROWS_AT_ONCE):
            tx.connection.execute(sa.insert(tables.batch), copies[start : start + _ROWS_AT_ONCE])


def look(root: Root, name: str, *, now: bool = True) -> None:
    """Look at the batches as a tick does, and print a line."""
    began, used = time.perf_counter(), time.process_time()
    with counting() as statements:
        report = poll(root, budget=_BUDGET_SECONDS, now=now)
    wall, cpu = time.perf_counter() - began, time.process_time() - used
    changed = sum(map(len, report.changed.values()))
    with root.ledger.read() as tx:
        due = tx.execute(sa.select(sa.func.count()).where(tables.batch.c.state == "open")).scalar_one()
    print(
        f"{name:24}{wall:8.2f} s{cpu:8.2f} s CPU{report.calls:8,} calls{len(statements):8,} statements"
        f"{changed:8,} changed{due:8,} open",
        flush=True,
    )


def main() -> None:
    """Build the root, and print what the looks cost."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.polls", description=__doc__)
    parser.add_argument("--batches", type=int, default=10_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Emulator(latency=100 * _AGE_SECONDS) as emulator:
        os.environ |= {"BATCH_ASSETS_EMULATOR": emulator.url, "BATCH_ASSETS_ROOT": str(Path(folder, "root"))}
        os.environ.pop("BATCH_ASSETS_LEDGER", None)
        created = create(emulator, options.batches)
        with open_root(Settings.from_env()) as root:
            prepare(root, Path(folder), created)
            look(root, "all run")
            look(root, "none is due", now=False)
            emulator.end_batches(*(batch.id for batch in created[:: len(created) // 10 or 1]))
            look(root, "some have ended")
            emulator.end_batches()
            look(root, "all have ended")


if __name__ == "__main__":
    main()
