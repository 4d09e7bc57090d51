"""A gateway before the emulator that does what gateways do: retry, repeat, refuse, cache and compress."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

Answer = tuple[int, dict[str, str], bytes]
"""Status, headers and body."""
Forward = Callable[[], Answer]
"""Sends the call to the emulator, each time that it is called."""
Rule = Callable[[Forward], Answer]
"""What the gateway does with a call."""


class Gateway:
    """Use as a context manager; `url` takes the emulator's place.

    `on(method, ending, rule)` has the next call of that method, whose path has that ending, done by the rule. All
    other calls pass.
    """

    def __init__(self, target: str) -> None:
        self._target = target.removeprefix("http://")
        self._rules: list[tuple[str, str, Rule]] = []
        self._choosing = threading.Lock()
        gateway = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _do(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                status, headers, content = gateway.answer(self.command, self.path, dict(self.headers), body)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_DELETE = _do

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Gateway:
        # With the default interval, each end of a test waits half a second.
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def on(self, method: str, ending: str, rule: Rule, times: int = 1) -> None:
        self._rules += [(method, ending, rule)] * times

    def forget(self) -> None:
        """All calls pass from now on."""
        self._rules.clear()

    def answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        def forward() -> Answer:
            connection = http.client.HTTPConnection(self._target, timeout=60)
            kept = {name: value for name, value in headers.items() if name.lower() not in ("host", "connection")}
            connection.request(method, path, body or None, kept)
            reply = connection.getresponse()
            content = reply.read()
            connection.close()
            dropped = ("content-length", "transfer-encoding", "connection")
            return reply.status, {n: v for n, v in reply.getheaders() if n.lower() not in dropped}, content

        with self._choosing:
            chosen = next(
                (rule for rule in self._rules if rule[0] == method and path.split("?")[0].endswith(rule[1])), None
            )
            if chosen is not None:
                self._rules.remove(chosen)
        return chosen[2](forward) if chosen is not None else forward()


def instead(status: int, body: bytes = b"", **headers: str) -> Rule:
    """Answers by itself."""
    return lambda _: (status, headers, body)


def accepted_but(status: int, body: bytes, **headers: str) -> Rule:
    """The call comes through, and the reply to a retry is shown."""

    def rule(forward: Forward) -> Answer:
        forward()
        return status, headers, body

    return rule


def repeated(forward: Forward) -> Answer:
    """Sends the call twice and shows the second reply."""
    forward()
    return forward()


def repeated_first(forward: Forward) -> Answer:
    """Sends the call twice and shows the first reply."""
    first = forward()
    forward()
    return first
