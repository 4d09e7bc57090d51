"""What can be wrong with a record of a CSV file, as texts for users."""

from __future__ import annotations

import re

NEVER_CLOSED = (
    "the quote that opens here is never closed. If quotes are ordinary text, set dataset.csv: {quote: none}"
)
INNER_MARK = (
    "this row begins with a byte order mark, as where a file was appended to another one. Remove the mark, and "
    "the header after it if there is one, or put quotes around the field"
)
# In Latin text, such bytes are few and apart.
_NO_LATIN = re.compile(rb"[\x80-\xff]{4}|(?:[\x81-\xfe][\x40-\x7e]){4}")
# In UTF-16, a byte of a character may look like a control character. Other text has none but those that separate.
_CONTROLS = bytes({*range(0x20)} - {*b"\t\n\v\f\r\x01\x1a\x1c\x1d\x1e\x1f"})
_ASCII = bytes(range(0x80))
_FEW_CONTROLS = 0.02
_WIDE = "utf-16-le or utf-16-be"
_OTHER_SCRIPTS = "gb18030 or big5 (Chinese), shift_jis (Japanese), euc-kr (Korean) or cp1251 (Cyrillic)"
_SHOWN = 80
_SHOWN_BEFORE = 20


def text_after_quote(excerpt: bytes, before: bytes | bytearray, escape: bytes) -> str:
    """Describe text after a closing quote.

    Args:
        excerpt: The content around the quote; b"" to show none.
        before: The byte before the closing quote.
        escape: The escape character; b"" if none is set.
    """
    remedies = ["if quotes are ordinary text, set dataset.csv: {quote: none}"]
    if escape != b"\\":
        remedies.insert(
            0 if before == b"\\" else 1, 'if a backslash escapes quotes, set dataset.csv: {escape: "\\\\"}'
        )
    return (
        f"text follows the closing quote of a field{_shown(excerpt)}. Write a quote within a quoted field "
        f"twice; {'; '.join(remedies)}"
    )


def wrong_count(fields: str, columns: int, has_header: bool, record: bytes, *, quotes: bool) -> str:
    """Describe a record with too many or too few fields.

    Args:
        fields: The number of its fields; if it has too many to be counted, a text that begins with "more than".
        columns: The number of columns.
        has_header: Whether the file names the columns, not the pipeline.
        record: The beginning of the record; b"" to show none.
        quotes: Whether quotes around a field have a meaning.
    """
    remedy = ""
    if columns == 1:
        remedy = ". If another character is between the fields, name it in dataset.csv.delimiter"
    elif not fields.isdecimal() or int(fields) > columns:
        remedy = ". Is there a field that has the delimiter in it"
        remedy += " and no quotes around it?" if quotes else "?"
    where = "the header" if has_header else "dataset.csv.header"
    return f"{fields} fields where {where} has {columns}{_shown(record.rstrip(bytes([10, 13])))}{remedy}"


def invalid_bytes(content: bytes, error: UnicodeDecodeError, encoding: str, *, can_reject: bool) -> str:
    """Describe bytes that are not text in the encoding of the file.

    Args:
        content: Content with these bytes.
        error: The error of decoding it.
        encoding: The encoding of the file.
        can_reject: Whether `dataset.bad_rows: reject` would help.
    """
    start = max(content.rfind(b"\n", 0, error.start) + 1, error.start - _SHOWN_BEFORE)
    before = content[start : error.start].decode(errors="replace")
    if encoding not in ("utf-8", "utf-8-sig"):
        return f"bytes that are not {encoding}, the encoding in dataset.csv.encoding, after {before!r}"
    broken, around = content[error.start : error.end], content[error.start : error.start + _SHOWN]
    if _has_controls(content[max(0, error.start - 2 * _SHOWN) : error.start + 2 * _SHOWN]):
        example = f"dataset.csv: {{encoding: …}}, such as {_WIDE}"
    elif _NO_LATIN.search(around) is not None:
        example = f"dataset.csv: {{encoding: …}}, such as {_OTHER_SCRIPTS}"
    elif 2 * len(around.translate(None, _ASCII)) > len(around):
        example = "dataset.csv: {encoding: …}"  # Latin text is mostly ASCII
    else:
        is_windows = any(0x80 <= byte < 0xA0 for byte in around)
        example = f"such as dataset.csv: {{encoding: {'cp1252' if is_windows else 'latin-1'}}}"
    return f"not UTF-8: the bytes {broken.hex(' ')} after {before!r}; name its encoding, {example}" + (
        ", or set dataset.bad_rows: reject" if can_reject else ""
    )


def swallowed_rows(first: int, last: int) -> str:
    """Describe a quoted field with lines that look like rows.

    Args:
        first: The line in which the field opens.
        last: The line in which it closes.
    """
    return (
        f"the quoted field that opens here ends in line {last}, and lines {first} to {last} look like rows of "
        "their own. If quotes are ordinary text, set dataset.csv: {quote: none}; if the field does contain these "
        "lines, set dataset.csv: {rows_in_quotes: true}"
    )


def _has_controls(content: bytes) -> bool:
    return len(content) - len(content.translate(None, _CONTROLS)) > _FEW_CONTROLS * len(content)


def _shown(content: bytes) -> str:
    """Return a quotation of content, after a colon; "" for none."""
    if not content:
        return ""
    text = content.decode(errors="replace")
    return f": {text if len(text) < _SHOWN else text[: _SHOWN - 1] + '…'!r}"
