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
_SHORT = 4096


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
        # Blank lines are counted, not split: a small compressed file may have hundreds of millions.
        if size < _SHORT and not b"".join(pieces).strip() and (blank := _blank_at_start(block)):
            number += block.count(b"\n", 0, blank)
            pieces, size, block = [], 0, block[blank:] or file.read(block_bytes)
            continue
        if (end := block.find(b"\n")) < 0:
            pieces.append(block)
            size += len(block)
        else:
            pieces.append(block[:end])
            size += end
            if size <= LINE_BYTES:
                blank = block.find(b"\n", len(block.rstrip())) + 1 or len(block)
                last = max(blank, block.rfind(b"\n") + 1)
                lines = [b"".join(pieces), *block[end + 1 : blank].split(b"\n")]
                pieces = [lines.pop() + block[last:]]
                size = len(pieces[0])
                yield number, lines
                number += len(lines) + block.count(b"\n", blank, last)
        if size > LINE_BYTES:
            raise long_line(name, number, "One JSON object per line is expected")
        block = file.read(block_bytes)
    yield number, [b"".join(pieces)]


def _blank_at_start(block: bytes) -> int:
    """Return the size of the blank lines at the start of a block."""
    return block.rfind(b"\n", 0, len(block) - len(block.lstrip())) + 1


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
