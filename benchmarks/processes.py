"""`python -m benchmarks.processes`: rows rendered, and results parsed, by 1 and by more processes.

Builds the same submission with BATCH_ASSETS_PROCESSES of 1, 2 and the number of CPUs, from a template with logic.
Then collects the results of three batches from the emulator in the same way, with the table. Wall time shows what
it gains on an idle machine. CPU time shows how the work is shared on any machine: of the run's own process, which
reads, looks up and writes, and of the worker processes together, with their imports. There is no limit: the gain
depends on the machine, on the template and on the answers.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from batch_assets.core.batches.poll import poll
from batch_assets.core.batches.submit import submit_batches
from batch_assets.core.open_root import open_root
from batch_assets.core.pipeline.load import load_pipeline
from batch_assets.core.requests.build import build_requests
from batch_assets.core.results.run import collect_results
from batch_assets.core.root import Root
from batch_assets.core.settings import Settings
from batch_assets.emulator import Emulator
from benchmarks.references import make_dataset
from benchmarks.workload import POLL_SECONDS, params_for

_ROWS = 100_000
_BATCHES = 3
# The emulator needs about 20 microseconds to make an answer; the rest is a reserve for slow machines.
_LATENCY_PER_ROW = 60e-6
_CONTENT = (
    "{% for word in text.split(' ') %}{% if word|length > 4 %}{{ word|upper }}{% else %}{{ word }}{% endif %} "
    "{% endfor %}{{ {'id': id, 'length': text|length}|tojson }}"
)


def measured(work: Callable[[], object]) -> tuple[float, float, float]:
    """Do some work: wall seconds, CPU seconds of this process, and CPU seconds of the worker processes."""
    wall, own, others = time.perf_counter(), time.process_time(), _of_children()
    work()
    return time.perf_counter() - wall, time.process_time() - own, _of_children() - others


def build(dataset: Path, processes: int) -> tuple[float, float, float]:
    """Measure a build."""
    with tempfile.TemporaryDirectory() as work:
        attributes = {"name": "bench", "dataset": {"path": str(dataset), "key": "id"}}
        pipeline = load_pipeline({**attributes, "params": params_for(_CONTENT)}, folder=Path(work))
        with _root(work, processes, "http://127.0.0.1:1") as root:  # a build makes no call
            return measured(lambda: build_requests(root, pipeline))


def results(dataset: Path, processes: int, rows: int) -> tuple[float, float, float]:
    """Measure the results of three batches."""
    with Emulator(latency=rows * _LATENCY_PER_ROW) as emulator, tempfile.TemporaryDirectory() as work:
        attributes = {"name": "bench", "dataset": {"path": str(dataset), "key": "id"}, "params": params_for()}
        attributes["batching"] = {"max_requests": -(-rows // _BATCHES)}
        with _root(work, processes, emulator.url) as root:
            build_requests(root, load_pipeline(attributes, folder=Path(work)))
            submit_batches(root, "bench")
            while poll(root, now=True).calls:
                time.sleep(POLL_SECONDS)
            return measured(lambda: collect_results(root, "bench"))


def _root(work: str, processes: int, url: str) -> Root:
    env = {
        "BATCH_ASSETS_ROOT": work,
        "BATCH_ASSETS_PROCESSES": str(processes),
        "BATCH_ASSETS_EMULATOR": url,
    }
    return open_root(Settings.from_env(env))


def _of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def compare(what: str, measure: Callable[[int], tuple[float, float, float]]) -> None:
    """Measure something with each number of processes in turn, and print it."""
    alone = 0.0
    print(f"{what}\n{'processes':10}{'wall s':>8}{'ratio':>7}{'own CPU s':>11}{'workers CPU s':>15}")
    for processes in sorted({1, 2, os.cpu_count() or 1}):
        wall, own, others = measure(processes)
        alone = alone or wall
        print(f"{processes:<10}{wall:8.2f}{wall / alone:7.2f}{own:11.2f}{others:15.2f}", flush=True)


def main() -> None:
    """Measure each number of processes in turn."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.processes",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rows", type=int, default=_ROWS)
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as folder:
        dataset, larger = Path(folder) / "dataset.parquet", Path(folder) / "larger.parquet"
        make_dataset(dataset, rows)
        make_dataset(larger, _BATCHES * rows)
        build(dataset, 1)  # imports
        compare(f"{rows:,} rows rendered", lambda processes: build(dataset, processes))
        compare(f"\n{_BATCHES * rows:,} results", lambda processes: results(larger, processes, _BATCHES * rows))


if __name__ == "__main__":
    main()
