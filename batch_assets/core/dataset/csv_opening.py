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
from batch_assets.core.dataset.transcode import as_utf8
from batch_assets.core.dataset.wide_encodings import (
    has_one_byte_a_character,
    is_utf8,
    marked_encoding,
    wide_encoding,
)
from batch_assets.core.errors import DatasetError
from batch_assets.core.io.encodings import check_encoding
from batch_assets.core.pipeline.dataset import CsvConfig

_BLOCK_BYTES = 1 << 16
_HEAD_BYTES = 4096
_UTF8 = ("utf-8", "utf-8-sig")
_LINE_END = re.compile(rb"\r\n|\n|\r")
# A first line in which spreadsheets write the delimiter.
_SEPARATOR = re.compile(rb'"?sep=([\t -!#-~])"?(?:\r\n|\r|\n)', re.IGNORECASE)


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
    try:
        encoding = _encoding(head, check_encoding(options.encoding))
    except _OtherEncodingError as error:
        raw.close()
        raise DatasetError(f"{data.name}: {error}") from None
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


class _OtherEncodingError(Exception):
    """A file is not in the encoding that the pipeline file names."""


def _encoding(head: bytes, stated: str) -> str:
    """Return the encoding of a file, with the order of its bytes.

    Args:
        head: The beginning of the file.
        stated: The encoding in the pipeline file.

    Raises:
        _OtherEncodingError: When it is plainly another one.
    """
    detected, mark = wide_encoding(head), marked_encoding(head)
    if stated in _UTF8:
        if detected is None:
            return stated
        raise _OtherEncodingError(
            f"the header is not valid UTF-8: line 1: the file is {detected.upper()}; name its encoding, such as "
            f"dataset.csv: {{encoding: {detected}}}"
        )
    is_wide = stated.startswith(("utf-16", "utf-32"))
    other = mark or (detected if is_wide else None)
    if other is not None and other[:6] != stated[:6]:
        finding = "begins with the byte order mark of" if mark is not None else "is"
        raise _OtherEncodingError(
            f"line 1: the file {finding} {other.upper()}, but dataset.csv.encoding is {stated}; write "
            f"{other}{', or leave it out' if other == 'utf-8' else ''}"
        )
    if has_one_byte_a_character(stated) and is_utf8(head, stated):
        raise _OtherEncodingError(
            f"line 1: the file is UTF-8, but dataset.csv.encoding is {stated}, in which its text would be other "
            "characters; leave it out"
        )
    # Python takes a file without a byte order mark for the machine's own order.
    return detected if detected is not None and stated in ("utf-16", "utf-32") else stated


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
