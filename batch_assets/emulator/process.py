"""The emulator as a separate process, for tests and demonstrations."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

_PACKAGE_ROOT = Path(__file__).resolve().parents[2]


class Emulator:
    """A running emulator; use as a context manager.

    `Emulator(latency=0.0, state=tmp_path)` starts a process on a free port. Options are those of
    run_server. Without `state` a temporary directory is used, which lasts until the end of the `with`
    block, restarts included. Raises RuntimeError when the process does not come up.
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
        """Where the API is: the value for a client's `base_url`. It stays the same over restarts."""

    def __enter__(self) -> "Emulator":
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
        """The process id of the server."""
        return self._running().pid

    def _running(self) -> "subprocess.Popen[bytes]":
        if self._process is None:
            raise RuntimeError("the emulator is not running")
        return self._process

    def start(self) -> None:
        """Start the process and wait until it says that it is ready."""
        from .serving import READY

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
        """What the process wrote to standard error; empty unless something went wrong."""
        if self._errors is None:
            return ""
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace")

    def stop(self) -> None:
        """End the process by SIGTERM and wait for it; nothing happens when it is not running."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the process by SIGKILL, as a crash would."""
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
        """Stop the process if it runs and start it again on the same port and state; faults are forgotten."""
        self.stop()
        self.start()

    def control(self, path: str, body: Any = None) -> Any:
        """Call a control endpoint, such as `control("clock", {"advance": 60})`; POST when there is a body."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"{self.url}/_emulator/{path}", data, {"content-type": "application/json"}
        )
        # No proxy may come between a test and its own server.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request) as response:
            return json.load(response)

    def faults(self, rules: Iterable[Mapping[str, Any]]) -> None:
        """Put fault rules in force."""
        self.control("faults", list(rules))

    def reset_faults(self) -> None:
        """Put all fault rules out of force."""
        self.control("reset-faults", {})

    def settings(self, **values: Any) -> Any:
        """Change settings for batches created from now on; gives all of them."""
        return self.control("settings", values)

    def clock(self, **values: Any) -> Any:
        """Set the clock: `reset`, `frozen` (bool), `advance` and `skew` (seconds); gives its state."""
        return self.control("clock", values)

    def end_batches(self, *ids: str) -> list[str]:
        """End batches now, all unless named; gives the ids of those that had not ended."""
        return self._move("end", ids)

    def expire_batches(self, *ids: str) -> list[str]:
        """Let the unfinished requests of batches expire now."""
        return self._move("expire", ids)

    def archive_batches(self, *ids: str) -> list[str]:
        """Archive ended batches now: their results are gone."""
        return self._move("archive", ids)

    def _move(self, step: str, ids: tuple[str, ...]) -> list[str]:
        moved: list[str] = self.control(step, {"ids": list(ids)} if ids else {})["ids"]
        return moved

    def log(self, *, custom_ids: bool = False) -> list[dict[str, Any]]:
        """Every batch ever accepted, in order, whatever became of it; with its custom_ids if asked."""
        entries: list[dict[str, Any]] = self.control("log?custom_ids=true" if custom_ids else "log")
        return entries

    def requests(self) -> dict[str, int]:
        """API calls received since the start, by method and path template."""
        counts: dict[str, int] = self.control("requests")
        return counts


def _python_path() -> str:
    """The path on which the process finds this package even when it is not installed."""
    return os.pathsep.join(filter(None, [str(_PACKAGE_ROOT), os.environ.get("PYTHONPATH", "")]))
