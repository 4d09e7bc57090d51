"""Whether a quoted field has swallowed whole rows, as the field after a stray quote does.

A quoted field of several lines is refused in two cases. In both, its first line has exactly the delimiters of a
row.

- Every other line has them too. Commas also occur in prose and addresses, so if they are the delimiter there
  must be at least three lines, none of them blank, and no space after a comma.
- Most of the other lines begin like the first field of the row: with an integer if that is one, or with an
  identifier such as A-7. In a file of four or more columns, any two values without spaces will do, or any two
  with spaces. These lines have at least the delimiters of a row. At least half of all have exactly these, with
  no space after any. The last line is one of these lines, since a stray quote swallows its last row whole.
  Blank lines do not count.

Everything else is accepted: prose, addresses, lists such as `1. tea, milk`, most code, and amounts such as
`12,500` in a file of two columns. Accepted are also swallowed rows that look like text: two rows of words in a
file of two or three columns with commas.
"""

from __future__ import annotations

import re

_LINE_BREAK = re.compile(rb"\r\n|\r|\n")
_ANY_BREAK = re.compile(rb"[\r\n]")  # faster to search for
_INTEGER = re.compile(rb"[+-]?[0-9]+")
# Also a date with a time.
_IDENTIFIER = re.compile(rb"(?=[^0-9]*[0-9])\S{1,64}|[0-9-]{8,10} [0-9:.]{4,15}")
_WITHOUT_MARKS = re.compile(rb"[\w\x80-\xff]+", re.ASCII)
_AMOUNT = re.compile(rb"[+-]?[0-9]{1,3}(?:,[0-9]{3})+(?![0-9,])")
# With as many columns, two lines of words with exactly the delimiters of a row are not prose.
_MANY_COLUMNS = 4


class UnfinishedRowError(Exception):
    """The record continues in content that is not read yet."""


def line_start(content: bytes | bytearray, position: int) -> int:
    """Return the position at which the line of a position begins."""
    start = content.rfind(b"\n", 0, position) + 1
    return max(start, content.rfind(b"\r", start, position) + 1)


def swallowed_lines(
    content: bytes | bytearray, opening: int, end: int, delimiter: bytes, columns: int, *, has_ended: bool
) -> tuple[int, int] | None:
    """Find whole rows in a quoted field.

    Args:
        content: What was read of the file, or a part of it.
        opening: The position of the opening quote.
        end: The position after the closing quote.
        delimiter: The character between fields.
        columns: The number of columns.
        has_ended: The file ends with the content.

    Returns:
        A position in the first and one in the last of these rows; `None` if there are none.

    Raises:
        UnfinishedRowError: When the line in which the field closes is not read to its end.
    """
    delimiters = columns - 1
    first_break = _ANY_BREAK.search(content, opening, end) if delimiters > 0 else None
    if first_break is None:
        return None
    # The first and the last line decide most cases.
    start = line_start(content, opening)
    if content.count(delimiter, start, first_break.start()) != delimiters:
        return None
    last_break = _ANY_BREAK.search(content, end)
    if last_break is None and not has_ended:
        raise UnfinishedRowError
    stop = last_break.start() if last_break is not None else len(content)
    if content.count(delimiter, line_start(content, end), stop) < delimiters:
        return None
    lines = bytes(memoryview(content)[start:stop])
    return (opening, stop) if _are_rows(lines, delimiter, columns) else None


def _are_rows(lines: bytes, delimiter: bytes, columns: int) -> bool:
    """Decide whether the lines of a quoted field are rows.

    Args:
        lines: From the start of the line in which the field opens to the end of the line in which it closes.
        delimiter: The character between fields.
        columns: The number of columns.
    """
    split = _LINE_BREAK.split(lines)
    filled = [line for line in split if line]
    delimiters = columns - 1
    if len(filled) < 2 or filled[0].count(delimiter) != delimiters or filled[-1].count(delimiter) < delimiters:
        return False
    is_comma = delimiter == b","
    if all(line.count(delimiter) == delimiters for line in filled) and (
        not is_comma or (len(split) == len(filled) > 2 and b", " not in lines)
    ):
        return True
    return _continues_the_key(filled, delimiter, columns)


def _continues_the_key(lines: list[bytes], delimiter: bytes, columns: int) -> bool:
    """Whether most lines begin with a value like the first field of the first line."""
    first, *others = lines
    kind = _kind(first.split(delimiter, 1)[0])
    if kind in ("word", "words") and columns < _MANY_COLUMNS:
        return False
    if _kind(others[-1].split(delimiter, 1)[0]) != kind:  # decides most cases
        return False
    rows = [
        line
        for line in others
        if line.count(delimiter) >= columns - 1
        and _kind(line.split(delimiter, 1)[0]) == kind
        and not (columns == 2 and delimiter == b"," and _AMOUNT.match(line))
    ]
    if not rows or rows[-1] is not others[-1]:
        return False
    exact = sum(line.count(delimiter) == columns - 1 and delimiter + b" " not in line for line in rows)
    return 2 * len(rows) > len(others) and 2 * exact >= len(others)


def _kind(value: bytes) -> str:
    """What a value looks like: an integer, the punctuation of an identifier with digits, or words."""
    value = value.strip(b'"')
    if _INTEGER.fullmatch(value):
        return "integer"
    if _IDENTIFIER.fullmatch(value):
        return "identifier " + _WITHOUT_MARKS.sub(b"x", value).decode(errors="replace")
    return "words" if b" " in value else "word"
