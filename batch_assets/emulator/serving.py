"""Running the server in this process until it is told to stop."""

import os
import socket
import tempfile
import threading
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn

from .connection import EmulatorProtocol
from .faults import Faults
from .server import EmulatorApp
from .service import Service, Settings
from .state import Store

READY = "Emulator of the Message Batches API ready at "
"""What the line printed when the server is ready begins with; its URL follows."""


def run_server(
    *,
    host: str = "127.0.0.1",
    port: int = 8765,
    state: Path | None = None,
    latency: float = 2.0,
    cancel_delay: float = 0.5,
    expiry: float | None = None,
    moving_counters: bool = False,
    max_body_bytes: int | None = None,
    max_requests: int | None = None,
    queue_limit: int | None = None,
    keys: Iterable[str] = (),
    workspaces: Mapping[str, str] | None = None,
    faults: Iterable[Mapping[str, Any]] = (),
    control: bool = True,
    stop_with_stdin: bool = False,
) -> None:
    """Serve until SIGTERM or SIGINT. Prints one line with the URL when ready.

    `port` 0 takes a free one. `state` is the directory for batches; without it a temporary one is used
    and removed at the end. Durations are seconds; None leaves a limit at the API's value. See Settings
    for the meaning of the others. `stop_with_stdin` also stops when standard input is closed, which is how
    a server started by a test ends with it. Raises OSError when the port is taken, ValueError for
    an unknown fault.
    """
    settings = Settings(
        latency=latency,
        cancel_delay=cancel_delay,
        moving_counters=moving_counters,
        queue_limit=queue_limit,
        keys=frozenset(keys),
        workspaces=dict(workspaces or {}),
        control=control,
    )
    for name, value in (
        ("expiry", expiry),
        ("max_body_bytes", max_body_bytes),
        ("max_requests", max_requests),
    ):
        if value is not None:
            setattr(settings, name, value)
    with ExitStack() as stack:
        if state is None:
            state = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="batch-emulator-")))
        store = Store(state)
        stack.callback(store.close)
        listener = stack.enter_context(_listen(host, port))
        app = EmulatorApp(Service(store, settings, Faults(faults)))
        _Server(app, listener, stop_with_stdin).run(sockets=[listener])


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    return listener


class _Server(uvicorn.Server):
    """uvicorn, saying when it is ready."""

    def __init__(self, app: EmulatorApp, listener: socket.socket, stop_with_stdin: bool) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=EmulatorProtocol,
                ws="none",
                lifespan="off",
                log_level="error",
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=2,
            )
        )
        self._listener, self._stop_with_stdin = listener, stop_with_stdin

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        host, port = self._listener.getsockname()[:2]
        print(f"{READY}http://{f'[{host}]' if ':' in host else host}:{port}", flush=True)
        if self._stop_with_stdin:
            threading.Thread(target=self._wait_for_stdin, daemon=True).start()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # uvicorn would raise the signal once more at the end, and the temporary state would stay behind.
        self.should_exit = True

    def _wait_for_stdin(self) -> None:
        # The descriptor, not sys.stdin: a thread waiting in its buffer would hang the interpreter's end.
        while os.read(0, 4096):
            pass
        self.should_exit = True
