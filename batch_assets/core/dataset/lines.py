"""Split a file of JSON Lines into lines, block by block, with memory for one block or one line."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from typing import BinaryIO

from batch_assets.core.dataset.bounds import LINE_BYTES, long_line
from batch_assets.core.dataset.data_file import DataFile
from batch_assets.core.dataset.foreign_content import foreign_content
from batch_assets.core.dataset.wide_encodings import wide_encoding
from batch_assets.core.errors import DatasetError

_HEAD_BYTES = 4096


def line_blocks(file: BinaryIO, data: DataFile, block_bytes: int) -> Iterator[tuple[int, list[bytes]]]:
    """Yield the lines of each block, without their line breaks.

    Args:
        file: The open file.
        data: The file.
        block_bytes: The size of a block.

    Yields:
        The number of the first line, from 1, and the lines.

    Raises:
        DatasetError: When a line is too long, or the file is no text or in another encoding than UTF-8.
    """
    name = data.name
    number, size = 1, 0
    pieces: list[bytes] = []  # of the last line so far
    block = _first_block(file, data, block_bytes)
    while block:
        if (end := block.find(b"\n")) < 0:
            pieces.append(block)
            size += len(block)
        else:
            pieces.append(block[:end])
            lines = [b"".join(pieces), *block[end + 1 :].split(b"\n")]
            size += end
            if size <= LINE_BYTES:
                pieces = [lines.pop()]
                size = len(pieces[0])
                yield number, lines
                number += len(lines)
        if size > LINE_BYTES:
            raise long_line(name, number, "One JSON object per line is expected")
        block = file.read(block_bytes)
    yield number, [b"".join(pieces)]


def _first_block(file: BinaryIO, data: DataFile, block_bytes: int) -> bytes:
    block = file.read(block_bytes)
    if (problem := foreign_content(block, data.ending)) is not None:
        raise DatasetError(f"{data.name}: {problem}")
    if (encoding := wide_encoding(block[:_HEAD_BYTES])) is not None:
        charset = encoding.upper().replace("-LE", "LE").replace("-BE", "BE")
        raise DatasetError(
            f"{data.name}, line 1: the file is {encoding.upper()}, but JSON Lines are UTF-8; convert it, for "
            f"example with iconv -f {charset} -t UTF-8"
        )
    content = block.removeprefix(codecs.BOM_UTF8)
    # A file of nothing but the mark is empty.
    return content or file.read(block_bytes)
