"""A CSV file in which an escape character escapes nothing but what has a meaning; elsewhere it is text.

Arrow removes each escape character, so that `C:\\new` would become `C:new`. Programs that write such files escape
quotes and escape characters alone. So an escape character before anything without a meaning is doubled for Arrow.
"""

from __future__ import annotations

import io
import re
from typing import BinaryIO

from batch_assets.core.dataset.csv_dialect import Dialect


class LiteralEscapes(io.RawIOBase):
    """The content of a file with an escape character, as Arrow has to see it.

    Args:
        file: The content.
        dialect: How the file is written, with an escape character.
    """

    def __init__(self, file: BinaryIO, dialect: Dialect) -> None:
        self._file, self._escape = file, dialect.escape
        escape = re.escape(dialect.escape)
        with_meaning = b"[\r\n" + escape + re.escape(dialect.quote) + re.escape(dialect.delimiter) + b"]"
        self._escapes = re.compile(escape + b"(" + with_meaning + b")?")
        # An escape character at the end of a block, and content for the next read.
        self._open, self._ready = b"", b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        """Return `size` bytes, by default everything; less only at the end."""
        if size < 0:
            return self._ready + self._literal(self._file.read()) + self._literal(b"")
        while len(self._ready) < size:
            block = self._file.read(size)
            self._ready += self._literal(block)
            if not block:
                break
        content, self._ready = self._ready[:size], self._ready[size:]
        return content

    def _literal(self, block: bytes) -> bytes:
        """The next content; b"" at the end, where an open escape character comes before it."""
        is_end, block = not block, self._open + block
        # The first of a run of escape characters is not escaped. So the last of an odd number is open.
        run = len(block) - len(block.rstrip(self._escape))
        self._open = self._escape if run % 2 and not is_end else b""
        block = block.removesuffix(self._open)
        return self._escapes.sub(lambda match: match[0] if match[1] else 2 * self._escape, block)
