"""`batch-assets dashboard` as a process, for tests and pictures."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

_SECONDS = 60.0
_FOREIGN = ("ANTHROPIC_", "BATCH_ASSETS_")


class DashboardServer:
    """The dashboard of a root. A context manager: leaving it presses Ctrl-C.

    Args:
        root: The root.
        arguments: Further options of the command.

    Attributes:
        url: The address that it prints.
        output: What it has printed after that, once it has ended.
    """

    def __init__(self, root: Path, *arguments: str) -> None:
        env = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "batch_assets.cli", "dashboard", "--port", "0", *arguments],
            env=env | {"BATCH_ASSETS_ROOT": str(root)},
            cwd=root.parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line.startswith("Dashboard: http://"), line + self._process.stdout.read()
        self.url, self.output = line.split()[1], ""

    def __enter__(self) -> DashboardServer:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGINT)
        try:
            self.output, _errors = self._process.communicate(timeout=_SECONDS)
        finally:
            self._process.kill()
        assert self._process.returncode == 0, self.output
