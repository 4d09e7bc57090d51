"""Keys that occur twice in one JSON object. Parsers keep the last value of such a key and lose the others."""

from __future__ import annotations

import json
import re
from typing import Any

# A string, and the colon after it if it is a key.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"(\s*+:)?', re.DOTALL)
# A space after a quote, which in most files is nowhere between a key and its colon.
_SPACED = re.compile(rb'"[ \t\r\n]')


class RepeatedKeyError(Exception):
    """An object has a key twice. The text names the key."""


def checked_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object of its members: the `object_pairs_hook` of Python's parser.

    Raises:
        RepeatedKeyError: When two members have the same key.
    """
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for at, name in enumerate(names) if name in names[:at])
        raise RepeatedKeyError(
            f"the key {_shown(twice)} is twice in one object, of which a prompt would see one value only: remove "
            "or rename one"
        )
    return made


def check_keys(text: bytes, value: Any) -> None:
    """Check that no object in JSON text has a key twice.

    A parsed object has fewer keys than its text if one is there twice. The text is parsed once more only if it may
    have more.

    Args:
        text: The text. It is valid JSON.
        value: The text parsed.

    Raises:
        RepeatedKeyError: When an object has a key twice.
    """
    if not isinstance(value, dict | list):
        return
    keys = _keys(value)
    if text.count(b":") == keys:
        return
    if _SPACED.search(text) is None:
        # The colon follows a key at once. Texts may have quotes before colons too, but these have a backslash.
        colons = text.count(b'":')
        if colons == keys or (colons - text.count(b'\\":') == keys and b"\\\\" not in text):
            return
    if sum(map(bool, _STRING.findall(text))) != keys:
        json.loads(text, object_pairs_hook=checked_object)


def _keys(value: dict[str, Any] | list[Any]) -> int:
    """The number of keys of all objects in a JSON value."""
    count, items = (len(value), value.values()) if isinstance(value, dict) else (0, value)
    for item in items:
        if type(item) is dict or type(item) is list:
            count += _keys(item)
    return count


def _shown(key: str) -> str:
    return repr(key if len(key) <= 40 else key[:39] + "…")
