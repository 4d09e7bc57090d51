"""A scripted server of a model, which speaks the chat API and the Messages API."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import orjson

Answer = tuple[int, Any]


@dataclass
class Model:
    """A server of a model.

    Attributes:
        url: Its URL, without a path.
        answer: Makes status and body of an answer from the body of a call. A status of 0 breaks the connection.
        calls: Path, headers and body of each call.
        most: The most calls at a time.
    """

    url: str
    answer: Callable[[Any], Answer]
    calls: list[tuple[str, Mapping[str, str], Any]] = field(default_factory=list)
    most: int = 0

    def texts(self) -> list[str]:
        """The text of the last message of each call, in order."""
        return [body["messages"][-1]["content"] for _, _, body in self.calls]


@contextmanager
def serving(answer: Callable[[Any], Answer]) -> Iterator[Model]:
    lock, busy = threading.Lock(), 0

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            nonlocal busy
            body = orjson.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                busy += 1
                model.most = max(model.most, busy)
                model.calls.append((self.path, dict(self.headers), body))
            status, content = model.answer(body)
            with lock:
                busy -= 1
            if status:
                data = content if isinstance(content, bytes) else orjson.dumps(content)
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        model = Model(f"http://127.0.0.1:{server.server_port}", answer)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield model
        server.shutdown()


def chat(content: Any = "Fine.", finish_reason: str = "stop", **message: Any) -> Answer:
    choice = {"message": {"role": "assistant", "content": content, **message}, "finish_reason": finish_reason}
    return 200, {"id": "c", "choices": [choice], "usage": {"prompt_tokens": 11, "completion_tokens": 7}}


def spoken(text: str = "Fine.", **more: Any) -> Answer:
    return 200, {
        "type": "message",
        "content": [{"type": "text", "text": text}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 5, "cache_read_input_tokens": 6, "output_tokens": 7},
        **more,
    }
