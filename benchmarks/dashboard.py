"""`python -m benchmarks.dashboard`: what the dashboard's questions cost beside a table of a million rows.

The emulator answers a dataset. Then each question is asked once to warm up, and once more while its CPU time is
measured. Prints the CPU seconds, and the memory of the process at its peak; exits with 1 if a limit is missed.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from batch_assets.core.open_root import open_root
from batch_assets.core.settings import Settings
from batch_assets.dashboard.row_history import versions_of
from batch_assets.dashboard.tables import Tables
from batch_assets.emulator import Emulator
from benchmarks.changes import run
from benchmarks.references import make_dataset

ROWS = 1_000_000
SEARCH_SECONDS_AT_MOST, OTHERS_SECONDS_AT_MOST, MEGABYTES_AT_MOST = 5.0, 0.5, 1000
_PIPELINE = "bench"
SCHEMA = {
    "type": "object",
    "properties": {
        "mood": {"enum": ["glad", "sad", "odd"]},
        "stars": {"type": "integer"},
        "is_urgent": {"type": "boolean"},
        "topics": {"type": "array", "items": {"enum": ["price", "size"]}},
    },
    "required": ["mood", "stars", "is_urgent", "topics"],
    "additionalProperties": False,
}


def ask(folder: Path, rows: int) -> bool:
    """Ask all questions about the results of a root, and print what each costs. Returns whether limits hold."""
    env = {"BATCH_ASSETS_EMULATOR": "http://127.0.0.1:9", "BATCH_ASSETS_ROOT": str(folder / "root")}
    key, holds = f"row-{rows // 2:09d}", True
    with open_root(Settings.from_env(env)) as root:
        tables = Tables(root)
        (row,) = tables.search(_PIPELINE, key)
        questions: dict[str, Callable[[], object]] = {
            "failures": lambda: tables.failures(_PIPELINE),
            "distributions": lambda: tables.distributions(_PIPELINE, {"mood"}),
            "a row by its key": lambda: tables.row(row),
            "the history of a row": lambda: versions_of(root, tables, _PIPELINE, "", key),
            "search for a key": lambda: tables.search(_PIPELINE, key),
            "search for a text": lambda: tables.search(_PIPELINE, "no row has this text"),
        }
        for question, answer in questions.items():
            answer()
            began = time.process_time()
            answer()
            seconds = time.process_time() - began
            limit = SEARCH_SECONDS_AT_MOST if question.startswith("search") else OTHERS_SECONDS_AT_MOST
            holds &= seconds <= limit
            print(f"{question:22} {seconds:6.2f} s of CPU time; the limit is {limit:g} s", flush=True)
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{'memory at its peak':22} {megabytes:6.0f} MB; the limit is {MEGABYTES_AT_MOST} MB")
    return holds and megabytes <= MEGABYTES_AT_MOST


def main() -> None:
    """Fill a root, and ask in a process of its own, whose memory is that of the questions."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dashboard", description=__doc__)
    parser.add_argument("--rows", type=int, default=ROWS, help="rows of the table")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.folder is not None:
        sys.exit(not ask(options.folder, options.rows))
    with tempfile.TemporaryDirectory() as folder:
        make_dataset(Path(folder, "rows.parquet"), options.rows)
        with Emulator(latency=0.0) as emulator:
            run(Path(folder), emulator, output_schema=SCHEMA)
        command = [sys.executable, "-m", "benchmarks.dashboard", "--rows", str(options.rows), "--folder", folder]
        sys.exit(subprocess.run(command, check=False).returncode)


if __name__ == "__main__":
    main()
