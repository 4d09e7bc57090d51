"""`python -m benchmarks.commands`: what short commands cost, imports included: modules and CPU seconds.

The commands are a `run` on the emulator, `status`, and a second `run` that has nothing to send, each in a process
of its own. The whole SDK is most of what a command can import, and none needs it: a `run` imports only its
client. The CPU time of the fastest round and the number of modules are compared with limits; the exit code is 1 if
one is exceeded.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from batch_assets.emulator import Emulator
from benchmarks.loading import write_project

_ROUNDS = 3
_PACKAGE = "commands"
_PIPELINE = f"{_PACKAGE}_0"
DEFINITIONS = """\
from pathlib import Path

import dagster as dg


@dg.definitions
def defs():
    return dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
"""
_MEASURED = """
import json, resource, sys
from batch_assets.cli import main
try:
    main(sys.argv[1:], standalone_mode=False)
except SystemExit as ended:  # of `run`, with its exit code
    assert not ended.code
used = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps([used.ru_utime + used.ru_stime, len(sys.modules), "anthropic" in sys.modules]))
"""


@dataclass(frozen=True)
class Limit:
    """The most that a command may use.

    Attributes:
        cpu: CPU seconds.
        modules: Modules that it imports.
    """

    cpu: float
    modules: int


LIMITS = {
    ("run", _PIPELINE): Limit(cpu=5.0, modules=3_800),
    ("status",): Limit(
        cpu=1.5, modules=1_300
    ),  # it looks for mistakes in pipeline files; pandas would be too much
    ("run", _PIPELINE, "again"): Limit(cpu=4.0, modules=2_800),
}


@dataclass(frozen=True)
class Cost:
    """What a command has used; see `Limit`.

    Attributes:
        sdk: Whether it has imported the whole SDK, which is over any limit.
    """

    cpu: float
    modules: int
    sdk: bool

    def is_over(self, limit: Limit) -> bool:
        return self.cpu > limit.cpu or self.modules > limit.modules or self.sdk


def make_project(folder: Path) -> None:
    """Write a project of one pipeline with a dataset of two rows."""
    (write_project(folder, _PACKAGE, 1) / "definitions.py").write_text(DEFINITIONS)
    (folder / "data").mkdir()
    (folder / "data" / "reviews.csv").write_text("review_id,product,text\n1,lamp,good\n2,chair,bad\n")


def measure(folder: Path, url: str, *arguments: str) -> Cost:
    """Run a command in a new process."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BATCH_ASSETS_")}
    paths = [str(folder), str(Path.cwd()), environment.get("PYTHONPATH", "")]
    environment |= {"BATCH_ASSETS_EMULATOR": url, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    command = [sys.executable, "-c", _MEASURED, *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, text=True)
    return Cost(*json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Measure the commands, and print whether they are within their limits."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.commands", description=__doc__)
    parser.add_argument("--rounds", type=int, default=_ROUNDS)
    options = parser.parse_args()
    costs: dict[tuple[str, ...], list[Cost]] = {command: [] for command in LIMITS}
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory() as folder, Emulator(latency=0.0) as emulator:
            make_project(Path(folder))
            for command, rounds in costs.items():
                rounds.append(measure(Path(folder), emulator.url, *command[:2]))
    missed = False
    for command, limit in LIMITS.items():
        cost = min(costs[command], key=lambda cost: cost.cpu)
        missed |= cost.is_over(limit)
        used = f"{cost.cpu:.2f} s CPU time (at most {limit.cpu:.1f}), {cost.modules:,} modules (at most "
        sdk = "with the whole SDK" if cost.sdk else "without the whole SDK"
        print(f"batch-assets {' '.join(command)}: {used}{limit.modules:,}), {sdk}", flush=True)
    sys.exit(missed)


if __name__ == "__main__":
    main()
