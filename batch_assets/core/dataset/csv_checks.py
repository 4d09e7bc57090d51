"""What a guard of a CSV file checks, and the check of its bytes."""

from __future__ import annotations

import codecs
from dataclasses import dataclass

# A long record is decoded in pieces of this size.
_PIECE_BYTES = 1 << 20


@dataclass(frozen=True)
class GuardOptions:
    """What a guard does.

    Attributes:
        name: The file, for errors.
        encoding: The encoding of the file, for errors.
        first_line: The number of the first line, from 1.
        columns: The number of columns of a file whose first record is a row; `None` if it is a header.
        drops_header: Whether to leave the header out.
        is_checked: Whether an earlier guard has checked the content after the header.
        is_exact: Whether to check the number of fields of each record. Arrow does that faster but names no line.
        rejects: Whether a record that does not fit becomes an empty one. If not, it is an error.
        allows_rows_in_quotes: Whether a quoted field may have lines that each look like a record.
    """

    name: str
    encoding: str
    first_line: int = 1
    columns: int | None = None
    drops_header: bool = False
    is_checked: bool = False
    is_exact: bool = False
    rejects: bool = False
    allows_rows_in_quotes: bool = False


def has_inner_mark(content: bytes) -> bool:
    """Whether a line begins with a byte order mark, as where a file was appended to another one."""
    return any(start + codecs.BOM_UTF8 in content for start in (b"\n", b"\r")) or content.startswith(
        codecs.BOM_UTF8
    )


def first_invalid(content: memoryview) -> tuple[int, UnicodeDecodeError] | None:
    """Find the first bytes that are not UTF-8, in pieces, so that a long record is not copied as text.

    Returns:
        The position and the error.
    """
    at, size = 0, len(content)
    while at < size:
        stop = min(at + _PIECE_BYTES, size)
        piece = bytes(content[at:stop])
        if piece.isascii():
            at = stop
            continue
        try:
            piece.decode()
            at = stop
        except UnicodeDecodeError as error:
            # A character that is cut by the end of the piece belongs to the next one.
            if stop == size or error.start < len(piece) - 3 or error.start == 0:
                return at + error.start, error
            at += error.start
    return None
