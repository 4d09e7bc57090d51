"""Text from data, made safe to show in a terminal or a notification and to paste into a shell."""

from __future__ import annotations

import re
import shlex

# A terminal or a page acts on these: control characters, line separators, marks that reverse the text, and lone
# surrogates, which cannot be written.
_ACTS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_LINES = "\n\t"


def printable(text: str, *, lines: bool = False) -> str:
    """Return a text with escapes, such as `\\x1b`, for the characters that a terminal acts on.

    Args:
        text: The text.
        lines: Keep line breaks and tabs.
    """
    return _ACTS.sub(lambda match: match[0] if lines and match[0] in _LINES else _escape(match[0]), text)


def shell_quoted(text: str) -> str:
    """Return a text as one word of a shell command on one line."""
    if not _ACTS.search(text):
        return shlex.quote(text)
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"$'{printable(escaped)}'"


def _escape(character: str) -> str:
    escape = character.encode("unicode_escape").decode()
    # In a shell's $'…', \x80 is a byte and not a character.
    return f"\\u00{escape[2:]}" if "\x80" <= character <= "\x9f" else escape
