"""`python -m benchmarks`: the chain against two references, paired in one run, on the emulator.

Every contender runs in a process of its own against a fresh emulator, in turn, several rounds; medians and
ratios of medians are printed. The emulator shares the machine with them: its work is part of every figure.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from batch_assets.emulator import Emulator
from benchmarks.references import make_dataset

CONTENDERS = ("batch_assets", "bare_loop", "typed_sdk")
_MEGABYTE = 1_000_000


def run_once(name: str, dataset: Path) -> dict[str, Any]:
    """One contender's figures from one fresh process."""
    with Emulator(latency=0.0) as emulator, tempfile.TemporaryDirectory() as work:
        env = {
            **{
                key: value
                for key, value in os.environ.items()
                if not key.startswith(("ANTHROPIC_", "BATCH_ASSETS_"))
            },
            "ANTHROPIC_BASE_URL": emulator.url,
            "ANTHROPIC_API_KEY": "bench",
        }
        command = [sys.executable, "-m", "benchmarks.contender", name, str(dataset), work]
        done = subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE, text=True)
        figures: dict[str, Any] = json.loads(done.stdout)
        return figures


def median(runs: list[dict[str, Any]], figure: str) -> float:
    return statistics.median(run[figure] for run in runs)


def print_contenders(runs: dict[str, list[dict[str, Any]]], rows: int) -> None:
    print(f"\n{'':14}{'wall s':>8}{'min-max':>14}{'CPU s':>8}{'rows/s':>9}{'peak MiB':>10}{'imports MiB':>13}")
    for name, some in runs.items():
        walls = [run["wall"] for run in some]
        span = f"{min(walls):.1f}-{max(walls):.1f}"
        wall = statistics.median(walls)
        print(
            f"{name:14}{wall:8.2f}{span:>14}{median(some, 'cpu'):8.2f}{rows / wall:9.0f}"
            f"{max(run['peak_mib'] for run in some):10.0f}{median(some, 'imported_mib'):13.0f}"
        )


def print_stages(runs: list[dict[str, Any]], rows: int) -> None:
    print(f"\n{'stage':14}{'wall s':>8}{'CPU s':>8}{'rows/s':>9}{'MB/s':>8}{'peak MiB':>10}")
    for stage in runs[0]["stages"]:
        wall = statistics.median(run["stages"][stage]["wall"] for run in runs)
        cpu = statistics.median(run["stages"][stage]["cpu"] for run in runs)
        peak = max(run["stages"][stage]["peak_mib"] for run in runs)
        moved = runs[0]["bytes"].get(stage)
        speed = f"{moved / wall / _MEGABYTE:8.0f}" if moved else " " * 8
        print(f"{stage:14}{wall:8.2f}{cpu:8.2f}{rows / wall:9.0f}{speed}{peak:10.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=CONTENDERS, action="append", help="leave the other contenders out")
    parser.add_argument("--million", action="store_true", help="also run 1,000,000 rows, for the memory")
    options = parser.parse_args()
    contenders = options.only or CONTENDERS
    with tempfile.TemporaryDirectory() as folder:
        dataset = Path(folder) / "dataset.parquet"
        make_dataset(dataset, options.rows)
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in contenders}
        for round_ in range(options.rounds):
            for name in contenders:
                print(f"round {round_ + 1} of {options.rounds}: {name}", file=sys.stderr)
                runs[name].append(run_once(name, dataset))
                if runs[name][-1]["rows"] != options.rows:
                    sys.exit(f"{name} answered {runs[name][-1]['rows']} of {options.rows} rows")
        print(f"{options.rows:,} rows, {options.rounds} rounds, medians")
        print_contenders(runs, options.rows)
        if "batch_assets" in runs:
            print_stages(runs["batch_assets"], options.rows)
            ours = median(runs["batch_assets"], "wall")
            for name in contenders[1:]:
                print(f"\n{name} / batch_assets: {median(runs[name], 'wall') / ours:.2f}", end="")
            print()
        if options.million:
            print_million(Path(folder), max(run["peak_mib"] for run in runs["batch_assets"]))


def print_million(folder: Path, peak_before: float) -> None:
    """Ten times the rows: memory must hardly grow."""
    dataset = folder / "million.parquet"
    make_dataset(dataset, 1_000_000)
    print("1,000,000 rows: batch_assets", file=sys.stderr)
    run = run_once("batch_assets", dataset)
    print_stages([run], 1_000_000)
    print(f"\n1,000,000 rows: {run['wall']:.1f} s, peak {run['peak_mib']:.0f} MiB", end="")
    print(f" = {run['peak_mib'] / peak_before:.2f} times the peak at fewer rows")


if __name__ == "__main__":
    main()
