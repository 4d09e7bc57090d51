"""`python -m benchmarks.long_values`: the memory that requests and results need when values are long.

A dataset goes through all stages on the emulator. Then its answers are replaced by long ones in the response
store, and a process of its own joins them to the table of results. The same is done with a long column that is
carried from the dataset into the results, and with answers in another order than the dataset's. MB are millions
of bytes.

Exits with 1 if a stage needs over 350 MB more than with short values.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from batch_assets.core.batches.poll import poll
from batch_assets.core.batches.submit import submit_batches
from batch_assets.core.io.storage import Storage
from batch_assets.core.open_root import open_root
from batch_assets.core.pipeline.load import load_pipeline
from batch_assets.core.requests.build import build_requests
from batch_assets.core.results.run import collect_results
from batch_assets.core.results.write import write_results
from batch_assets.core.settings import Settings
from batch_assets.core.store.outcomes import read_responses
from batch_assets.emulator import Emulator
from benchmarks.workload import MAX_TOKENS, MODEL, POLL_SECONDS

_LIMIT_MB = 350
_MEGABYTE, _KILOBYTE = 1_000_000, 1000
_WAYS = ("answers", "scattered", "carried")


def peak_mb() -> float:
    """The largest resident set of this process so far, in MB, without that of the process that started it."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / _MEGABYTE


def settings(folder: Path, url: str) -> Settings:
    return Settings.from_env({"BATCH_ASSETS_ROOT": str(folder / "root"), "BATCH_ASSETS_EMULATOR": url})


def build(folder: Path, url: str) -> None:
    """Run the first stage."""
    attributes = {
        "name": "bench",
        "dataset": {"path": "rows.parquet", "key": "id"},
        "params": {
            "model": MODEL,
            "max_tokens": MAX_TOKENS,
            "messages": [{"role": "user", "content": "{{ id }}"}],
        },
    }
    with open_root(settings(folder, url)) as root:
        build_requests(root, load_pipeline(attributes, folder=folder))


def answer(folder: Path, url: str) -> None:
    """Run the other stages."""
    with open_root(settings(folder, url)) as root:
        submit_batches(root, "bench")
        done = collect_results(root, "bench")
        while not (done.results and done.results.final):
            time.sleep(POLL_SECONDS)
            poll(root, now=True)
            done = collect_results(root, "bench")


def join(folder: Path, url: str) -> None:
    """Write the table of results again."""
    with open_root(settings(folder, url)) as root:
        write_results(root, "bench")


def write_dataset(path: Path, rows: int, carried: int, order: list[int]) -> None:
    """Write a dataset with a column of texts, which only the results contain."""
    schema = pa.schema([("id", pa.int64()), ("text", pa.string())])
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for start in range(0, rows, 50):
            ids = order[start : start + 50]
            writer.write_table(pa.table({"id": ids, "text": [long_text(id_, carried) for id_ in ids]}, schema))


def long_text(number: int, length: int) -> str:
    return f"{number} says ".ljust(length, "x")


def lengthen(folder: Path, length: int) -> None:
    """Replace the answers in the response store, in row groups like those of a real download."""
    storage = Storage(str(folder / "root"))
    files, _ = read_responses(storage, "bench")
    for number, name in enumerate(files.names):
        with files.open(number) as file:
            table, metadata = file.read(), file.schema_arrow.metadata
        with (
            storage.write("bench", "responses", str(name)) as scratch,
            pq.ParquetWriter(scratch, table.schema.with_metadata(metadata), compression="zstd") as writer,
        ):
            for rows in _groups(table, max(1, (4 << 20) // length + 1)):
                writer.write_table(_with_texts(rows, [long_text(each, length) for each in range(len(rows))]))


def _groups(table: pa.Table, rows: int) -> Iterator[pa.Table]:
    for start in range(0, len(table), rows):
        yield table.slice(start, rows)


def _with_texts(rows: pa.Table, texts: list[str]) -> pa.Table:
    messages = [json.dumps({"content": [{"type": "text", "text": text}]}) for text in texts]
    for name, values in (("response_text", texts), ("response_json", messages)):
        rows = rows.set_column(rows.schema.get_field_index(name), name, pa.array(values, pa.string()))
    return rows


def peak_of(stage: str, folder: Path, url: str) -> float:
    """The peak memory of a stage in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.long_values", "--child", stage, str(folder), url]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def measure(way: str, rows: int, kilobytes: int, url: str) -> dict[str, float]:
    """The peak memory of the stages that hold the long values."""
    length = kilobytes * _KILOBYTE or 100
    with tempfile.TemporaryDirectory() as name:
        folder, order = Path(name), list(range(rows))
        write_dataset(folder / "rows.parquet", rows, length if way == "carried" else 100, order)
        peaks = {"requests": peak_of("build", folder, url)} if way == "carried" else {}
        if way != "carried":
            build(folder, url)
        answer(folder, url)
        if way != "carried":
            lengthen(folder, length)
        if way == "scattered":
            random.Random(0).shuffle(order)
            write_dataset(folder / "rows.parquet", rows, 100, order)
            build(folder, url)
        return peaks | {"join": peak_of("join", folder, url)}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.long_values",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rows", type=int, default=4200)
    parser.add_argument("--kb", type=int, nargs="+", default=[260, 520], help="the length of a value")
    parser.add_argument("--only", choices=_WAYS, action="append")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        stage, folder, url = options.child
        {"build": build, "join": join}[stage](Path(folder), url)
        print(peak_mb())
        return
    missed = False
    print(f"{options.rows:,} rows\n\n{'':11}{'':10}" + "".join(f"{f'{kb} kB':>9}" for kb in [0, *options.kb]))
    with Emulator(latency=0.0) as emulator:
        for way in options.only or _WAYS:
            runs = [measure(way, options.rows, kilobytes, emulator.url) for kilobytes in [0, *options.kb]]
            for stage, short in runs[0].items():
                print(f"{way:11}{stage:10}" + "".join(f"{run[stage]:9.0f}" for run in runs), flush=True)
                missed |= any(run[stage] - short > _LIMIT_MB for run in runs)
    print(f"\nPeak MB. The limit is {_LIMIT_MB} MB over short values: {'missed' if missed else 'kept'}")
    sys.exit(missed)


if __name__ == "__main__":
    main()
