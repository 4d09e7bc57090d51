"""The CPU time of whole processes, from start to end: imports, work, waiting, and what Python does at exit.

`command` is `batch-assets run`, with Dagster's definitions. `without_sdk` is `python -m benchmarks.bare_loop`,
which imports no more than it needs.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks.commands import DEFINITIONS
from benchmarks.workload import params_for

_PACKAGE = "whole"
_SUCCEEDED = re.compile(r"^ *succeeded +([\d,]+)$", re.MULTILINE)


def run(command: list[str], env: Mapping[str, str], folder: Path | None = None) -> tuple[str, float]:
    """Run a process to its end.

    Args:
        command: The program and its arguments.
        env: Its environment.
        folder: The folder that it runs in; by default the current one.

    Returns:
        What it has printed, and its CPU time in seconds, user and system, with that of its own child processes.

    Raises:
        subprocess.CalledProcessError: When it fails.
    """
    with subprocess.Popen(command, env=env, cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        printed = process.stdout.read()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise subprocess.CalledProcessError(process.returncode, command, printed)
    return printed, used.ru_utime + used.ru_stime


def command(dataset: Path, work: Path, env: Mapping[str, str]) -> tuple[int, float]:
    """Run `batch-assets run` in a project of its own: the rows with an answer, and the CPU seconds."""
    pipeline = work / _PACKAGE / "defs" / _PACKAGE
    pipeline.mkdir(parents=True)
    attributes = {"name": _PACKAGE, "dataset": {"path": str(dataset), "key": "id"}, "params": params_for()}
    component = {"type": "batch_assets.MessageBatchComponent", "attributes": attributes}
    (pipeline / "defs.yaml").write_text(json.dumps(component))  # JSON is YAML
    (work / _PACKAGE / "__init__.py").touch()
    (work / _PACKAGE / "definitions.py").write_text(DEFINITIONS)
    project = f'[tool.dg]\ndirectory_type = "project"\n\n[tool.dg.project]\nroot_module = "{_PACKAGE}"\n'
    (work / "pyproject.toml").write_text(project)
    paths = os.pathsep.join(filter(None, [str(work), str(Path.cwd()), env.get("PYTHONPATH", "")]))
    arguments = [sys.executable, "-m", "batch_assets.cli", "run", _PACKAGE]
    printed, cpu = run(arguments, {**env, "PYTHONPATH": paths}, work)
    rows = _SUCCEEDED.search(printed)
    return int(rows[1].replace(",", "")) if rows else 0, cpu


def without_sdk(dataset: Path, work: Path, env: Mapping[str, str]) -> tuple[int, float]:
    """Run the bare loop without the SDK: the rows with an answer, and the CPU seconds."""
    printed, cpu = run([sys.executable, "-m", "benchmarks.bare_loop", str(dataset), str(work)], env)
    return json.loads(printed)["rows"], cpu


CONTENDERS: dict[str, Callable[[Path, Path, Mapping[str, str]], tuple[int, float]]] = {
    "command": command,
    "without_sdk": without_sdk,
}
