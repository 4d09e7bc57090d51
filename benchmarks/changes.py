"""`python -m benchmarks.changes`: what a run costs if nothing has changed, or 1 % of the rows.

The emulator answers a dataset. Then all stages run again: with the same dataset, and after a change of 1 % of its
rows. Prints the CPU seconds of each stage and the share of the first run, and how many rows were rendered. Exits
with 1 if a limit is missed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batch_assets.core.batches.poll import poll
from batch_assets.core.batches.submit import submit_batches
from batch_assets.core.open_root import open_root
from batch_assets.core.pipeline.load import load_pipeline
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.requests.build import build_requests
from batch_assets.core.results.run import collect_results
from batch_assets.core.settings import Settings
from batch_assets.emulator import Emulator
from benchmarks.contender import Stages
from benchmarks.references import make_dataset
from benchmarks.workload import POLL_SECONDS, params_for

UNCHANGED_AT_MOST = 0.04
CHANGED_AT_MOST = 0.55
_CHANGED_ONE_IN = 100
# A file that was changed less than 2 seconds before it is read may change again without a sign.
_SETTLED_SECONDS = 2.1


def make_pipeline(folder: Path, **more: Any) -> Pipeline:
    """A pipeline over the dataset in a folder, with more fields."""
    fields = {
        "name": "bench",
        "dataset": {"path": "rows.parquet", "key": "id"},
        "params": params_for(),
        **more,
    }
    return load_pipeline(fields, folder=folder, source="bench/defs.yaml")


def run(folder: Path, emulator: Emulator, **more: Any) -> tuple[dict[str, float], int]:
    """Run all stages of a pipeline with more fields until every row is final, each with a root of its own.

    Returns:
        CPU seconds by stage, without the polls, and the number of rows that were rendered.
    """
    env = {"BATCH_ASSETS_EMULATOR": emulator.url, "BATCH_ASSETS_ROOT": str(folder / "root")}
    stages = Stages()
    with open_root(Settings.from_env(env)) as root, stages.time("requests"):
        rendered = build_requests(root, make_pipeline(folder, **more)).rendered
    with open_root(Settings.from_env(env)) as root, stages.time("batches"):
        submit_batches(root, "bench")
    is_final = False
    while not is_final:
        with open_root(Settings.from_env(env)) as root:
            while poll(root, now=True).calls:
                time.sleep(POLL_SECONDS)
        with open_root(Settings.from_env(env)) as root, stages.time("results"):
            results = collect_results(root, "bench").results
        is_final = results is not None and results.final
    return {stage: figures["cpu"] for stage, figures in stages.seen.items()}, rendered


def change(path: Path, one_in: int) -> None:
    """Change the text of one row in so many."""
    table = pq.read_table(path)
    changed = pa.array(np.arange(len(table)) % one_in == 0)
    text = table["text"].cast(pa.string())
    other = pc.binary_join_element_wise(text, pa.scalar("It has changed."), " ")
    position = table.schema.get_field_index("text")
    pq.write_table(table.set_column(position, "text", pc.if_else(changed, other, text)), path)


def main() -> None:
    """Measure, and compare with the first run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.changes", description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, Emulator(latency=0.0) as emulator:
        folder = Path(name)
        path = folder / "rows.parquet"
        make_dataset(path, options.rows)
        time.sleep(_SETTLED_SECONDS)
        first, _ = _printed("first run", run(folder, emulator))
        unchanged, _ = _printed("nothing changed", run(folder, emulator))
        change(path, _CHANGED_ONE_IN)
        changed, rendered = _printed("1 % changed", run(folder, emulator))
    expected = len(range(0, options.rows, _CHANGED_ONE_IN))
    changed, unchanged = changed / first, unchanged / first
    print(f"1 % changed: {changed:.1%} of the CPU time of the first run (limit: {CHANGED_AT_MOST:.0%})")
    print(f"1 % changed: {rendered:,} rows rendered (limit: {expected:,})")
    print(f"nothing changed: {unchanged:.1%} of the CPU time of the first run (limit: {UNCHANGED_AT_MOST:.0%})")
    sys.exit(unchanged > UNCHANGED_AT_MOST or changed > CHANGED_AT_MOST or rendered > expected)


def _printed(name: str, figures: tuple[dict[str, float], int]) -> tuple[float, int]:
    """Print the figures of a run, and return its CPU seconds and the number of rows that were rendered."""
    seconds, rendered = figures
    stages = ", ".join(f"{stage} {spent:.3f}" for stage, spent in seconds.items())
    print(f"{name}: CPU seconds: {stages}", flush=True)
    return sum(seconds.values()), rendered


if __name__ == "__main__":
    main()
