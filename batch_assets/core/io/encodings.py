"""Names of text encodings."""

from __future__ import annotations

import codecs


def check_encoding(name: str) -> str:
    """The name as Python spells it.

    Errors:
        ValueError: Python knows no such encoding of text.
    """
    try:
        found = codecs.lookup(name)
        if found.incrementaldecoder is None or found.incrementaldecoder().decode("a".encode(name), True) != "a":
            raise LookupError
    except (LookupError, UnicodeError):
        raise ValueError(
            f"{name!r} is not an encoding of text that Python knows; examples: utf-8, latin-1, cp1252, utf-16"
        ) from None
    return found.name
