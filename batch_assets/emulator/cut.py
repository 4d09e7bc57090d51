"""Truncated downloads of results, ended in each way in which a download can break off."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any

from starlette.concurrency import run_in_threadpool
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from batch_assets.emulator.connection import Connection

_CHUNK = 256 * 1024


class CutResponse(Response):
    """A 200 answer with a truncated body.

    Args:
        pieces: The whole body.
        truncate: Where to cut it; see `faults.ACTIONS`.
        ending: How to end the answer; see `faults.ENDINGS`.
        headers: The headers of the answer.
        before: Called with a file that has the whole body, and the bytes of it that are sent, before they are.
    """

    def __init__(
        self,
        pieces: Iterator[bytes],
        truncate: Mapping[str, Any],
        ending: str,
        headers: Mapping[str, str],
        before: Callable[[IO[bytes], int], None],
    ) -> None:
        super().__init__(headers=dict(headers))
        del self.headers["content-length"]
        self._pieces, self._truncate, self._ending, self._before = pieces, truncate, ending, before

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        connection = Connection.of(scope)
        with tempfile.TemporaryFile() as file:
            total, size = await run_in_threadpool(_measure, self._pieces, file, self._truncate)
            await run_in_threadpool(self._before, file, size)
            file.seek(0)
            if self._ending == "content_length":
                self.headers["content-length"] = str(total)
            if self._ending == "clean":
                await connection.write(self._raw_head())
            else:
                await send(
                    {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
                )
            while size and (piece := file.read(min(_CHUNK, size))):
                size -= len(piece)
                if self._ending == "clean":
                    await connection.write(piece)
                else:
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
        if self._ending == "chunked":
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        else:
            await connection.drop(receive, reset=self._ending == "reset")

    def _raw_head(self) -> bytes:
        lines = [b"HTTP/1.1 200 OK", b"connection: close"]
        lines += [name + b": " + value for name, value in self.raw_headers]
        return b"\r\n".join(lines) + b"\r\n\r\n"


def _measure(pieces: Iterator[bytes], file: IO[bytes], truncate: Mapping[str, Any]) -> tuple[int, int]:
    """Write the whole body to a file.

    Returns:
        The size of the body, and the size to truncate it to.
    """
    for piece in pieces:
        file.write(piece)
    total = file.tell()
    size = total
    if "lines" in truncate:
        file.seek(0)
        size = sum(len(file.readline()) for _ in range(truncate["lines"]))
    elif "bytes" in truncate:
        size = min(total, truncate["bytes"])
    elif "fraction" in truncate:
        size = int(total * truncate["fraction"])
    if truncate.get("at_line_end"):
        file.seek(0)
        size = file.read(size).rfind(b"\n") + 1
    return total, size
