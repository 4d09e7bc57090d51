"""Split the body of a create call into its requests, without holding all of them as Python objects.

The body stays in its file. The result is the position and length of each request. A body is read at most twice.
Bodies in the layout that clients write (`{"requests":[{"custom_id":…`) are cut at the raw bytes `{"custom_id":`,
which cannot occur inside a string of valid JSON, because a quote in a string is escaped. For any other layout a
scanner follows the quotes and brackets. In both cases each piece is parsed and the bytes between pieces are
checked, so a body is accepted if and only if it is valid JSON of the right shape.

The texts of the refusals follow public recordings of the API, and so does their time: before the create call is
answered.
"""

from __future__ import annotations

import mmap
import re
from array import array
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from batch_assets.emulator.wire import HttpError

MAX_REQUESTS = 100_000
"""The largest number of requests in one batch, from the batch guide."""
MAX_BODY_BYTES = 256_000_000
"""The largest create body in bytes. The batch guide says 256 MB, read here as decimal megabytes."""

_MARK = b'{"custom_id":'
_HEAD = re.compile(rb'[ \t\n\r]*\{[ \t\n\r]*"requests"[ \t\n\r]*:[ \t\n\r]*\[[ \t\n\r]*(?=\{"custom_id":)')
_TAIL = re.compile(rb"\][ \t\n\r]*\}[ \t\n\r]*")
_SPACE = re.compile(rb"[ \t\n\r]*")
_NESTING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[{}\[\],]', re.DOTALL)
_CUSTOM_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_RELEASE_EVERY = 32 * 1024 * 1024

Judge = Callable[[str, dict[str, Any]], int]
"""A function from a request's custom_id and params to the outcome code that the index stores."""
Piece = tuple[int, int, Any]
"""One element of `requests`: the position of its first byte, the position after its last, the parsed value."""


@dataclass(frozen=True)
class BodyIndex:
    """The positions of the requests in a body.

    Attributes:
        offsets: The position of each request in bytes, uint64.
        lengths: The length of each request in bytes, uint32.
        outcomes: The outcome code of each request, one byte each.
    """

    offsets: array[int]
    lengths: array[int]
    outcomes: bytes

    def __len__(self) -> int:
        return len(self.offsets)


class _OtherLayoutError(Exception):
    """The body does not have the usual layout. It may still be valid."""


def index_body(path: Path, judge: Judge, *, max_requests: int = MAX_REQUESTS) -> BodyIndex:
    """Index a create body.

    Args:
        path: The file with the body.
        judge: Called with the custom_id and params of each request. Returns its outcome code.
        max_requests: The largest number of requests.

    Raises:
        HttpError: 400, with the API's text, when the body is not valid JSON, does not have the right shape, has
            too many requests, or has a missing, malformed or repeated custom_id.
    """
    if path.stat().st_size == 0:
        raise _not_json("unexpected end of data", 0)
    with path.open("rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    try:
        return _build_index(data, _usual_pieces(data), judge, max_requests)
    except _OtherLayoutError:
        return _build_index(data, _scanned_pieces(data), judge, max_requests)


def _build_index(data: mmap.mmap, pieces: Iterator[Piece], judge: Judge, max_requests: int) -> BodyIndex:
    offsets, lengths, outcomes = array("Q"), array("I"), bytearray()
    custom_ids: set[str] = set()
    refusal: str | None = None
    released = count = 0
    for start, end, request in pieces:
        count += 1
        # After a refusal the remaining requests are still read, because invalid JSON takes precedence.
        if refusal is None and count <= max_requests:
            refusal = _refusal(request, count - 1, custom_ids)
            if refusal is None:
                offsets.append(start)
                lengths.append(end - start)
                outcomes.append(judge(request["custom_id"], request["params"]))
        if start - released > _RELEASE_EVERY:
            data.madvise(mmap.MADV_DONTNEED, 0, start - start % mmap.PAGESIZE)
            released = start
    if count == 0:
        refusal = "requests: List should have at least 1 item after validation, not 0"
    elif count > max_requests:
        refusal = f"requests: List should have at most {max_requests} items after validation, not {count}"
    if refusal is not None:
        raise HttpError(400, refusal)
    return BodyIndex(offsets, lengths, bytes(outcomes))


def _refusal(request: Any, at: int, custom_ids: set[str]) -> str | None:
    if not isinstance(request, dict):
        return f"requests.{at}: Input should be a valid dictionary or object to extract fields from"
    custom_id = request.get("custom_id")
    if not isinstance(custom_id, str):
        problem = "Input should be a valid string" if "custom_id" in request else "Field required"
        return f"requests.{at}.custom_id: {problem}"
    if _CUSTOM_ID.fullmatch(custom_id) is None:
        if len(custom_id) > 64:
            return f"requests.{at}.custom_id: String should have at most 64 characters"
        return f"requests.{at}.custom_id: String should match pattern '^[a-zA-Z0-9_-]{{1,64}}$'"
    if not isinstance(request.get("params"), dict):
        problem = "Input should be a valid dictionary" if "params" in request else "Field required"
        return f"requests.{at}.params: {problem}"
    if len(request) > 2:
        extra = next(key for key in request if key not in ("custom_id", "params"))
        return f"requests.{at}.{extra}: Extra inputs are not permitted"
    custom_ids.add(custom_id)
    if len(custom_ids) == at:
        return f"requests: custom_id's must be unique within a batch. Duplicate custom_id found: {custom_id}"
    return None


def _not_json(reason: str, at: int) -> HttpError:
    return HttpError(400, f"The request body is not valid JSON: {reason}: char {at}")


def _usual_pieces(data: mmap.mmap) -> Iterator[Piece]:
    head = _HEAD.match(data)
    if head is None:
        raise _OtherLayoutError
    start = head.end()
    while (following := data.find(_MARK, start + 1)) >= 0:
        if data[following - 1] == 0x2C:  # ,
            end = following - 1
        elif data[following - 2 : following] == b", ":
            end = following - 2
        else:
            raise _OtherLayoutError
        yield start, end, _load_usual(data, start, end)
        start = following
    end = data.rfind(b"]")
    if end < start or _TAIL.fullmatch(data, end) is None:
        raise _OtherLayoutError
    yield start, end, _load_usual(data, start, end)


def _load_usual(data: mmap.mmap, start: int, end: int) -> Any:
    try:
        return orjson.loads(data[start:end])
    except orjson.JSONDecodeError:  # cut at a nested object that begins with custom_id, or not JSON at all
        raise _OtherLayoutError from None


def _scanned_pieces(data: mmap.mmap) -> Iterator[Piece]:
    at = _skip(data, 0)
    if data[at : at + 1] != b"{":
        _load(data, at, len(data))
        raise HttpError(400, "Input should be a valid dictionary or object to extract fields from")
    at, has_requests, extra = _skip(data, at + 1), False, None
    if data[at : at + 1] == b"}":
        at += 1
    else:
        while True:
            key_end = _value_end(data, at)
            key = _load(data, at, key_end)
            at = _skip(data, _expect(data, _skip(data, key_end), b":"))
            if key == "requests" and data[at : at + 1] == b"[":
                at, has_requests = (yield from _array_pieces(data, at)), True
            elif isinstance(key, str):
                end = _value_end(data, at)
                _load(data, at, end)
                wrong = "Input should be a valid list" if key == "requests" else "Extra inputs are not permitted"
                extra = extra or f"{key}: {wrong}"
                at, has_requests = end, has_requests or key == "requests"
            else:
                raise _not_json("object key is not a string", at)
            at = _skip(data, at)
            if data[at : at + 1] == b"}":
                at += 1
                break
            at = _skip(data, _expect(data, at, b","))
    if _skip(data, at) != len(data):
        raise _not_json("unexpected content after document", at)
    if not has_requests:
        raise HttpError(400, "requests: Field required")
    if extra is not None:
        raise HttpError(400, extra)


def _array_pieces(data: mmap.mmap, at: int) -> Generator[Piece, None, int]:
    """Yield the elements of the array that opens at `at`, and return the position after the array."""
    at = _skip(data, at + 1)
    if data[at : at + 1] == b"]":
        return at + 1
    while True:
        end = _value_end(data, at)
        yield at, end, _load(data, at, end)
        at = _skip(data, end)
        if data[at : at + 1] == b"]":
            return at + 1
        at = _skip(data, _expect(data, at, b","))


def _skip(data: mmap.mmap, at: int) -> int:
    space = _SPACE.match(data, at)
    assert space is not None
    return space.end()


def _expect(data: mmap.mmap, at: int, byte: bytes) -> int:
    if data[at : at + 1] != byte:
        raise _not_json(f"expected {byte.decode()}", at)
    return at + 1


def _load(data: mmap.mmap, start: int, end: int) -> Any:
    try:
        return orjson.loads(data[start:end])
    except orjson.JSONDecodeError as error:
        raise _not_json(error.msg, start + error.pos) from None


def _value_end(data: mmap.mmap, start: int) -> int:
    """Find the position after the JSON value at `start` by its nesting alone. The value itself is not checked."""
    depth = 0
    for token in _NESTING.finditer(data, start):
        byte = data[token.start()]
        if byte in b"{[":
            depth += 1
        elif byte in b"}]":
            depth -= 1
            if depth <= 0:
                return token.end() if depth == 0 else token.start()
        elif depth == 0:  # the value is a string, or a number or literal that ends at this comma
            return token.end() if byte == 0x22 else token.start()
    raise _not_json("unexpected end of data", len(data))
