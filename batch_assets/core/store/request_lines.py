"""Lines of request files and of results. Each begins with `{"custom_id":…`, so the rest need not be parsed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from batch_assets.core.store.digests import DIGEST_CHARACTERS, with_mark

HEAD, TAIL = b'{"requests":[', b"]}"
"""The start and the end of an HTTP body, around its lines."""

_LINE_START, _LINE_MIDDLE, _LINE_END = b'{"custom_id":"', b'","params":', b"}\n"
_CHUNK = 1 << 20
WINDOW = len(_LINE_START) + 64 + 1
"""The number of bytes from the start of a line up to the quote after the longest custom_id of 64 characters."""

NO_TAIL = b"\0" * DIGEST_CHARACTERS
"""The tail of a line without a custom_id."""

_QUOTE, _NEWLINE, _BRACE = b'"\n}'


def make_lines(custom_ids: Iterable[bytes], params: Iterable[bytes]) -> list[bytes]:
    """Return the lines of a request file."""
    return [
        b'{"custom_id":"%b","params":%b}\n' % (custom_id, body)
        for custom_id, body in zip(custom_ids, params, strict=True)
    ]


def line_bytes(custom_id: bytes, params: bytes) -> int:
    """Return the size of a line, with its newline."""
    return len(_LINE_START) + len(custom_id) + len(_LINE_MIDDLE) + len(params) + len(_LINE_END)


def params_of(text: bytes) -> bytes:
    """Return the exact params bytes of a line that this project wrote."""
    return text[text.index(_LINE_MIDDLE) + len(_LINE_MIDDLE) :].removesuffix(_LINE_END)


def params_start(text: bytes) -> int:
    """Return the position of the params in a line that this project wrote; -1 in any other."""
    middle = text.find(_LINE_MIDDLE)
    return middle + len(_LINE_MIDDLE) if middle >= 0 else -1


def body_bytes(file_bytes: int) -> int:
    """Return the size of the HTTP body that a request file becomes. The file's last newline is not sent."""
    return len(HEAD) + file_bytes - 1 + len(TAIL)


def custom_id_of(text: bytes) -> str | None:
    """Return the custom_id of a line that this project wrote; `None` for any other line."""
    end = text.find(b'"', len(_LINE_START))
    if end < 0 or not text.startswith(_LINE_START) or not text[:end].isascii():
        return None
    return text[len(_LINE_START) : end].decode()


def line_with_mark(text: bytes, mark: str) -> bytes:
    """Return an intact line of a request file with the mark of the root in its custom_id."""
    end = text.index(b'"', len(_LINE_START))
    return _LINE_START + with_mark(text[len(_LINE_START) : end].decode(), mark).encode() + text[end:]


@dataclass(frozen=True)
class Scan:
    """The n lines of a file of requests or results.

    Attributes:
        ends: int64, shape (n,): the offset after each line and its newline. Only `\\n` ends a line, because U+2028
            and similar characters may occur within strings.
        tails: S22, shape (n,): the last 22 characters of each custom_id; zeros if there is none.
        remainder: The bytes after the last newline.
    """

    ends: NDArray[np.int64]
    tails: NDArray[np.bytes_]
    remainder: bytes

    @property
    def starts(self) -> NDArray[np.int64]:
        """The offset of each line: int64, shape (n,)."""
        return np.concatenate([[0], self.ends[:-1]]) if len(self.ends) else self.ends


class Readable(Protocol):
    """What `scan` needs of a file."""

    def read(self, size: int, /) -> bytes: ...


def scan(file: Readable, tail_of: Callable[[bytes], bytes]) -> Scan:
    """Find the lines of a file and their custom_ids.

    Args:
        file: The file.
        tail_of: Returns the tail of a line that does not have the usual form of this project and the API.
    """
    ends: list[NDArray[np.int64]] = []
    tails: list[NDArray[np.bytes_]] = []
    offset = 0
    remainder: list[bytes] = []
    while chunk := file.read(_CHUNK):
        last = chunk.rfind(b"\n") + 1
        if not last:
            remainder.append(chunk)
            continue
        block, remainder = b"".join([*remainder, chunk[:last]]), [chunk[last:]]
        block_ends = np.flatnonzero(np.frombuffer(block, dtype=np.uint8) == _NEWLINE) + 1
        tails.append(_tails(block, block_ends, tail_of))
        ends.append(block_ends + offset)
        offset += len(block)
    if not ends:
        return Scan(np.empty(0, dtype=np.int64), np.empty(0, dtype=f"S{DIGEST_CHARACTERS}"), b"".join(remainder))
    return Scan(np.concatenate(ends), np.concatenate(tails), b"".join(remainder))


def _tails(block: bytes, ends: NDArray[np.int64], tail_of: Callable[[bytes], bytes]) -> NDArray[np.bytes_]:
    """The tails of the lines in a block that ends with a newline: S22, shape (n,).

    Args:
        block: The block.
        ends: int64, shape (n,): the offset after each line in the block.
        tail_of: See `scan`.
    """
    starts = np.concatenate([[0], ends[:-1]])
    padded = np.frombuffer(block + bytes(WINDOW), dtype=np.uint8)
    heads = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[starts]
    size = len(_LINE_START)
    is_usual = (heads[:, :size] == np.frombuffer(_LINE_START, dtype=np.uint8)).all(axis=1)
    is_usual &= padded[np.maximum(ends - 2, starts)] == _BRACE
    quotes = heads[:, size:] == _QUOTE
    quote = quotes.argmax(axis=1)
    is_usual &= quotes.any(axis=1) & (quote >= DIGEST_CHARACTERS)
    # The offset of each tail. In a line without the usual form it is the line's start, and the tail is set below.
    first = starts + np.where(is_usual, size + quote - DIGEST_CHARACTERS, 0)
    characters = np.lib.stride_tricks.sliding_window_view(padded, DIGEST_CHARACTERS)[first]
    tails: NDArray[np.bytes_] = characters.view(f"S{DIGEST_CHARACTERS}").reshape(len(ends))
    for number in np.flatnonzero(~is_usual).tolist():
        tails[number] = tail_of(block[starts[number] : ends[number]])
    return tails


def own_tail(text: bytes) -> bytes:
    """Return the last 22 characters of the custom_id of a line that this project wrote; zeros for any other line.

    A line that was damaged on disk must not hide the others.
    """
    if not text.startswith(_LINE_START) or not text.endswith(_LINE_END):
        return NO_TAIL
    end = text.find(b'"', len(_LINE_START), WINDOW)
    is_long = end >= len(_LINE_START) + DIGEST_CHARACTERS
    return text[end - DIGEST_CHARACTERS : end] if is_long else NO_TAIL
