"""Read gzip files: several members one after another, and zero bytes behind them, as tape tools write them."""

from __future__ import annotations

import zlib
from typing import Any

_CHUNK = 1 << 18
_MAGIC = 0x1F  # the first byte of a member


class GzipError(Exception):
    """The file is not gzip, damaged or truncated. Names the place."""


class GzipReader:
    """The content of a gzip file, decompressed block by block.

    Arrow's reader refuses zero bytes behind the last member, and does not say where other bytes are.

    Args:
        file: The compressed file, open for reading.
    """

    def __init__(self, file: Any) -> None:
        self._file = file
        self._input = b""
        self._members = 0
        self._member: Any = None

    def read(self, size: int | None = None) -> bytes:
        """Return up to `size` bytes, by default everything; b"" at the end.

        Raises:
            GzipError: When the file is damaged or truncated, or has something else behind its end.
        """
        if size is None:
            return b"".join(iter(lambda: self.read(_CHUNK), b""))
        block = b""
        while size and not block and (self._member is not None or self._begin()):
            try:
                block = self._member.decompress(self._input, size)
            except zlib.error as error:
                raise GzipError(f"{error}, before byte {self._file.tell():,}") from None
            self._input = self._member.unconsumed_tail
            if self._member.eof:
                self._input, self._member = self._member.unused_data, None
                self._members += 1
            elif not block and not self._input and not self._fill():
                raise GzipError(f"it ends at byte {self._file.tell():,}, in the middle of its content")
        return block

    def _begin(self) -> bool:
        """Go on to the next member; false if there is none."""
        while self._input or self._fill():
            if self._members:
                self._input = self._input.lstrip(b"\0")
            if self._members and self._input and self._input[0] != _MAGIC:
                place = self._file.tell() - len(self._input)
                raise GzipError(f"from byte {place:,} on there is something else behind it. Remove that")
            if self._input:
                self._member = zlib.decompressobj(zlib.MAX_WBITS | 16)
                return True
        return False

    def _fill(self) -> bool:
        self._input = self._file.read(_CHUNK)
        return bool(self._input)
