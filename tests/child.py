"""A process that is not a child of this one, handled as if it were."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any, TextIO, cast


class Child:
    """A process started by `ForkServer.start`. Its methods are those of `subprocess.Popen`.

    Attributes:
        returncode: None while it runs; minus the signal's number if a signal killed it.
        stdout, stderr: Its output, unless it was given a terminal.
    """

    def __init__(
        self, ask: Callable[[Any], Any], arguments: list[str], cwd: str, env: dict[str, str], terminal: int | None
    ) -> None:
        self.args, self.returncode = arguments, cast("int | None", None)
        self._ended, ended_end = os.pipe()
        (out, out_end), (err, err_end) = os.pipe(), os.pipe()
        written = [out_end, err_end] if terminal is None else [terminal, terminal]
        paths = [f"/proc/{os.getpid()}/fd/{descriptor}" for descriptor in (*written, ended_end)]
        self.pid = int(ask({"arguments": arguments, "cwd": cwd, "env": env, "paths": paths})["pid"])
        for descriptor in (out_end, err_end, ended_end):
            os.close(descriptor)
        self.stdout, self.stderr = os.fdopen(out), os.fdopen(err)

    def poll(self) -> int | None:
        try:
            return self.wait(0.0)
        except subprocess.TimeoutExpired:
            return None

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._ended], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
            self.returncode = os.waitstatus_to_exitcode(int(os.read(self._ended, 16)))
            os.close(self._ended)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Read all output, and wait for the end."""
        outputs: dict[TextIO, str] = {}

        def read(pipe: TextIO) -> None:
            with pipe:
                outputs[pipe] = pipe.read()

        pipes = [pipe for pipe in (self.stdout, self.stderr) if not pipe.closed]
        readers = [threading.Thread(target=read, args=(pipe,), daemon=True) for pipe in pipes]
        end = time.monotonic() + (timeout or threading.TIMEOUT_MAX)
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join(max(end - time.monotonic(), 0.0))
            if reader.is_alive():
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        self.wait(max(end - time.monotonic(), 0.0))
        return outputs.get(self.stdout, ""), outputs.get(self.stderr, "")

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)
