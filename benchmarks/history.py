"""`python -m benchmarks.history`: what a partition of 1,000 rows costs beside answers of earlier partitions.

A pipeline gets response files with answers to other requests, 1,000,000 in all (`--answers`), as a year of hourly
partitions leaves them. Then partitions are built, sent to the emulator, collected and joined, each in a run of its
own, and the same is done in a root without a history. Prints the CPU seconds of the stages `requests` and
`results`, their calls to the storage, and the statements that reach the ledger; and what it takes to make the
index, which happens once. Both roots take turns.

The calls are those of `Storage`, most of which are one request to an object store. Those by which a run looks once
through the folders of all partitions are not counted. Exits with 1 if a limit is missed.
"""

from __future__ import annotations

import argparse
import gc
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy as sa

from batch_assets.core.batches.poll import poll
from batch_assets.core.batches.submit import submit_batches
from batch_assets.core.io.storage import Storage
from batch_assets.core.ledger import tables
from batch_assets.core.ledger.states import BatchState, FileState
from batch_assets.core.open_root import open_root
from batch_assets.core.pipeline.load import load_pipeline
from batch_assets.core.pipeline.pipeline import NO_HOOKS, Pipeline
from batch_assets.core.requests.build import build_requests
from batch_assets.core.results.run import collect_results
from batch_assets.core.root import Root
from batch_assets.core.settings import Settings
from batch_assets.core.store.answer_index import AnswerIndex
from batch_assets.core.store.responses import RESPONSE_ENCODING, RESPONSE_SCHEMA
from batch_assets.emulator import Emulator
from benchmarks.ticks import counting
from benchmarks.workload import MAX_TOKENS, MODEL, USER_TEMPLATE

RATIO_AT_MOST, CALLS_AT_MOST = 1.5, 30
_PIPELINE = "bench"
# A run looks through the folders of all partitions once, whatever it does for how many of them.
_LOOK = f"names {_PIPELINE}/requests"
_HISTORY = "history"
_CALLS = ("names", "file_names", "versions", "open", "read_bytes", "exists", "size", "publish", "remove", "rename")


@dataclass
class Cost:
    """What a stage cost.

    Attributes:
        cpu: CPU seconds of this process.
        calls: Calls to the storage.
        looks: Those by which a run looks once through the folders of all partitions.
        statements: Statements that reached the ledger.
    """

    cpu: float = 0.0
    calls: list[str] = field(default_factory=list)
    looks: list[str] = field(default_factory=list)
    statements: list[str] = field(default_factory=list)


@contextmanager
def measured() -> Iterator[Cost]:
    """Measure what happens in the block."""
    cost, originals = Cost(), {name: getattr(Storage, name) for name in _CALLS}

    def counted(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(original)
        def call(*arguments: Any, **more: Any) -> Any:
            call_ = f"{name} {'/'.join(map(str, arguments[1:]))}"
            (cost.looks if call_.startswith(_LOOK) else cost.calls).append(call_)
            return original(*arguments, **more)

        return call

    for name, original in originals.items():
        setattr(Storage, name, counted(name, original))
    began = time.process_time()
    try:
        with counting() as cost.statements:
            yield cost
    finally:
        cost.cpu = time.process_time() - began
        for name, original in originals.items():
            setattr(Storage, name, original)


def make_pipeline(folder: Path, **batching: int) -> Pipeline:
    """A pipeline with a partition for each CSV file in a folder."""
    fields = {
        "name": _PIPELINE,
        "dataset": {"path": "{partition}.csv", "key": "id"},
        "partitions": {"dynamic": True},
        "batching": batching,
        "params": {
            "model": MODEL,
            "max_tokens": MAX_TOKENS,
            "messages": [{"role": "user", "content": USER_TEMPLATE}],
        },
    }
    return load_pipeline(fields, folder=folder, source="bench/defs.yaml", hooks=NO_HOOKS)


def write_partition(folder: Path, partition: str, rows: int) -> None:
    """Write the dataset of a partition."""
    lines = [f"{partition}-{number},the text of row {number} of {partition}" for number in range(rows)]
    (folder / f"{partition}.csv").write_text("\n".join(["id,text", *lines, ""]))


def add_history(root: Root, pipeline: str, files: int, rows: int) -> None:
    """Add batches with answers to other requests, as if an older submission had sent them.

    Args:
        root: The root.
        pipeline: The name of the pipeline.
        files: The number of batches.
        rows: The number of requests of each.
    """
    with root.ledger.read() as tx:
        submission_row = tx.execute(sa.select(tables.submission).limit(1)).one()._asdict()
        file_row = tx.execute(sa.select(tables.request_file).limit(1)).one()._asdict()
        batch_row = tx.execute(sa.select(tables.batch).limit(1)).one()._asdict()
    drawn = random.Random(rows)
    new_files, new_batches = [], []
    for number in range(1, files + 1):
        batch_id, name = f"msgbatch_history{number:08d}", f"part-{number:05d}.jsonl"
        write_responses(root, pipeline, batch_id, drawn.randbytes(16 * rows), number)
        id_ = f"{_HISTORY}/{name}"
        new_files.append(
            file_row
            | {"id": id_, "submission_id": _HISTORY, "partition": _HISTORY, "name": name}
            | {"requests": rows, "batch_id": batch_id, "state": FileState.COLLECTED}
        )
        new_batches.append(
            batch_row | {"id": batch_id, "file_id": id_, "requests": rows, "state": BatchState.COLLECTED}
        )
    of_history = {"seq": 0, "id": _HISTORY, "partition": _HISTORY, "created_at": 1.0}
    with root.ledger.write() as tx:
        tx.execute(sa.insert(tables.submission).values(submission_row | of_history))
        tx.connection.execute(sa.insert(tables.request_file), new_files)
        tx.connection.execute(sa.insert(tables.batch), new_batches)


def write_responses(root: Root, pipeline: str, batch_id: str, digests: bytes, ended_at: int) -> None:
    """Write a response file, with the digests of all its requests in one text. It names no batch."""
    rows = len(digests) // 16
    columns = {field.name: pa.nulls(rows, field.type) for field in RESPONSE_SCHEMA}
    columns["digest"] = pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), rows, [None, pa.py_buffer(digests)])
    columns["result_type"] = pa.array(np.full(rows, "succeeded"), pa.string())
    columns["attempts"] = pa.array(np.ones(rows, np.int32))
    schema = RESPONSE_SCHEMA.with_metadata({b"ended_at": b"%d" % ended_at})
    with root.storage.write(pipeline, "responses", f"{batch_id}.parquet") as scratch:
        pq.write_table(pa.table(columns, schema=schema), scratch, row_group_size=4096, **RESPONSE_ENCODING)


@contextmanager
def opened(folder: Path, emulator: Emulator) -> Iterator[Root]:
    """Open the root, as each run does."""
    variables = {"BATCH_ASSETS_EMULATOR": emulator.url, "BATCH_ASSETS_ROOT": str(folder / "root")}
    with open_root(Settings.from_env(variables)) as root:
        yield root


def run_partition(folder: Path, emulator: Emulator, partition: str, rows: int) -> tuple[Cost, Cost]:
    """Run all stages of a new partition, and return the costs of `requests` and `results`."""
    write_partition(folder, partition, rows)
    pipeline = make_pipeline(folder)
    with opened(folder, emulator) as root:
        root.ledger  # noqa: B018  # opened before, as the imports are
        with measured() as requests:
            build_requests(root, pipeline, partition)
    with opened(folder, emulator) as root:
        submit_batches(root, pipeline.name, partition)
        poll(root, now=True)
    with opened(folder, emulator) as root:
        root.ledger  # noqa: B018
        with measured() as results:
            done = collect_results(root, pipeline.name, partition)
    assert done.results is not None and done.results.final, done
    return requests, results


def measure(folder: Path, emulator: Emulator, files: int, rows: int, rounds: int) -> list[tuple[Cost, Cost]]:
    """Run partitions of some rows beside a history of some files with as many answers each."""
    prepare(folder, emulator, files, rows)
    return [run_partition(folder, emulator, f"key-{number}", rows) for number in range(rounds)]


def prepare(folder: Path, emulator: Emulator, files: int, rows: int) -> None:
    """Make a root with a history, and run two partitions: afterwards everything is imported, and in the index."""
    first = "first"
    run_partition(folder, emulator, first, rows)
    if files:
        with opened(folder, emulator) as root:
            began = time.perf_counter()
            add_history(root, _PIPELINE, files, rows)
            print(f"{files:,} response files were written in {time.perf_counter() - began:.0f} s", flush=True)
            ledger = Path(folder, "root", "ledger.db")
            before, cpu = ledger.stat().st_size, time.process_time()
            AnswerIndex(root, _PIPELINE)
            spent = time.process_time() - cpu
        size = ledger.stat().st_size - before
        print(f"their index was made in {spent:.1f} s CPU time, {size / 1e6:,.0f} MB in the ledger", flush=True)
    run_partition(folder, emulator, "second", rows)


@dataclass
class Comparison:
    """What partitions cost with and without a history.

    Attributes:
        cpu: By the number of answers in the history: CPU seconds of `requests` and of `results`, medians.
        most_calls: The largest number of calls of a stage to the storage.
    """

    cpu: dict[int, tuple[float, float]] = field(default_factory=dict)
    most_calls: int = 0

    @property
    def ratio(self) -> float:
        """How many times the CPU time without a history a partition takes beside one."""
        without, beside = (sum(seconds) for seconds in self.cpu.values())
        return beside / without


def compare(answers: int, rows: int, rounds: int) -> Comparison:
    """Measure partitions without a history and beside one, and print the figures.

    Args:
        answers: The number of answers in the history.
        rows: The rows of a partition, and the answers in a file.
        rounds: The number of partitions that are measured.
    """
    compared = Comparison()
    costs: dict[int, list[tuple[Cost, Cost]]] = {0: [], answers // rows: []}
    with ExitStack() as stack:
        roots: dict[int, tuple[Path, Emulator]] = {}
        for files in costs:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            roots[files] = folder, stack.enter_context(Emulator(latency=0.0))
            prepare(*roots[files], files, rows)
        gc.collect()
        gc.freeze()  # a search for garbage among all that was imported takes longer than a stage
        for number in range(rounds):  # in turn: what else the machine does concerns both
            for files, of_files in costs.items():
                of_files.append(run_partition(*roots[files], f"key-{number}", rows))
    for files, of_files in costs.items():
        medians = []
        for stage, name in enumerate(("requests", "results")):
            medians.append(statistics.median(cost[stage].cpu for cost in of_files))
            calls, statements = (
                max(len(getattr(cost[stage], what)) for cost in of_files) for what in ("calls", "statements")
            )
            print(
                f"{files * rows:>12,} answers: {name}: {medians[-1]:.3f} s CPU time, {calls} calls, "
                f"{statements} statements",
                flush=True,
            )
            compared.most_calls = max(compared.most_calls, calls)
        compared.cpu[files * rows] = medians[0], medians[1]
    return compared


def main() -> None:
    """Measure, and judge."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.history", description=__doc__)
    parser.add_argument("--answers", type=int, default=1_000_000, help="answers in the history")
    parser.add_argument("--rows", type=int, default=1000, help="rows of a partition, and answers in a file")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    compared = compare(options.answers, options.rows, options.rounds)
    ratio = compared.ratio
    print(f"{ratio:.2f} times the CPU time of a partition without a history (limit: {RATIO_AT_MOST:g})")
    sys.exit(ratio > RATIO_AT_MOST or compared.most_calls > CALLS_AT_MOST)


if __name__ == "__main__":
    main()
