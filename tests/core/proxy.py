"""A TCP proxy in front of the emulator that holds back create calls when a test asks for it."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType

_CHUNK = 1 << 16


class Proxy:
    """Used as a context manager. A client uses `url` instead of the emulator's URL.

    `hold("request")` keeps the next POST from the server, `hold("upload")` everything after its first bytes.
    `hold("reply")` lets it through and keeps its reply from the client, `hold("reply", 3)` the replies to the
    next three. `held` is set when this has happened to all of them; `let_go()` or `cut()` ends it. All other
    calls pass.
    """

    def __init__(self, target: str) -> None:
        host, port = target.removeprefix("http://").split(":")
        self._target = host, int(port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._mode: str | None = None
        self._calls = 0
        self._counting = threading.Lock()
        self.held = threading.Event()
        self._go = threading.Event()
        self._is_cut = False

    def __enter__(self) -> Proxy:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._go.set()
        self._listener.close()

    def hold(self, part: str, calls: int = 1) -> None:
        self._mode, self._calls = part, calls
        self.held.clear()
        self._go.clear()
        self._is_cut = False

    def let_go(self) -> None:
        self._go.set()

    def cut(self) -> None:
        """Drop the connection that is held: nothing more reaches the server."""
        self._is_cut = True
        self._go.set()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._target)
            posted = threading.Event()
            for source, sink, from_client in ((client, server, True), (server, client, False)):
                arguments = (source, sink, from_client, posted)
                threading.Thread(target=self._pump, args=arguments, daemon=True).start()

    def _pump(
        self, source: socket.socket, sink: socket.socket, from_client: bool, posted: threading.Event
    ) -> None:
        try:
            while chunk := source.recv(_CHUNK):
                if from_client and chunk.startswith(b"POST "):
                    if self._mode == "request" and not self._wait():
                        break
                    elif self._mode == "upload":
                        sink.sendall(chunk)
                        if not self._wait():
                            break
                        continue
                    elif self._mode == "reply":
                        posted.set()
                elif not from_client and posted.is_set():
                    posted.clear()
                    if not self._wait():
                        break
                sink.sendall(chunk)
        except OSError:
            pass
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _wait(self) -> bool:
        """Wait for the test. Return whether to continue."""
        with self._counting:
            self._calls -= 1
            if self._calls <= 0:
                self._mode = None
                self.held.set()
        self._go.wait()
        return not self._is_cut
