"""Open a CSV file: decompressed, in UTF-8, and without what comes before the header."""

from __future__ import annotations

import codecs
import io
import re
from dataclasses import dataclass
from typing import BinaryIO, cast

from batch_assets.core.dataset.bounds import LINE_BYTES, long_line
from batch_assets.core.dataset.data_file import DataFile
from batch_assets.core.dataset.foreign_content import foreign_content
from batch_assets.core.dataset.transcode import as_utf8, utf16_of
from batch_assets.core.errors import DatasetError
from batch_assets.core.io.encodings import check_encoding
from batch_assets.core.pipeline.dataset import CsvConfig

_BLOCK_BYTES = 1 << 16
_HEAD_BYTES = 4096
_LINE_END = re.compile(rb"\r\n|\n|\r")
# A first line in which spreadsheets write the delimiter.
_SEPARATOR = re.compile(rb'"?sep=([^\r\n])"?(?:\r\n|\r|\n)', re.IGNORECASE)


@dataclass(frozen=True)
class OpenedCsv:
    """An open CSV file.

    Attributes:
        file: The content in UTF-8, from the header on.
        delimiter: The character between fields.
        first_line: The number of the first line of `file`, from 1.
    """

    file: BinaryIO
    delimiter: bytes
    first_line: int


def open_csv(data: DataFile, options: CsvConfig, *, marks: bool = False) -> OpenedCsv:
    """Open a CSV file.

    Args:
        data: The file.
        options: The format.
        marks: See `as_utf8`.

    Raises:
        DatasetError: When the content is plainly in another encoding or no text, or has fewer lines than are to be
            left out.
    """
    raw = _Peeked(data.open())
    head = raw.peek(_HEAD_BYTES)
    if (problem := foreign_content(head, data.ending)) is not None:
        raw.close()
        raise DatasetError(f"{data.name}: {problem}")
    encoding, detected = check_encoding(options.encoding), utf16_of(head)
    if encoding in ("utf-8", "utf-8-sig") and detected is not None:
        raw.close()
        raise DatasetError(
            f"{data.name}: the header is not valid UTF-8: line 1: the file is {detected.upper()}; name its "
            f"encoding, such as dataset.csv: {{encoding: {detected}}}"
        )
    if encoding == "utf-16" and detected is not None:
        encoding = detected  # Python takes a file without a byte order mark for the machine's own order
    text = _Peeked(as_utf8(cast(BinaryIO, raw), encoding, data.name, marks=marks))
    text.drop_prefix(codecs.BOM_UTF8)
    lines = 0
    for _ in range(options.skip):
        lines += text.drop_line(data.name, lines + 1)
    if 0 < lines < options.skip:
        text.close()
        raise DatasetError(f"{data.name}: dataset.csv.skip is {options.skip}, but the file has only {lines} lines")
    delimiter = (options.delimiter or ("\t" if data.plain_name.endswith(".tsv") else ",")).encode()
    if (match := _SEPARATOR.match(text.peek(_HEAD_BYTES))) is not None:
        text.drop_prefix(match[0])
        lines += 1
        delimiter = delimiter if options.delimiter else match[1]
    return OpenedCsv(cast(BinaryIO, text), delimiter, lines + 1)


class _Peeked(io.RawIOBase):
    """A file whose beginning can be looked at before it is read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._head = file, bytearray()

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        """Return up to `size` bytes, by default everything; b"" at the end."""
        if not self._head or size < 0:
            content = bytes(self._head) + self._file.read(size)
            self._head.clear()
            return content
        content = bytes(self._head[:size])
        del self._head[:size]
        return content

    def peek(self, size: int) -> bytes:
        """Return the next bytes without removing them; fewer at the end."""
        while len(self._head) < size and (block := self._file.read(_BLOCK_BYTES)):
            self._head += block
        return bytes(self._head[:size])

    def drop_prefix(self, prefix: bytes) -> None:
        """Remove some bytes if they come next."""
        if self.peek(len(prefix)) == prefix:
            del self._head[: len(prefix)]

    def drop_line(self, name: str, number: int) -> int:
        """Remove the next line. Returns 1, or 0 at the end.

        Args:
            name: The file, for errors.
            number: The number of the line, for errors.
        """
        if not self.peek(1):
            return 0
        dropped = 0
        while True:
            if self._head.endswith(b"\r"):
                self._head += self._file.read(1)
            match = _LINE_END.search(self._head)
            if match is not None:
                del self._head[: match.end()]
                return 1
            dropped += len(self._head)
            if dropped > LINE_BYTES:
                raise long_line(name, number)
            self._head[:] = self._file.read(_BLOCK_BYTES)
            if not self._head:
                return 1

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()
