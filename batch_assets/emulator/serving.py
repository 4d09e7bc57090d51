"""Run the server in this process until it is stopped."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn

from batch_assets.emulator.connection import EmulatorProtocol
from batch_assets.emulator.faults import Faults
from batch_assets.emulator.server import EmulatorApp
from batch_assets.emulator.service import Service, Settings
from batch_assets.emulator.state import Store

READY = "Emulator of the Message Batches API ready at "
"""The beginning of the line that is printed when the server is ready. The URL follows."""


def run_server(
    *,
    host: str = "127.0.0.1",
    port: int = 4010,
    state: Path | None = None,
    latency: float = 2.0,
    cancel_delay: float = 0.5,
    expiry: float | None = None,
    moving_counters: bool = False,
    max_body_bytes: int | None = None,
    max_requests: int | None = None,
    queue_limit: int | None = None,
    max_batches: int | None = None,
    keys: Iterable[str] = (),
    workspaces: Mapping[str, str] | None = None,
    aws_keys: Mapping[str, str] | None = None,
    admin_keys: Iterable[str] = (),
    faults: Iterable[Mapping[str, Any]] = (),
    control: bool = True,
    allow_hosts: Iterable[str] = (),
    answers_from: str | None = None,
    answers_model: str | None = None,
    answers_concurrency: int = 4,
    answers_patience: float = 60.0,
    stop_with_stdin: bool = False,
) -> None:
    """Serve until SIGTERM or SIGINT. Prints one line with the URL when ready.

    Args:
        host: The address to listen on.
        port: The port to listen on; 0 for any free port.
        state: The directory for batches; `None` for a temporary one, which is removed at the end.
        latency: Seconds from a batch's creation until it ends.
        cancel_delay: Seconds from a cancel call until the batch ends.
        expiry: Seconds from a batch's creation until its unfinished requests expire; `None` for the API's value.
        moving_counters: Whether to show the counts of finished requests before a batch has ended.
        max_body_bytes: The largest create body in bytes; `None` for the API's value.
        max_requests: The largest number of requests in a batch; `None` for the API's value.
        queue_limit: The largest number of requests in process over all batches; `None` for no limit.
        max_batches: The largest number of batches that a workspace may have and not delete; `None` for 100,000.
        keys: The accepted API keys; empty to accept any key.
        workspaces: The names of workspaces, by API key.
        aws_keys: The secrets of accepted AWS access keys, by their ids; empty to accept any, without a check.
        admin_keys: The keys that may call the endpoints of the organization, and no others; empty for any key.
        faults: Fault rules to start with; see `batch_assets.emulator.faults`.
        control: Whether there are control endpoints.
        allow_hosts: Names by which it may be called, apart from those of the loopback interface and `host`.
        answers_from: The URL of a server that answers the requests; `None` to emulate the answers.
        answers_model: The name of its model; `None` to send the name that each request has.
        answers_concurrency: How many requests it is asked at a time.
        answers_patience: Seconds for which a request is sent to it again while it has a problem.
        stop_with_stdin: Whether to stop when standard input is closed too, so that a server that a test started
            ends with the test.

    Raises:
        OSError: When the port is in use.
        ValueError: When a fault rule or `answers_from` is not valid.
    """
    settings = Settings(
        latency=latency,
        cancel_delay=cancel_delay,
        moving_counters=moving_counters,
        queue_limit=queue_limit,
        keys=frozenset(keys),
        workspaces=dict(workspaces or {}),
        aws_keys=dict(aws_keys or {}),
        admin_keys=frozenset(admin_keys),
        control=control,
        allow_hosts=frozenset({host, *allow_hosts}),
    )
    for name, value in (
        ("expiry", expiry),
        ("max_body_bytes", max_body_bytes),
        ("max_requests", max_requests),
        ("max_batches", max_batches),
    ):
        if value is not None:
            setattr(settings, name, value)
    source = None
    if answers_from is not None:
        from batch_assets.emulator.answer_source import AnswerSource  # httpx2 takes time to import

        source = AnswerSource(answers_from, answers_model, answers_concurrency, answers_patience)
    with _store(state) as store, listen(host, port) as listener:
        service = Service(store, settings, Faults(faults), source)
        server = EmulatorServer(service, listener, _announce, stop_with_stdin=stop_with_stdin)
        server.run(sockets=[listener])


def _announce(url: str) -> None:
    print(f"{READY}{url}", flush=True)


@contextlib.contextmanager
def _store(state: Path | None) -> Iterator[Store]:
    with ExitStack() as stack:
        if state is None:
            state = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="batch-emulator-")))
        store = Store(state)
        stack.callback(store.close)
        yield store


def listen(host: str, port: int) -> socket.socket:
    """Open the socket of a server.

    Args:
        host: The address to listen on.
        port: The port; 0 for any free port.

    Raises:
        OSError: When the port is in use.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    return listener


class EmulatorServer(uvicorn.Server):
    """uvicorn's server, which also reports when it is ready, and asks for answers while it runs.

    Args:
        service: The emulator.
        listener: The socket that it listens on.
        on_ready: Called with the URL when it is ready.
        stop_with_stdin: Whether to stop when standard input is closed.
    """

    def __init__(
        self,
        service: Service,
        listener: socket.socket,
        on_ready: Callable[[str], None],
        *,
        stop_with_stdin: bool = False,
    ) -> None:
        super().__init__(
            uvicorn.Config(
                EmulatorApp(service),
                http=EmulatorProtocol,
                ws="none",
                lifespan="off",
                log_level="error",
                access_log=False,
                server_header=False,
                date_header=False,  # the answers have one by the emulator's own clock
                timeout_graceful_shutdown=2,
            )
        )
        self._service, self._listener, self._on_ready = service, listener, on_ready
        self._stop_with_stdin = stop_with_stdin
        self._asking: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        host, port = self._listener.getsockname()[:2]
        self._on_ready(f"http://{f'[{host}]' if ':' in host else host}:{port}")
        if self._stop_with_stdin:
            threading.Thread(target=self._wait_for_stdin, daemon=True).start()
        if self._service.asking is not None:
            self._asking = asyncio.create_task(self._service.asking.run())
            self._asking.add_done_callback(self._stop_after)

    def _stop_after(self, _: asyncio.Task[None]) -> None:
        self.should_exit = True  # it ends only with an error, such as a full disk, which shutdown raises

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        if self._asking is not None:
            self._asking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._asking

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # uvicorn would raise the signal again at the end, and the temporary state would not be removed.
        self.should_exit = True

    def _wait_for_stdin(self) -> None:
        # Read the descriptor, not sys.stdin: a thread that waits in its buffer would block the interpreter's exit.
        while os.read(0, 4096):
            pass
        self.should_exit = True
