"""`python -m benchmarks.large` (`make bench-large`): the largest sizes that the project promises. It takes hours.

| part | what it measures | limit |
|---|---|---|
| `rows-1000000` | all stages of 1,000,000 rows, the emulator's answers short | 400 MB of memory |
| `rows-10000000` | all stages of 10,000,000 rows | 400 MB of memory; 10 times the CPU time, within 10 % |
| `history` | a partition of 1,000 rows beside 10,000,000 answers | 1.5 times the CPU time; 30 calls a stage |
| `ended` | the sensor's ticks when 10,000 batches of 10,000 partitions have ended | 5 s of CPU time a tick |

First it prints what time and disk the parts need that are not done. The figures of each part are written to a file
of its own when the part is done. A part that has a file is not run again: start the command again after an
interruption, and remove the folder to measure another version. Exits with 1 if a limit is missed.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import ended, history, sizing
from benchmarks.references import make_dataset

MEMORY_MB_AT_MOST = 400.0
LINEAR_WITHIN = 0.10
_MILLION = 1_000_000
_TIMES = 10
_ANSWERS, _PARTITION_ROWS, _ROUNDS = 10_000_000, 1000, 7
_BATCHES = 10_000
_GIGABYTE = 1_000_000_000
_FEWER, _MORE = f"rows-{_MILLION}", f"rows-{_TIMES * _MILLION}"

Figures = dict[str, Any]


@dataclass(frozen=True)
class Part:
    """A part of the measurement.

    Attributes:
        measure: Measures, in a process of its own, and returns figures that JSON can hold.
        minutes: What it takes on 2 cores.
        gigabytes: The space that it needs at most in the folder for temporary files.
    """

    measure: Callable[[], Figures]
    minutes: int
    gigabytes: int


def measure_rows(rows: int) -> Figures:
    """Run all stages over a dataset, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        dataset, work = Path(folder, "dataset.parquet"), Path(folder, "root")
        work.mkdir()
        make_dataset(dataset, rows)
        figures = sizing.run(dataset, rows, work)
        return figures | {"disk_mb": {"dataset": sizing.megabytes(dataset), "root": sizing.megabytes(work)}}


def measure_history() -> Figures:
    """Run partitions with and without a history."""
    compared = history.compare(_ANSWERS, _PARTITION_ROWS, _ROUNDS)
    return {"ratio": compared.ratio, "most_calls": compared.most_calls, "cpu": compared.cpu}


def measure_ended() -> Figures:
    """Let all batches end at once."""
    logging.disable()  # Dagster's messages about the runs
    ticks = ended.measure(_BATCHES)
    return {
        "ticks": len(ticks.cpu),
        "runs": sum(ticks.runs),
        "most_cpu": max(ticks.cpu),
        "most_statements": max(ticks.statements),
        "missed": ended.missed(ticks, _BATCHES),
    }


PARTS = {
    _FEWER: Part(partial(measure_rows, _MILLION), 3, 4),
    _MORE: Part(partial(measure_rows, _TIMES * _MILLION), 30, 35),
    "history": Part(measure_history, 10, 2),
    "ended": Part(measure_ended, 15, 1),
}


def write_figures(path: Path, figures: Figures) -> None:
    """Write the figures of a part, so that a killed process leaves all of them or none."""
    beside = path.with_suffix(".new")
    with beside.open("w") as file:
        json.dump(figures, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    beside.rename(path)


def measure_part(name: str, path: Path) -> None:
    """Measure a part, and write its figures."""
    began = time.monotonic()
    figures = PARTS[name].measure()
    write_figures(path, figures | {"minutes": round((time.monotonic() - began) / 60, 1)})


def run_parts(folder: Path, names: list[str]) -> dict[str, Figures]:
    """Run the parts that are not done, and return the figures of all.

    Args:
        folder: Where the figures are.
        names: The names of the parts.
    """
    paths = {name: folder / f"{name}.json" for name in names}
    missing = [name for name, path in paths.items() if not path.exists()]
    _announce(names, missing)
    folder.mkdir(parents=True, exist_ok=True)
    for name in missing:
        began = time.monotonic()
        process = multiprocessing.get_context("spawn").Process(target=measure_part, args=(name, paths[name]))
        process.start()
        try:
            process.join()
        finally:
            process.kill()  # Dagster makes a process deaf to SIGTERM
        if process.exitcode:
            sys.exit(f"{name} failed, see above")
        print(f"{name}: done after {(time.monotonic() - began) / 60:.1f} minutes", flush=True)
    return {name: json.loads(path.read_text()) for name, path in paths.items()}


def _announce(names: list[str], missing: list[str]) -> None:
    """Print what the missing parts need, and exit if the disk is too small."""
    for name in names:
        part = PARTS[name]
        needs = f"about {part.minutes} minutes on 2 idle cores, {part.gigabytes} GB" if name in missing else "done"
        print(f"{name}: {needs}", flush=True)
    if not missing:
        return
    folder = tempfile.gettempdir()
    needed, free = max(PARTS[name].gigabytes for name in missing), shutil.disk_usage(folder).free / _GIGABYTE
    if needed > free:
        sys.exit(f"{folder} has {free:.0f} GB of free space, {needed} GB are needed: set TMPDIR to a larger disk.")


def problems_of(figures: dict[str, Figures]) -> list[str]:
    """Print the figures, and return the limits that are missed, as text."""
    problems = []
    for name in (_FEWER, _MORE):
        if (rows := figures.get(name)) is not None:
            print(
                f"{name}: {rows['peak_mb']:.0f} MB (at most {MEMORY_MB_AT_MOST:.0f}), {rows['cpu']:.0f} s CPU time"
            )
            if rows["peak_mb"] > MEMORY_MB_AT_MOST:
                problems.append(f"{name} needs more than {MEMORY_MB_AT_MOST:.0f} MB")
    if _FEWER in figures and _MORE in figures:
        times = figures[_MORE]["cpu"] / figures[_FEWER]["cpu"]
        most = _TIMES * (1 + LINEAR_WITHIN)
        print(f"{times:.2f} times the CPU time for {_TIMES} times the rows (at most {most:g})")
        if times > most:
            problems.append(f"{_TIMES} times the rows take {times:.2f} times the CPU time")
    if (beside := figures.get("history")) is not None:
        print(
            f"{beside['ratio']:.2f} times the CPU time beside {_ANSWERS:,} answers (at most "
            f"{history.RATIO_AT_MOST:g}), {beside['most_calls']} calls (at most {history.CALLS_AT_MOST})"
        )
        if beside["ratio"] > history.RATIO_AT_MOST or beside["most_calls"] > history.CALLS_AT_MOST:
            problems.append(f"a partition costs too much beside {_ANSWERS:,} answers")
    if (ticks := figures.get("ended")) is not None:
        print(
            f"{_BATCHES:,} ended batches: {ticks['ticks']} ticks, {ticks['runs']:,} runs; the most expensive tick "
            f"takes {ticks['most_cpu']:.2f} s of CPU time (at most {ended.CPU_SECONDS_AT_MOST:g})"
        )
        problems += ticks["missed"]
    return problems


def main() -> None:
    """Measure what is missing, print and judge."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.large",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--folder", type=Path, default=Path("data/bench-large"), help="where the figures are written"
    )
    parser.add_argument("--only", choices=PARTS, action="append", help="leave the other parts out")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    sys.exit("; ".join(problems_of(run_parts(options.folder, options.only or list(PARTS)))) or 0)


if __name__ == "__main__":
    main()
