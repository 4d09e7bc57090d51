"""`python -m benchmarks`: this project and two references on the emulator, compared within one run.

Every contender runs in a process of its own against a fresh emulator. They take turns for several rounds, and
medians are printed. A ratio is taken within each round, between runs that follow each other; the median counts.

What is measured: as with the real API, a batch takes a while (the emulator's latency, the same for all), and its
answers are made in that time. Meanwhile a contender only asks whether its batch has ended. This time is printed
separately, as `wait s`; `wall s`, `CPU s`, rows/s and their ratios do not contain it, because a longer latency
would bring every ratio closer to 1. Process start and imports do not count either. Everything else counts: the
contender's work, both transfers, and the emulator's part in them, which is to receive and check the requests and
to send the answers, on the same cores.

`whole s` is the CPU time of the whole process, with all of this but the emulator. It is compared with two more
contenders, see `benchmarks.whole_processes`.

Exits with 1 if a limit is missed. The limits apply to 100,000 rows (and 1,000,000 with `--million`); with other
options the ratios are printed without a verdict. MB are millions of bytes.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from batch_assets.emulator import Emulator
from benchmarks import whole_processes
from benchmarks.limits import ROWS, Verdicts
from benchmarks.references import make_dataset

CONTENDERS = ("batch_assets", "bare_loop", "typed_sdk", *whole_processes.CONTENDERS)
_MEGABYTE = 1_000_000
_MILLION = 1_000_000
# The emulator needs about 20 microseconds to make an answer; the rest is a reserve for slow machines.
_LATENCY_PER_ROW = 60e-6

Runs = dict[str, list[dict[str, Any]]]


def run_once(name: str, dataset: Path, rows: int) -> dict[str, Any]:
    """The figures of one contender from one fresh process. Some contenders have only `rows` and `whole`."""
    print(f"  {name}, {rows:,} rows", file=sys.stderr)
    figures: dict[str, Any]
    with Emulator(latency=rows * _LATENCY_PER_ROW) as emulator, tempfile.TemporaryDirectory() as work:
        env = {
            **{
                key: value
                for key, value in os.environ.items()
                if not key.startswith(("ANTHROPIC_", "BATCH_ASSETS_"))
            },
            "ANTHROPIC_BASE_URL": emulator.url,
            "ANTHROPIC_API_KEY": "bench",
        }
        if name in whole_processes.CONTENDERS:
            answered, cpu = whole_processes.CONTENDERS[name](dataset, Path(work), env)
            figures = {"rows": answered}
        else:
            command = [sys.executable, "-m", "benchmarks.contender", name, str(dataset), work]
            printed, cpu = whole_processes.run(command, env)
            figures = json.loads(printed)
        figures["whole"] = cpu
    if figures["rows"] != rows:
        sys.exit(f"{name} answered {figures['rows']} of {rows} rows")
    return figures


def median(runs: list[dict[str, Any]], figure: str) -> float:
    return statistics.median([float(run[figure]) for run in runs])


def peak(runs: list[dict[str, Any]]) -> float:
    return max(float(run["peak_mb"]) for run in runs)


def ratios(runs: Runs, over: str, under: str, figure: str = "wall") -> list[float]:
    """The ratio of a figure of two contenders, by default the wall time, round by round."""
    return [float(slower[figure] / faster[figure]) for slower, faster in zip(runs[over], runs[under], strict=True)]


def print_contenders(runs: Runs, rows: int) -> None:
    heads = f"{'wall s':>8}{'min-max':>14}{'wait s':>8}{'CPU s':>8}{'whole s':>9}"
    heads += f"{'rows/s':>9}{'peak MB':>9}{'imports MB':>12}"
    print(f"\n{'':14}{heads}")
    for name, some in runs.items():
        if "wall" not in some[0]:
            print(f"{name:14}{'':38}{median(some, 'whole'):9.2f}")
            continue
        walls = [run["wall"] for run in some]
        span = f"{min(walls):.1f}-{max(walls):.1f}"
        wall = statistics.median(walls)
        print(
            f"{name:14}{wall:8.2f}{span:>14}{median(some, 'wait'):8.2f}{median(some, 'cpu'):8.2f}"
            f"{median(some, 'whole'):9.2f}{rows / wall:9.0f}{peak(some):9.0f}{median(some, 'imported_mb'):12.0f}"
        )


def print_stages(runs: list[dict[str, Any]], rows: int) -> None:
    """Print where batch_assets spends its time. The peak is that of the process until the end of the stage."""
    print(f"\n{'stage':14}{'wall s':>8}{'CPU s':>8}{'rows/s':>9}{'MB/s':>8}{'peak MB':>9}")
    for stage in runs[0]["stages"]:
        wall = statistics.median(run["stages"][stage]["wall"] for run in runs)
        cpu = statistics.median(run["stages"][stage]["cpu"] for run in runs)
        moved = runs[0]["bytes"].get(stage)
        speed = f"{rows / wall:9.0f}{moved / wall / _MEGABYTE:8.0f}" if moved else " " * 17
        print(f"{stage:14}{wall:8.2f}{cpu:8.2f}{speed}{max(run['stages'][stage]['peak_mb'] for run in runs):9.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=CONTENDERS, action="append", help="leave the other contenders out")
    parser.add_argument("--million", action="store_true", help="also run 1,000,000 rows, for the memory")
    options = parser.parse_args()
    verdicts = Verdicts(judging=options.rows == ROWS)
    with tempfile.TemporaryDirectory() as folder:
        dataset = Path(folder) / "dataset.parquet"
        make_dataset(dataset, options.rows)
        runs: Runs = {name: [] for name in CONTENDERS if name in (options.only or CONTENDERS)}
        for round_ in range(options.rounds):
            print(f"round {round_ + 1} of {options.rounds}", file=sys.stderr)
            for name, some in runs.items():
                some.append(run_once(name, dataset, options.rows))
        print(f"{options.rows:,} rows of about 500 bytes, {options.rounds} rounds, medians")
        print_contenders(runs, options.rows)
        ours = runs.get("batch_assets")
        if ours is None:
            return
        print_stages(ours, options.rows)
        print()
        if "typed_sdk" in runs:
            verdicts.faster_than_typed(ratios(runs, "typed_sdk", "batch_assets"))
        if "bare_loop" in runs:
            verdicts.slower_than_bare(ratios(runs, "batch_assets", "bare_loop"))
        for under in ("bare_loop", "without_sdk"):
            if {"command", under} <= runs.keys():
                verdicts.whole_process(under, ratios(runs, "command", under, "whole"))
        verdicts.peak(peak(ours))
        if options.million:
            dataset = Path(folder) / "million.parquet"
            make_dataset(dataset, _MILLION)
            run = run_once("batch_assets", dataset, _MILLION)
            print(f"\n{_MILLION:,} rows: {run['wall']:.1f} s without {run['wait']:.1f} s of waiting")
            print_stages([run], _MILLION)
            print()
            verdicts.growth(peak([run]) / peak(ours))
    sys.exit(1 if verdicts.missed else 0)


if __name__ == "__main__":
    main()
