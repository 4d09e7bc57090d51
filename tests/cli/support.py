"""A project for each test, and the real command line run in it."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import batch_assets
from batch_assets.emulator import Emulator
from tests.child import Child
from tests.forked import ForkServer

PACKAGE = Path(batch_assets.__file__).parent
COMMAND = ["-m", "batch_assets.cli"]
BATCHES = "/v1/messages/batches"
DEADLINE = 120.0

# Variables that a developer's shell may have and the command must not see.
_FOREIGN = ("ANTHROPIC_", "BATCH_ASSETS_", "DAGSTER_", "FORCE_COLOR")


class Project:
    """A project folder with its own defs/, the code under test, and an environment to run it in."""

    def __init__(self, folder: Path, emulator: Emulator | None, python: ForkServer) -> None:
        self.folder, self.emulator, self._python = folder, emulator, python
        package = folder / "batch_assets"
        (package / "defs").mkdir(parents=True)
        for entry in PACKAGE.iterdir():
            if entry.name not in ("defs", "__pycache__"):
                (package / entry.name).symlink_to(entry)
        (folder / "pyproject.toml").write_text(
            '[tool.dg]\ndirectory_type = "project"\n[tool.dg.project]\nroot_module = "batch_assets"\n'
        )
        self.env = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
        self.env |= {"PYTHONPATH": str(folder), "COLUMNS": "120"}
        self._before = 0
        if emulator is not None:
            self.env["BATCH_ASSETS_EMULATOR"] = emulator.url
            self._before = len(emulator.log())

    def add_pipeline(self, name: str, texts: list[str], **attributes: Any) -> None:
        """Add a pipeline that sends one request for each text."""
        rows = [json.dumps({"id": number, "text": text}) for number, text in enumerate(texts)]
        (self.folder / f"{name}.jsonl").write_text("\n".join(rows) + "\n")
        content = [{"type": "text", "text": "{{ text }}"}]
        params = {
            "model": "claude-haiku-5-5",
            "max_tokens": 50,
            "messages": [{"role": "user", "content": content}],
        }
        fields = {"name": name, "dataset": {"path": f"{name}.jsonl", "key": "id"}, "params": params} | attributes
        folder = self.folder / "batch_assets" / "defs" / name
        folder.mkdir()
        # JSON is YAML.
        document = {"type": "batch_assets.MessageBatchComponent", "attributes": fields}
        (folder / "defs.yaml").write_text(json.dumps(document))

    def run(self, *arguments: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run the command to its end, with its output in a pipe."""
        return self.run_python(*COMMAND, *arguments, env=env)

    def run_python(
        self, *arguments: str, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run Python in the project, to its end."""
        env = self.env | dict(env or {})
        return self._python.python(*arguments, cwd=self.folder, env=env, timeout=DEADLINE)

    def run_in_new_interpreter(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the command in an interpreter that has to import everything, as it does for a user."""
        return subprocess.run(
            [sys.executable, *COMMAND, *arguments],
            cwd=self.folder,
            env=self.env,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=DEADLINE,
        )

    def start(self, *arguments: str) -> Child:
        """Start the command, with its output in pipes."""
        return self._python.start(*COMMAND, *arguments, cwd=self.folder, env=self.env)

    def run_in_terminal(self, *arguments: str) -> tuple[int, str]:
        """Run the command with a terminal for its output. Return its exit code and everything it wrote there."""
        ours, theirs = pty.openpty()
        env = self.env | {"TERM": "xterm-256color"}
        process = self._python.start(*COMMAND, *arguments, cwd=self.folder, env=env, terminal=theirs)
        os.close(theirs)
        received = b""
        try:
            while chunk := os.read(ours, 65536):
                received += chunk
        except OSError:
            pass  # how Linux reports that the other end is closed
        finally:
            os.close(ours)
        return process.wait(DEADLINE), received.decode()

    def accepted(self) -> list[dict[str, Any]]:
        """The batches that the API accepted since this project was made."""
        assert self.emulator is not None
        return self.emulator.log()[self._before :]
