"""Breakpoints of the prompt cache: `cache_control` that requests get while they are sent, and not in their files.

A breakpoint is the same for all requests of a file: they share the part of their params up to it, byte for byte.
So the request files, and the digests of the requests, are the same with a breakpoint and without.
"""

from __future__ import annotations

from hashlib import blake2b

from pydantic import BaseModel, ConfigDict

from batch_assets.core.errors import DamagedFileError
from batch_assets.core.ledger.records import RequestFile
from batch_assets.core.store.request_lines import params_start

CACHE_CONTROL = ',"cache_control":{"type":"ephemeral","ttl":"1h"}'
"""What a block gets at its end."""
BLOCK_STARTS, BLOCK_ENDS = '[{"type":"text","text":', f"{CACHE_CONTROL}}}]"
"""What comes before and after a text that becomes a block with a breakpoint."""
MOST_BYTES_ADDED = len(BLOCK_STARTS) + len(BLOCK_ENDS)
"""The most bytes that a request grows by."""
_LINE_END = b"}"
_CHECKSUM_BYTES = 16


class Insert(BaseModel):
    """A text that is inserted into the params of each request.

    Attributes:
        at: The position in bytes. Negative: from the end.
        text: The text.
    """

    model_config = ConfigDict(frozen=True, strict=True)

    at: int
    text: str


class Breakpoint(BaseModel):
    """Where requests get a breakpoint.

    Attributes:
        inserts: What is inserted, in the order of the positions, which all have the same sign.
        shared: How many bytes the params of all requests share: at the start, or at the end if it is negative.
        checksum: A checksum of these bytes.
        tokens: The tokens of the prompt up to the breakpoint, about.
    """

    model_config = ConfigDict(frozen=True, strict=True)

    inserts: list[Insert]
    shared: int
    checksum: str
    tokens: int

    @classmethod
    def of(cls, file: RequestFile) -> Breakpoint | None:
        """Return the breakpoint of a request file."""
        return cls.model_validate_json(file.breakpoint) if file.breakpoint is not None else None

    @property
    def bytes_added(self) -> int:
        """The bytes that each request grows by."""
        return sum(len(insert.text.encode()) for insert in self.inserts)


def checksum_of(shared: bytes) -> str:
    """Return the checksum of the bytes that requests share."""
    return blake2b(shared, digest_size=_CHECKSUM_BYTES).hexdigest()


class BreakpointWriter:
    """Inserts a breakpoint into the lines of a request file, chunk by chunk, and joins them as an HTTP body does.

    Args:
        breakpoint: The breakpoint.
    """

    def __init__(self, breakpoint: Breakpoint) -> None:
        self._breakpoint = breakpoint
        self._inserts = [(insert.at, insert.text.encode()) for insert in breakpoint.inserts]
        self._shared: bytes | None = None
        self._begun: list[bytes] = []
        self._separator = b""

    def written(self, chunk: bytes) -> bytes:
        """Return what the lines that end in a chunk become in the body.

        Args:
            chunk: The next bytes of the file.

        Raises:
            DamagedFileError: When a request does not share what the breakpoint was made for.
        """
        first, *more = chunk.split(b"\n")
        self._begun.append(first)
        pieces: list[bytes] = []
        for begun in more:
            pieces += [self._separator, self.with_breakpoint(b"".join(self._begun))]
            self._separator = b","
            self._begun = [begun]
        return b"".join(pieces)

    def with_breakpoint(self, line: bytes) -> bytes:
        """Return a line, without its newline, with the breakpoint.

        Raises:
            DamagedFileError: When the request does not share what the breakpoint was made for.
        """
        start, end = params_start(line), len(line) - len(_LINE_END)
        if start < 0 or not self._is_shared(line, start, end):
            raise DamagedFileError("a request does not begin as the breakpoint of the prompt cache needs")
        pieces, last = [], 0
        for at, text in self._inserts:
            position = start + at if at >= 0 else end + at
            pieces += [line[last:position], text]
            last = position
        return b"".join([*pieces, line[last:]])

    def _is_shared(self, line: bytes, start: int, end: int) -> bool:
        """Whether a line has the bytes that all requests share. The first line shows them."""
        shared = self._breakpoint.shared
        place = (start, start + shared) if shared >= 0 else (end + shared, end)
        if place[0] < start or place[1] > end:
            return False
        if self._shared is None:
            first = line[place[0] : place[1]]
            if checksum_of(first) != self._breakpoint.checksum:
                return False
            self._shared = first
        return line.startswith(self._shared, place[0])
