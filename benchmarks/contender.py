"""One contender in a process of its own: first the imports, then the measurement. Prints its figures as JSON.

`wall` and `cpu` do not contain what `wait` counts separately: the time in which a contender only asks whether its
batches have ended.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

_MEGABYTE = 1_000_000


class Stages:
    """Wall time, CPU time and peak memory of the stages of a run."""

    def __init__(self) -> None:
        self.seen: dict[str, dict[str, float]] = {}

    @contextmanager
    def time(self, name: str) -> Iterator[None]:
        cpu, wall = time.process_time(), time.perf_counter()
        yield
        before = self.seen.get(name, {"wall": 0.0, "cpu": 0.0})
        self.seen[name] = {
            "wall": before["wall"] + time.perf_counter() - wall,
            "cpu": before["cpu"] + time.process_time() - cpu,
            "peak_mb": peak_mb(),
        }


def peak_mb() -> float:
    """The largest resident set of this process so far, in MB (a million bytes)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / _MEGABYTE


def batch_assets(dataset: Path, out: Path, work: Path) -> Callable[[Stages], dict[str, Any]]:
    """Run all stages of this project, as the assets and the command line do, without Dagster."""
    import pandas as pd  # noqa: F401  pyarrow imports it for the first array

    from batch_assets.core.api.sdk import sdk
    from batch_assets.core.batches.poll import poll
    from batch_assets.core.batches.submit import submit_batches
    from batch_assets.core.open_root import open_root
    from batch_assets.core.pipeline.load import load_pipeline
    from batch_assets.core.requests.build import build_requests
    from batch_assets.core.results.run import collect_results
    from batch_assets.core.settings import Settings
    from benchmarks.workload import POLL_SECONDS, params_for

    sdk()  # the others also import their client before the clock starts
    atexit.register(gc.freeze)  # as the command line does
    attributes = {
        "name": "bench",
        "dataset": {"path": str(dataset), "key": "id"},
        "params": params_for(),
    }

    def run(stages: Stages) -> dict[str, Any]:
        env = {
            "BATCH_ASSETS_ROOT": str(work),
            "ANTHROPIC_BASE_URL": os.environ["ANTHROPIC_BASE_URL"],
            "ANTHROPIC_API_KEY": os.environ["ANTHROPIC_API_KEY"],
        }
        with open_root(Settings.from_env(env)) as root:
            with stages.time("requests"):
                pipeline = load_pipeline(attributes, folder=work)
                report = build_requests(root, pipeline)
            with stages.time("batches"):
                submit_batches(root, "bench")
            with stages.time("wait"):
                while poll(root, now=True).calls:  # none is made once every batch has ended
                    time.sleep(POLL_SECONDS)
            with stages.time("results"):
                done = collect_results(root, "bench")
            while not (done.results and done.results.final):
                with stages.time("wait"):
                    time.sleep(POLL_SECONDS)
                    poll(root, now=True)
                with stages.time("results"):
                    done = collect_results(root, "bench")
            assert done.results is not None
            down = sum(batch.bytes for batch in done.collected)
            moved = {"requests": report.bytes, "batches": report.bytes, "results": down}
            return {"rows": done.results.counts["succeeded"], "bytes": moved}

    return run


def reference(name: str, dataset: Path, out: Path, work: Path) -> Callable[[Stages], dict[str, Any]]:
    """Run one of the references."""
    from benchmarks import bare_loop, references

    function, wait = getattr(references, name), bare_loop.wait_until

    def run(stages: Stages) -> dict[str, Any]:
        def timed_wait(*args: Any) -> None:
            with stages.time("wait"):
                wait(*args)

        vars(bare_loop)["wait_until"] = timed_wait
        function(dataset, out, work)
        return {}

    return run


def succeeded_in(out: Path) -> int:
    """The number of answered rows in a reference's output. Called after the measurement."""
    import pyarrow.parquet as pq

    kinds: list[str] = pq.read_table(out, columns=["result_type"])["result_type"].to_pylist()
    return kinds.count("succeeded")


def main() -> None:
    name, dataset, work = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    out = work / "out.parquet"
    prepare = batch_assets if name == "batch_assets" else lambda *args: reference(name, *args)
    run = prepare(dataset, out, work)
    imported = psutil.Process().memory_info().rss / _MEGABYTE
    stages = Stages()
    cpu, wall = time.process_time(), time.perf_counter()
    figures = run(stages)
    waited = stages.seen["wait"]
    figures |= {
        "wall": time.perf_counter() - wall - waited["wall"],
        "wait": waited["wall"],
        "cpu": time.process_time() - cpu - waited["cpu"],
        "imported_mb": imported,
        "peak_mb": peak_mb(),
        "stages": stages.seen,
    }
    if "rows" not in figures:
        figures["rows"] = succeeded_in(out)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
