"""Run the emulator as a separate process, for tests and demonstrations."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import urllib.parse
import urllib.request
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

_PACKAGE_ROOT = Path(__file__).resolve().parents[2]


class Emulator:
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

    def control(self, path: str, body: Any = None) -> Any:
        """Call a control endpoint, such as `control("clock", {"advance": 60})`.

        Args:
            path: The path below /_emulator/.
            body: The JSON body of a POST; `None` for a GET.
        """
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"{self.url}/_emulator/{path}", data, {"content-type": "application/json"}
        )
        # Without the proxies of the environment: the server is local.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request) as response:
            return json.load(response)

    def faults(self, rules: Iterable[Mapping[str, Any]]) -> None:
        """Add fault rules; see `batch_assets.emulator.faults`."""
        self.control("faults", list(rules))

    def reset_faults(self) -> None:
        """Remove all fault rules."""
        self.control("reset-faults", {})

    def settings(self, **values: Any) -> Any:
        """Change settings for batches created from now on, and return all settings."""
        return self.control("settings", values)

    def clock(self, **values: Any) -> Any:
        """Set the clock, and return its state.

        Args:
            values: `reset` and `frozen` (bool), `advance` and `skew` (seconds).
        """
        return self.control("clock", values)

    def end_batches(self, *ids: str) -> list[str]:
        """End batches now.

        Args:
            ids: The ids of the batches; none for all batches.

        Returns:
            The ids of the batches that had not ended before.
        """
        return self._move("end", ids)

    def expire_batches(self, *ids: str) -> list[str]:
        """Expire the unfinished requests of batches now. Arguments and result are as in `end_batches`."""
        return self._move("expire", ids)

    def archive_batches(self, *ids: str) -> list[str]:
        """Archive ended batches now, so that their results are gone.

        Args:
            ids: The ids of the batches; none for all batches.

        Returns:
            The ids of the batches that had ended.
        """
        return self._move("archive", ids)

    def _move(self, step: str, ids: tuple[str, ...]) -> list[str]:
        moved: list[str] = self.control(step, {"ids": list(ids)} if ids else {})["ids"]
        return moved

    def log(self, *, custom_ids: bool = False) -> list[dict[str, Any]]:
        """List every batch ever accepted, in order, deleted ones included.

        Args:
            custom_ids: Whether to include the custom_ids of its requests.
        """
        entries: list[dict[str, Any]] = self.control("log?custom_ids=true" if custom_ids else "log")
        return entries

    def bill(self, workspace: str | None = None) -> dict[str, Any]:
        """Return what batches and live calls cost in picodollars, and what of it was served.

        Args:
            workspace: Only the batches of this workspace; `None` for all.
        """
        query = f"?workspace={urllib.parse.quote(workspace)}" if workspace is not None else ""
        bill: dict[str, Any] = self.control(f"bill{query}")
        return bill

    def live_calls(self) -> list[dict[str, Any]]:
        """Return every live call that was answered, in order: its params as JSON, and its cost in picodollars."""
        calls: list[dict[str, Any]] = self.control("live_calls")
        return calls

    def requests(self) -> dict[str, int]:
        """Count the API calls received since the start, by method and path template."""
        counts: dict[str, int] = self.control("requests")
        return counts


def _python_path() -> str:
    """The PYTHONPATH with which the process finds this package even if it is not installed."""
    return os.pathsep.join(filter(None, [str(_PACKAGE_ROOT), os.environ.get("PYTHONPATH", "")]))
