"""`python -m benchmarks.sizing`: the time, memory and disk that a number of requests needs, as a Markdown table.

One process runs all stages from the dataset to the results on the emulator, without the time that batches take at
the API. Disk space is measured at the end, in the folders of the root. MB are millions of bytes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from batch_assets.emulator import Emulator
from benchmarks.references import make_dataset

_MEGABYTE = 1_000_000
# The emulator makes an answer in about 20 microseconds; the rest is a reserve for slow machines.
_LATENCY_PER_ROW = 60e-6
_HEADS = ("Requests", "Seconds", "CPU seconds", "Peak MB", "Request files", "Responses", "Results", "Ledger")


def run(dataset: Path, rows: int, work: Path) -> dict[str, Any]:
    """The figures of one run of all stages in a fresh process, which leaves its root in `work`."""
    with Emulator(latency=rows * _LATENCY_PER_ROW) as emulator:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("ANTHROPIC_", "BATCH_"))}
        env = kept | {"ANTHROPIC_BASE_URL": emulator.url, "ANTHROPIC_API_KEY": "bench"}
        command = [sys.executable, "-m", "benchmarks.contender", "batch_assets", str(dataset), str(work)]
        done = subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE, text=True)
    figures: dict[str, Any] = json.loads(done.stdout)
    if figures["rows"] != rows:
        sys.exit(f"{figures['rows']} of {rows} rows are answered")
    return figures


def megabytes(*folders: Path) -> float:
    """The size of all files and folders whose path begins with this one, in millions of bytes."""
    files = [file for folder in folders for file in folder.parent.glob(f"{folder.name}*")]
    files += [inner for file in files if file.is_dir() for inner in file.rglob("*")]
    return sum(file.stat().st_size for file in files if file.is_file()) / _MEGABYTE


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sizing", description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    print(f"| {' | '.join(_HEADS)} |\n|{'---:|' * len(_HEADS)}", flush=True)
    for rows in parser.parse_args().rows:
        with tempfile.TemporaryDirectory() as folder:
            dataset, work = Path(folder, "dataset.parquet"), Path(folder, "root")
            work.mkdir()
            make_dataset(dataset, rows)
            figures = run(dataset, rows, work)
            disk = [
                f"{megabytes(work / 'bench' / stage):,.0f} MB" for stage in ("requests", "responses", "results")
            ]
            ledger = f"{megabytes(work / 'ledger.db'):,.1f} MB"
            spent = [f"{figures['wall']:.0f}", f"{figures['cpu']:.0f}", f"{figures['peak_mb']:.0f}"]
            cells = [f"{rows:,}", *spent, *disk, ledger]
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
