"""Recognize encodings by a byte order mark, and UTF-16 and UTF-32 also without one."""

from __future__ import annotations

import codecs
import re
import unicodedata

_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32",  # begins like that of UTF-16
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
    b"\x84\x31\x95\x33": "gb18030",
    **{b"+/v" + end: "utf-7" for end in (b"8", b"9", b"+", b"/")},
}
_BEYOND_ASCII = re.compile(rb"[\x80-\xff]+")
_LEAST_PROOFS = 2
# UTF-8 that is no word in a Latin encoding: a capital or a symbol after a small letter (`ZoÃ«`) or a typographic
# quote (`â€œ`), a capital and a symbol twice (`Å¡Å¥`), or a word like `Ã‰tat`.
_NO_LATIN_WORD = re.compile(
    rb"(?<=[a-z])[\xc2-\xc5][\x80-\xbf]|\xe2\x80[\x80-\xbf]|(?:[\xc3-\xc5][\x80-\xbf]){2}"
    rb"|(?<![A-Za-z\x80-\xff])\xc3[\x80-\x9f](?=[a-z])"
)
_CAPITALS = ("Ã", "Ă")
_LEAST_OF_UTF32 = 12
# The characters that almost every table or JSON text has.
_PUNCTUATION = b'\t\n\r ",;:'
_PRINTABLE = bytes([*b"\t\n\r", *range(0x20, 0x7F)])
_CONTROLS = bytes(byte for byte in range(1, 0x20) if byte not in _PRINTABLE)
_BREAKS = b"\r\n"
# The least share of letters, punctuation and the like in a text. In a wrong encoding, many are unassigned.
_LEAST_TEXT = 0.97
# In 8-bit text, ASCII is as frequent at even as at odd positions. In UTF-16 one of them has the upper bytes.
_LEAST_DIFFERENCE = 0.15


def wide_encoding(head: bytes) -> str | None:
    """Recognize an encoding other than UTF-8 by its mark, or by null bytes.

    Without a byte order mark, they have null bytes: at least half of all bytes in Latin text, and in other scripts
    those of commas, spaces and line breaks.

    Args:
        head: The beginning of a file.

    Returns:
        Python's name of the encoding, or `None` if it is another one.
    """
    if (marked := marked_encoding(head)) is not None:
        return marked if marked != "utf-8" else None
    if b"\0" not in head:
        return None
    for encoding in ("utf-32-le", "utf-32-be"):
        text = _decoded(head, encoding)
        if len(head) >= _LEAST_OF_UTF32 and text is not None and "\0" not in text:
            return encoding
    return _by_null_bytes(head) or _by_positions(head)


def marked_encoding(head: bytes) -> str | None:
    """Return the encoding whose byte order mark a file begins with; `None` if it begins with none."""
    return next((name for mark, name in _MARKS.items() if head.startswith(mark)), None)


def is_utf8(head: bytes, stated: str) -> bool:
    """Whether the characters beyond ASCII prove that a text is UTF-8: in another encoding, few are valid UTF-8.

    Args:
        head: The beginning of the text.
        stated: The encoding that the pipeline file names.
    """
    if len(_BEYOND_ASCII.findall(head)) < _LEAST_PROOFS and not (
        _is_latin(stated) and _NO_LATIN_WORD.search(head) is not None
    ):
        return False
    return _decoded(head, "utf-8") is not None


def _is_latin(encoding: str) -> bool:
    return b"\xc3".decode(encoding, "replace") in _CAPITALS


def has_one_byte_a_character(encoding: str) -> bool:
    """Whether every byte is a character in an encoding of Python, as in latin-1."""
    return len(bytes(range(256)).decode(encoding, "replace")) == 256 and encoding != "ascii"


def _by_null_bytes(head: bytes) -> str | None:
    """Recognize UTF-16 in which nearly all null bytes are at even or at odd positions."""
    high, low = head[::2].count(0), head[1::2].count(0)
    if high + low < 2 or min(high, low) * 9 > max(high, low):
        return None
    encoding = "utf-16-le" if low > high else "utf-16-be"
    # Every second byte of Latin text is null. Of other text, line breaks have null bytes.
    text, low_bytes = head.decode(encoding, "replace"), head[0 if low > high else 1 :: 2]
    is_possible = (high + low) * 5 >= len(head) or "\n" in text
    # In UTF-8 with a few null characters, most marks have no null byte beside them.
    marks = sum(low_bytes.count(mark) for mark in _PUNCTUATION)
    return encoding if is_possible and sum(text.count(chr(mark)) for mark in _PUNCTUATION) * 2 >= marks else None


def _by_positions(head: bytes) -> str | None:
    """Recognize UTF-16 of scripts in whose characters either byte may be any, such as Chinese."""
    if head.count(0) < 2:
        return None
    differs = abs(_ascii_share(head[::2]) - _ascii_share(head[1::2])) >= _LEAST_DIFFERENCE
    # Text has next to no control characters. The bytes of such scripts may look like them, and like line breaks.
    has_controls = len(head.translate(None, _CONTROLS)) < _LEAST_TEXT * len(head)
    breaks, is_utf8 = sum(map(head.count, _BREAKS)), _decoded(head, "utf-8") is not None
    shares: dict[float, str] = {}
    for encoding in ("utf-16-le", "utf-16-be"):
        text = _decoded(head, encoding)
        if text is None:
            continue
        line_ends = sum(map(text.count, "\r\n"))
        if (differs and (has_controls or 4 * line_ends >= breaks)) or (
            not is_utf8 and 2 * line_ends >= breaks > 0
        ):
            shares[_text_share(text)] = encoding
    return shares[max(shares)] if shares and max(shares) >= _LEAST_TEXT else None


def _decoded(head: bytes, encoding: str) -> str | None:
    try:
        return codecs.getincrementaldecoder(encoding)().decode(head)  # without a character that is cut by the end
    except UnicodeDecodeError:
        return None


def _ascii_share(content: bytes) -> float:
    return 1 - len(content.translate(None, _PRINTABLE)) / max(1, len(content))


def _text_share(text: str) -> float:
    good = sum(character in "\t\n\r" or unicodedata.category(character) not in _NO_TEXT for character in text)
    return good / max(1, len(text))


_NO_TEXT = {"Cc", "Cn", "Co", "Cs"}
