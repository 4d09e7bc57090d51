"""`python -m benchmarks.processes`: rows with logic in their template, rendered by 1 and by more processes.

Builds the same submission with BATCH_ASSETS_PROCESSES of 1, 2 and the number of CPUs. Wall time shows what it
gains on an idle machine. CPU time shows how the work is shared on any machine: of the run's own process, which
reads, looks up and writes the rows, and of the worker processes together, with their imports. There is no limit:
the gain depends on the machine and on the template.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from pathlib import Path

from batch_assets.core.open_root import open_root
from batch_assets.core.pipeline.load import load_pipeline
from batch_assets.core.requests.build import build_requests
from batch_assets.core.settings import Settings
from benchmarks.references import make_dataset
from benchmarks.workload import params_for

_ROWS = 100_000
_CONTENT = (
    "{% for word in text.split(' ') %}{% if word|length > 4 %}{{ word|upper }}{% else %}{{ word }}{% endif %} "
    "{% endfor %}{{ {'id': id, 'length': text|length}|tojson }}"
)


def measure(dataset: Path, processes: int) -> tuple[float, float, float]:
    """Build once: wall seconds, CPU seconds of this process, and CPU seconds of the worker processes."""
    with tempfile.TemporaryDirectory() as work:
        env = {
            "BATCH_ASSETS_ROOT": work,
            "BATCH_ASSETS_PROCESSES": str(processes),
            "ANTHROPIC_BASE_URL": "http://127.0.0.1:1",  # a build makes no call
            "ANTHROPIC_API_KEY": "bench",
        }
        attributes = {"name": "bench", "dataset": {"path": str(dataset), "key": "id"}}
        pipeline = load_pipeline({**attributes, "params": params_for(_CONTENT)}, folder=Path(work))
        with open_root(Settings.from_env(env)) as root:
            wall, own, others = time.perf_counter(), time.process_time(), _of_children()
            build_requests(root, pipeline)
            return time.perf_counter() - wall, time.process_time() - own, _of_children() - others


def _of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Measure each number of processes in turn."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.processes",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rows", type=int, default=_ROWS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        dataset = Path(folder) / "dataset.parquet"
        make_dataset(dataset, options.rows)
        measure(dataset, 1)  # imports
        alone = 0.0
        print(f"{options.rows:,} rows\n{'processes':10}{'wall s':>8}{'ratio':>7}", end="")
        print(f"{'own CPU s':>11}{'workers CPU s':>15}")
        for processes in sorted({1, 2, os.cpu_count() or 1}):
            wall, own, others = measure(dataset, processes)
            alone = alone or wall
            print(f"{processes:<10}{wall:8.2f}{wall / alone:7.2f}{own:11.2f}{others:15.2f}", flush=True)


if __name__ == "__main__":
    main()
