"""Find the first line of a CSV file that does not fit the table. Slow, so it runs only after an error."""

from __future__ import annotations

import re
from typing import BinaryIO

_BLOCK_BYTES = 1 << 20
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_SHOWN = 80


def find_bad_row(
    file: BinaryIO, delimiter: str, quote: str | None, escape: str | None, names: int | None
) -> str | None:
    """Look for the first row with too many or too few fields, or for an unclosed quote.

    Args:
        file: The content, in UTF-8.
        delimiter: The character between fields.
        quote: The quote character, or `None` if quotes have no meaning.
        escape: The escape character, or `None`.
        names: The number of columns in `dataset.csv.header`; `None` if the first line is the header.

    Returns:
        "line N: what is wrong", with lines counted from 1 as an editor does, or `None` if every row fits.
    """
    return _Scan(delimiter, quote, escape, names).first_problem(file)


class _Scan:
    """Splits CSV by the rules of Arrow: a quote counts only where a field begins or where it closes a field."""

    def __init__(self, delimiter: str, quote: str | None, escape: str | None, names: int | None) -> None:
        self._delimiter = delimiter.encode()
        self._quote = quote.encode() if quote else None
        self._escape = escape.encode() if escape else None
        marks = b"".join(re.escape(mark) for mark in (self._delimiter, self._quote, self._escape) if mark)
        self._special = re.compile(b"[\r\n" + marks + b"]")
        self._names, self._header = names, names is None

    def first_problem(self, file: BinaryIO) -> str | None:
        line = row_line = opened = 1
        fields = 1
        quoted = False
        # Offsets in the file: where the row and the field begin, the character after an escape, and the characters
        # after a closing quote and after a carriage return.
        row = field = 0
        escaped = reopening = after_return = -1
        head = b""
        offset = 0
        while block := file.read(_BLOCK_BYTES):
            if offset == 0 and block.startswith(_BYTE_ORDER_MARK):
                row = field = len(_BYTE_ORDER_MARK)
            for match in self._special.finditer(block):
                at, mark = offset + match.start(), match[0]
                is_end = mark in b"\r\n"
                if is_end and not (mark == b"\n" and at == after_return):
                    line += 1
                if mark == b"\r":
                    after_return = at + 1
                if at == escaped:
                    continue
                if mark == self._escape:
                    escaped = at + 1
                elif quoted:
                    if mark == self._quote:
                        quoted, reopening = False, at + 1
                elif mark == self._quote:
                    if at in (field, reopening):
                        quoted = True
                        opened = line if at == field else opened
                elif mark == self._delimiter:
                    fields, field = fields + 1, at + 1
                else:
                    if at > row:
                        text = head + block[max(0, row - offset) : match.start()][:_SHOWN]
                        if problem := self._check(fields, row_line, text):
                            return problem
                    row = field = at + 1
                    row_line, fields, head = line, 1, b""
            head = (head + block[max(0, row - offset) :][:_SHOWN])[:_SHOWN]
            offset += len(block)
        if quoted:
            return f"line {opened}: the quote that opens here is never closed"
        return self._check(fields, row_line, head) if offset > row else None

    def _check(self, fields: int, line: int, text: bytes) -> str | None:
        if self._names is None:
            self._names = fields
        if fields == self._names:
            return None
        source = "the header" if self._header else "dataset.csv.header"
        excerpt = text.decode(errors="replace")
        excerpt = excerpt if len(excerpt) < _SHOWN else excerpt[: _SHOWN - 1] + "…"
        return f"line {line}: {fields} fields where {source} has {self._names}: {excerpt!r}"
