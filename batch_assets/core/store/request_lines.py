"""Lines of request files and of results: one `{"custom_id":…` a line, found without parsing what follows."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from batch_assets.core.store.digests import DIGEST_CHARACTERS

HEAD, TAIL = b'{"requests":[', b"]}"
"""What a body has around its lines."""

_LINE_START, _LINE_MIDDLE, _LINE_END = b'{"custom_id":"', b'","params":', b"}\n"
_CHUNK = 1 << 20
WINDOW = len(_LINE_START) + 64 + 1
"""Bytes from the start of a line that hold its custom_id: of 64 characters at most, and a quote ends it."""

_QUOTE, _NEWLINE, _BRACE = b'"\n}'


def make_lines(custom_ids: Iterable[bytes], params: Iterable[bytes]) -> list[bytes]:
    """The lines of a request file."""
    return [
        b'{"custom_id":"%b","params":%b}\n' % (custom_id, body)
        for custom_id, body in zip(custom_ids, params, strict=True)
    ]


def params_of(text: bytes) -> bytes:
    """The params of a line that this project wrote, as they are sent."""
    return text[text.index(_LINE_MIDDLE) + len(_LINE_MIDDLE) :].removesuffix(_LINE_END)


def body_bytes(file_bytes: int) -> int:
    """Size of the HTTP body that a request file becomes: its last newline is not sent."""
    return len(HEAD) + file_bytes - 1 + len(TAIL)


def custom_id_of(text: bytes) -> str:
    """The custom_id of a line that this project wrote."""
    end = text.index(b'"', len(_LINE_START))
    return text[len(_LINE_START) : end].decode()


@dataclass(frozen=True)
class Scan:
    """The lines of a file that begin with their custom_id.

    Attributes:
        ends: int64, one a line: offset behind it, its newline included. Only `\\n` ends a line: U+2028 and
            its like are inside strings.
        tails: S22, one a line: the last 22 characters of its custom_id; zeros where there is none.
        rest: what follows the last newline.
    """

    ends: NDArray[np.int64]
    tails: NDArray[np.bytes_]
    rest: bytes

    @property
    def starts(self) -> NDArray[np.int64]:
        return np.concatenate([[0], self.ends[:-1]]) if len(self.ends) else self.ends


def scan(file: BinaryIO, tail_of: Callable[[bytes], bytes]) -> Scan:
    """Finds the lines of a file and their custom_ids.

    Args:
        tail_of: gives the tail of a line that is not written as this project and the API write it.
    """
    ends: list[NDArray[np.int64]] = []
    tails: list[NDArray[np.bytes_]] = []
    offset = 0
    rest: list[bytes] = []
    while chunk := file.read(_CHUNK):
        last = chunk.rfind(b"\n") + 1
        if not last:
            rest.append(chunk)
            continue
        block, rest = b"".join([*rest, chunk[:last]]), [chunk[last:]]
        found = np.flatnonzero(np.frombuffer(block, dtype=np.uint8) == _NEWLINE) + 1
        tails.append(_tails(block, found, tail_of))
        ends.append(found + offset)
        offset += len(block)
    if not ends:
        return Scan(np.empty(0, dtype=np.int64), np.empty(0, dtype=f"S{DIGEST_CHARACTERS}"), b"".join(rest))
    return Scan(np.concatenate(ends), np.concatenate(tails), b"".join(rest))


def _tails(block: bytes, ends: NDArray[np.int64], tail_of: Callable[[bytes], bytes]) -> NDArray[np.bytes_]:
    """The tails of the lines in a block that ends with a newline."""
    starts = np.concatenate([[0], ends[:-1]])
    padded = np.frombuffer(block + bytes(WINDOW), dtype=np.uint8)
    heads = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[starts]
    size = len(_LINE_START)
    usual = (heads[:, :size] == np.frombuffer(_LINE_START, dtype=np.uint8)).all(axis=1)
    usual &= padded[np.maximum(ends - 2, starts)] == _BRACE
    quotes = heads[:, size:] == _QUOTE
    quote = quotes.argmax(axis=1)
    usual &= quotes.any(axis=1) & (quote >= DIGEST_CHARACTERS)
    # Where the tail begins; at 0, and replaced below, in a line that is not the usual one.
    first = starts + np.where(usual, size + quote - DIGEST_CHARACTERS, 0)
    found = np.lib.stride_tricks.sliding_window_view(padded, DIGEST_CHARACTERS)[first]
    tails: NDArray[np.bytes_] = found.view(f"S{DIGEST_CHARACTERS}").reshape(len(ends))
    for line_ in np.flatnonzero(~usual).tolist():
        tails[line_] = tail_of(block[starts[line_] : ends[line_]])
    return tails


def own_tail(text: bytes) -> bytes:
    """The last 22 characters of the custom_id of a line that this project wrote."""
    return custom_id_of(text)[-DIGEST_CHARACTERS:].encode()
