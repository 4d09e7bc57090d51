"""A server in front of another one: each call takes longer, and is recorded with the address that it came from."""

from __future__ import annotations

import http.client
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import NamedTuple

_TIMEOUT_SECONDS = 120.0
_OF_A_CONNECTION = ("host", "connection", "keep-alive", "transfer-encoding", "expect")


class Call(NamedTuple):
    """A call: the address of the caller, the method, the path without its query, and the status of the reply."""

    caller: str
    method: str
    path: str
    status: int


class SlowServer:
    """Passes each call on after a delay, and records it. Used as a context manager.

    Args:
        address: The address to listen on, at any free port.
        delay: Seconds that each call takes longer.

    Attributes:
        calls: All calls so far, in the order of their replies.
        target: Host and port of the server behind it. There must be no call before it is set.
        url: Its own URL.
    """

    def __init__(self, address: str, delay: float) -> None:
        self.calls: list[Call] = []
        self.target, self._delay = "", delay
        self._server = _Server((address, 0), self._handler())
        self.url = f"http://{address}:{self._server.server_port}"

    def __enter__(self) -> SlowServer:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = _TIMEOUT_SECONDS

            def _pass_on(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                time.sleep(server._delay)
                status, headers, content = server._reply(self.command, self.path, dict(self.headers), body)
                server.calls.append(
                    Call(self.client_address[0], self.command, self.path.partition("?")[0], status)
                )
                self.send_response_only(status)
                for name, value in headers:
                    self.send_header(name, value)
                if not any(name.lower() == "content-length" for name, _ in headers):
                    self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _pass_on

            def log_message(self, *_: object) -> None:
                """Print nothing."""

        return Handler

    def _reply(
        self, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        """Return the status, the headers and the body with which the server behind this one replies."""
        connection = http.client.HTTPConnection(self.target, timeout=_TIMEOUT_SECONDS)
        try:
            kept = {name: value for name, value in headers.items() if name.lower() not in _OF_A_CONNECTION}
            connection.request(method, path, body, kept)
            reply = connection.getresponse()
            content = reply.read()
            passed = [(name, value) for name, value in reply.getheaders() if name.lower() not in _OF_A_CONNECTION]
            return reply.status, passed, content
        finally:
            connection.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """Print nothing about a client that was killed in the middle of a call."""
