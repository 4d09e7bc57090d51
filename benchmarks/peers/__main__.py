"""Runs other tools for batches on the emulator: 20 rows, then with a lost reply, then with a kill.

    python -m benchmarks.peers [NAME ...]

Each tool gets an environment of its own from PyPI, below `--environments`, and needs no account: all calls go to
the emulator. Each case runs the command of the tool, and runs it once more if it was killed, failed or left rows
without an answer, as a user or a scheduler would. What counts is what the emulator accepted, since this would be
paid for, and the answers that the tool has at the end.

A tool that cannot be installed is named below the table with the reason. The others run, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batch_assets.emulator import Emulator
from benchmarks.peers.tools import RUNNERS, TOOLS, Tool

ROWS = 20
_PROJECT = Path(__file__).parents[2]
_SECONDS = 240.0  # that one command may take
_CREATE = {"method": "POST", "path": "/v1/messages/batches"}
# The emulator accepts the batch, and closes the connection instead of answering.
_LOST_REPLY = {"match": {**_CREATE, "nth": [1]}, "action": {"drop": "after_commit"}}
_CASES = ("20 rows", "lost reply", "kill")
_PIPELINE = """
type: batch_assets.MessageBatchComponent
attributes:
  name: asked
  dataset: {path: rows.csv, key: id}
  params:
    model: claude-haiku-4-5
    max_tokens: 100
    messages: [{role: user, content: "{{ text }}"}]
"""
_DEFINITIONS = """
from pathlib import Path

from batch_assets import load_from_defs_folder

defs = load_from_defs_folder(path_within_project=Path(__file__).parent)
"""


@dataclass(frozen=True)
class Outcome:
    """What a tool did in a case.

    Attributes:
        accepted: The number of requests that the emulator accepted.
        answered: The number of rows with an answer.
        in_order: Whether the answers are in the order of the rows.
        codes: The exit codes of its commands.
        seconds: CPU time of its commands.
    """

    accepted: int
    answered: int
    in_order: bool
    codes: tuple[int | str, ...]
    seconds: float


class NotInstalledError(Exception):
    """A tool cannot be installed here. The text says why."""


def main() -> None:
    """Run the cases of the chosen tools."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="tools to run (default: all)")
    default = Path(tempfile.gettempdir()) / "batch-assets-peers"
    parser.add_argument(
        "--environments", type=Path, default=default, help=f"where to install (default: {default})"
    )
    options = parser.parse_args()
    names = [tool.name for tool in TOOLS]
    if unknown := [name for name in options.names if name not in names]:
        parser.error(f"no tool is called {unknown[0]}: choose from {', '.join(names)}")
    chosen = [tool for tool in TOOLS if not options.names or tool.name in options.names]
    sys.exit(0 if compare(chosen, options.environments) else 1)


def compare(tools: Sequence[Tool], environments: Path) -> bool:
    """Run the cases, and print a Markdown table and why tools are missing from it.

    Args:
        tools: The tools.
        environments: The folder in which they are installed.

    Returns:
        Whether all of them could be installed.
    """
    missing: dict[str, str] = {}
    print(f"| Tool | {' | '.join(f'{case}: paid, answered' for case in _CASES)} | in order | CPU s | exit codes |")
    print("|---|" + "---|" * (len(_CASES) + 3))
    for tool in tools:
        try:
            python = _installed(tool, environments)
        except NotInstalledError as error:
            missing[tool.name] = str(error)
            continue
        outcomes = [_run_case(tool, python, case) for case in _CASES]
        cells = [f"{each.accepted}, {each.answered}" for each in outcomes]
        codes = "; ".join(" then ".join(map(str, each.codes)) for each in outcomes)
        order = "yes" if outcomes[0].in_order else "no"
        print(f"| {tool.name} | {' | '.join(cells)} | {order} | {outcomes[0].seconds:.1f} | {codes} |", flush=True)
    for name, reason in missing.items():
        print(f"\n{name} is not installed, so it did not run:\n{textwrap.indent(reason, '    ')}")
    return not missing


def _installed(tool: Tool, environments: Path) -> Path:
    """Return the Python of a tool's environment, which is made unless it is there with these packages.

    Raises:
        NotInstalledError: When there is no such Python, or the packages cannot be installed.
    """
    if not tool.packages:
        return Path(sys.executable)
    folder = environments / tool.name
    python = folder / "bin" / "python"
    complete, packages = folder / "complete", "\n".join(tool.packages)
    if not complete.exists() or complete.read_text() != packages:
        uv = Path(sys.executable).with_name("uv")
        make: list[str | Path] = [uv, "venv", "--quiet", "--clear", "--python", tool.python, folder]
        install: list[str | Path] = [uv, "pip", "install", "--quiet", "--python", python, *tool.packages]
        for command in (make, install):
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            if done.returncode != 0:
                raise NotInstalledError(done.stdout.strip())
        complete.write_text(packages)
    return python


def _run_case(tool: Tool, python: Path, case: str) -> Outcome:
    with tempfile.TemporaryDirectory(prefix="peer-") as name, Emulator(latency=1.0) as emulator:
        folder = Path(name)
        _write_rows(folder)
        command = _command(tool, python, folder)
        environment = _environment(tool, emulator, folder)
        if case != _CASES[0]:
            emulator.faults([_LOST_REPLY])  # so a kill comes certainly before the reply
        began = os.times()
        codes: list[int | str] = [_once(command, environment, folder, emulator, kills=case == "kill")]
        if codes[0] != 0 or len(_answers(folder)) < ROWS:
            codes.append(_once(command, environment, folder, emulator, kills=False))
        ended = os.times()
        answers = _answers(folder)
        return Outcome(
            accepted=sum(batch["requests"] for batch in emulator.log()),
            answered=len(set(answers)),
            in_order=answers == [str(number) for number in range(ROWS)],
            codes=tuple(codes),
            seconds=ended.children_user + ended.children_system - began.children_user - began.children_system,
        )


def _write_rows(folder: Path) -> None:
    with (folder / "rows.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "text"])
        writer.writerows((number, f"Say something about the number {number * 7}.") for number in range(ROWS))


def _command(tool: Tool, python: Path, folder: Path) -> list[str | Path]:
    if tool.runner:
        return [python, RUNNERS / tool.runner, folder]
    package = folder / "project"
    (package / "defs" / "asked").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "definitions.py").write_text(_DEFINITIONS)
    (package / "defs" / "asked" / "defs.yaml").write_text(_PIPELINE)
    (folder / "pyproject.toml").write_text(
        '[tool.dg]\ndirectory_type = "project"\n[tool.dg.project]\nroot_module = "project"\n'
    )
    return [python, "-m", "batch_assets.cli", "run", "asked"]


def _environment(tool: Tool, emulator: Emulator, folder: Path) -> dict[str, str]:
    foreign = ("ANTHROPIC_", "BATCH_ASSETS_", "DAGSTER_", "AIRFLOW")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    (folder / "dagster").mkdir()
    ours = {} if tool.runner else {"PYTHONPATH": str(_PROJECT), "BATCH_ASSETS_EMULATOR": emulator.url}
    return inherited | {
        "ANTHROPIC_BASE_URL": emulator.url,
        "ANTHROPIC_API_KEY": "sk-ant-emulated",
        "DAGSTER_HOME": str(folder / "dagster"),
        **ours,
        **tool.environment,
    }


def _once(
    command: list[str | Path], environment: dict[str, str], folder: Path, emulator: Emulator, *, kills: bool
) -> int | str:
    """Run the command, and kill it when its first batch is accepted if wanted. Return its exit code."""
    with (folder / "output.txt").open("ab") as output:
        process = subprocess.Popen(
            command, env=environment, cwd=folder, stdout=output, stderr=output, start_new_session=True
        )
        end = time.monotonic() + _SECONDS
        while process.poll() is None:
            if time.monotonic() > end or (kills and emulator.log()):
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                return "killed" if kills else "timeout"
            time.sleep(0.02)
        return process.returncode


def _answers(folder: Path) -> list[str]:
    """Return the ids of the rows with an answer, in the order of the tool's output."""
    table = folder / "data" / "emulated" / "asked" / "results" / "results.parquet"
    if table.exists():
        import pandas as pd

        frame: Any = pd.read_parquet(table, columns=["id", "result_type"])
        return [str(key) for key in frame.loc[frame["result_type"] == "succeeded", "id"]]
    path = folder / "answers.jsonl"
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    return [str(json.loads(line)["id"]) for line in lines]


if __name__ == "__main__":
    main()
