"""Bodies of the API's answers: decoded piece by piece, and never more or for longer than an answer can take.

A few kilobytes of gzip can hold gigabytes. The SDK reads the body of an error as a whole, and its transport
decodes only the first member of gzip. So each body is wrapped before either of them reads it.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

import httpx2

# A page of 1,000 batches is smaller than 1 MiB. Errors are a sentence.
ANSWER_BYTES, ERROR_BYTES = 64 << 20, 256 << 10
# The timeout of a call applies to each piece, so a server that sends a byte now and then would hold it for days.
ANSWER_SECONDS = 120.0
_MOST_CODINGS = 3
_PIECE = 1 << 18  # the most bytes that are decoded at a time
_GZIP, _ZLIB, _RAW = zlib.MAX_WBITS | 16, zlib.MAX_WBITS, -zlib.MAX_WBITS


def bound(response: httpx2.Response, *, is_download: bool) -> None:
    """Wrap the body of a response that was not read yet.

    The body of an error is cut at `ERROR_BYTES` and after `ANSWER_SECONDS`. Any other body that is larger than
    `ANSWER_BYTES`, or takes longer, is an error of the transport, except the results of a batch.

    Args:
        response: The response.
        is_download: Whether the body holds the results of a batch, if it is no error.
    """
    codings = [name.strip().lower() for name in response.headers.get("content-encoding", "").split(",")]
    for name in ("content-encoding", "content-length"):  # the body that is read has neither
        if name in response.headers:
            del response.headers[name]
    is_error = not response.is_success
    most = ERROR_BYTES if is_error else None if is_download else ANSWER_BYTES
    stream: Any = response.stream
    response.stream = _Body(stream, [name for name in codings if name not in ("", "identity")], most, is_error)


class _TooSlowError(httpx2.DecodingError):
    """The body takes longer than an answer can take."""


class _Body(httpx2.SyncByteStream):
    """The decoded body of a response."""

    def __init__(self, source: Any, codings: list[str], most: int | None, is_error: bool) -> None:
        self._source, self._codings, self._most, self._is_error = source, codings, most, is_error

    def __iter__(self) -> Iterator[bytes]:
        if len(self._codings) > _MOST_CODINGS:
            raise httpx2.DecodingError(f"the answer is encoded {len(self._codings)} times")
        try:
            yield from self._bounded()
        except _TooSlowError:
            if not self._is_error:
                raise

    def _bounded(self) -> Iterator[bytes]:
        end = None if self._most is None else time.monotonic() + ANSWER_SECONDS
        content = _until(end, self._source)
        for coding in reversed(self._codings):
            content = _until(end, _decoded(content, coding))
        size = 0
        for piece in content:
            size += len(piece)
            if self._most is None or size <= self._most:
                yield piece
            elif self._is_error:
                yield piece[: len(piece) - (size - self._most)]
                return
            else:
                raise httpx2.DecodingError(f"the answer is larger than {self._most >> 20} MiB")

    def close(self) -> None:
        self._source.close()


def _until(end: float | None, content: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the pieces of a body until a time of the monotonic clock; all of them if it is `None`.

    This is done before each decoder as well as after it, because one may read for hours and return nothing.
    """
    for piece in content:
        if end is not None and time.monotonic() > end:
            raise _TooSlowError(f"the answer takes longer than {ANSWER_SECONDS:.0f} seconds")
        yield piece


def _decoded(content: Iterable[bytes], coding: str) -> Iterator[bytes]:
    """Decode a body, also one of several gzip members, at most `_PIECE` bytes at a time."""
    if coding not in ("gzip", "x-gzip", "deflate"):
        raise httpx2.DecodingError(f"the answer has the encoding {coding[:40]!r}, which was not asked for")
    form = _ZLIB if coding == "deflate" else _GZIP
    decoder, has_begun = zlib.decompressobj(form), False
    for chunk in content:
        data = chunk
        while data:
            if not has_begun and form == _ZLIB and data[0] & 0x0F != zlib.DEFLATED:
                form, decoder = _RAW, zlib.decompressobj(_RAW)
            has_begun = True
            try:
                piece = decoder.decompress(data, _PIECE)
            except zlib.error as error:
                raise httpx2.DecodingError(f"the answer cannot be decoded: {error}") from None
            if piece:
                yield piece
            data = decoder.unconsumed_tail
            if decoder.eof:  # the next member begins, or zeros fill the rest
                data, decoder, has_begun = decoder.unused_data.lstrip(b"\0"), zlib.decompressobj(form), False
    while has_begun and (piece := decoder.decompress(decoder.unconsumed_tail, _PIECE)):
        yield piece
    if has_begun and not decoder.eof:
        raise httpx2.DecodingError("the answer broke off in the middle of its compressed body")
