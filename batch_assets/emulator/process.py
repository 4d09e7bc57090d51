"""Run the emulator as a separate process, for tests and demonstrations."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from batch_assets.emulator.control_client import EmulatorControl

_PACKAGE_ROOT = Path(__file__).resolve().parents[2]


class Emulator(EmulatorControl):
    """An emulator process. Use it as a context manager: `with Emulator(latency=0.0, state=tmp_path) as emulator:`.

    Args:
        latency: Seconds from a batch's creation until it ends.
        state: The directory for batches; `None` for a temporary one, which is kept over restarts and removed at
            the end of the `with` block.
        host: The address to listen on.
        port: The port to listen on; 0 for any free port.
        cancel_delay: Seconds from a cancel call until the batch ends.
        options: Further options of `run_server`.

    Attributes:
        state: The directory for batches.
        url: The URL of the API, for a client's `base_url`; "" before the start. It stays the same over restarts.

    Raises:
        RuntimeError: When the process does not start.
    """

    def __init__(
        self,
        *,
        latency: float = 0.0,
        state: Path | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        cancel_delay: float = 0.0,
        **options: Any,
    ) -> None:
        self._own_state = tempfile.TemporaryDirectory(prefix="batch-emulator-") if state is None else None
        self.state = Path(self._own_state.name) if self._own_state is not None else Path(str(state))
        self._options = options | {
            "latency": latency,
            "cancel_delay": cancel_delay,
            "host": host,
            "state": str(self.state),
        }
        self._port = port
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: IO[bytes] | None = None
        self.url = ""

    def __enter__(self) -> Emulator:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._close_errors()
        if self._own_state is not None:
            self._own_state.cleanup()

    @property
    def pid(self) -> int:
        """The process id of the server.

        Raises:
            RuntimeError: When it is not running.
        """
        return self._running().pid

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("the emulator is not running")
        return self._process

    def start(self) -> None:
        """Start the process and wait until it is ready.

        Raises:
            RuntimeError: When it does not start. The text has what it wrote to standard error.
        """
        from batch_assets.emulator.serving import READY

        options = self._options | {"port": self._port, "stop_with_stdin": True}
        self._close_errors()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # lives as long as the process
        self._process = subprocess.Popen(
            [sys.executable, "-m", "batch_assets.emulator", "--options-json", json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=os.environ | {"PYTHONPATH": _python_path()},
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline().decode()
        if not line.startswith(READY):
            self.kill()
            raise RuntimeError(f"the emulator did not start: {line}{self.errors()}")
        self.url = line.removeprefix(READY).strip()
        self._port = int(self.url.rpartition(":")[2])

    def _close_errors(self) -> None:
        if self._errors is not None:
            self._errors.close()
            self._errors = None

    def errors(self) -> str:
        """Return what the process wrote to standard error; "" unless something went wrong."""
        if self._errors is None:
            return ""
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace")

    def stop(self) -> None:
        """End the process with SIGTERM and wait for it. Does nothing if it is not running."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the process with SIGKILL, like a crash."""
        self._end(signal.SIGKILL)

    def _end(self, signal_number: int) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal_number)
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()

    def restart(self) -> None:
        """Stop the process if it is running, and start it with the same port and state. Fault rules are lost."""
        self.stop()
        self.start()


def _python_path() -> str:
    """The PYTHONPATH with which the process finds this package even if it is not installed."""
    return os.pathsep.join(filter(None, [str(_PACKAGE_ROOT), os.environ.get("PYTHONPATH", "")]))
