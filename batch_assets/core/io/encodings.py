"""Check the names of text encodings."""

from __future__ import annotations

import codecs


def check_encoding(name: str) -> str:
    """Return Python's name of an encoding.

    Args:
        name: Any name or alias of the encoding.

    Raises:
        ValueError: When Python has no text encoding of that name.
    """
    try:
        codec = codecs.lookup(name)
        if codec.incrementaldecoder is None or codec.incrementaldecoder().decode("a".encode(name), True) != "a":
            raise LookupError
        b"a".decode(name, "replace")  # idna is for names of hosts, and refuses to replace anything
    except (LookupError, UnicodeError):
        raise ValueError(
            f"{name!r} is not a text encoding that Python knows; examples: utf-8, latin-1, cp1252, utf-16"
        ) from None
    return codec.name
