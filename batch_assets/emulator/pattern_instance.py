"""Make strings that match a regular expression, from its parse tree."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from batch_assets.emulator.draws import Draws

_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_DIGITS = "0123456789"
_PRINTABLE = "".join(map(chr, range(0x20, 0x7F)))
_CATEGORIES = {
    "CATEGORY_DIGIT": _DIGITS,
    "CATEGORY_WORD": _LETTERS + _DIGITS + "_",
    "CATEGORY_SPACE": " ",
    "CATEGORY_NOT_DIGIT": _LETTERS,
    "CATEGORY_NOT_WORD": "-. ",
    "CATEGORY_NOT_SPACE": _LETTERS + _DIGITS,
}
_UNBOUNDED_REPEATS = 5


@lru_cache(maxsize=256)
def _parsed(pattern: str) -> Any:
    # The parser of `re` has no public name. Its tree has not changed since Python 3.11.
    return re._parser.parse(pattern)  # type: ignore[attr-defined]


def pattern_instance(pattern: str, draws: Draws) -> str:
    """Make a string that contains a match. Lookarounds are ignored, so the caller has to check the result."""
    return _sequence(_parsed(pattern), draws, {})


def _sequence(items: Any, draws: Draws, groups: dict[int, str]) -> str:
    return "".join(_item(str(code), value, draws, groups) for code, value in items)


def _item(code: str, value: Any, draws: Draws, groups: dict[int, str]) -> str:
    match code:
        case "LITERAL":
            return chr(value)
        case "NOT_LITERAL":
            return draws.pick([char for char in _LETTERS if ord(char) != value])
        case "ANY":
            return draws.pick(_LETTERS)
        case "IN":
            return draws.pick(_members(value))
        case "BRANCH":
            return _sequence(draws.pick(value[1]), draws, groups)
        case "SUBPATTERN":
            text = _sequence(value[3], draws, groups)
            groups[value[0]] = text
            return text
        case "GROUPREF":
            return groups.get(value, "")
        case "MAX_REPEAT" | "MIN_REPEAT" | "POSSESSIVE_REPEAT":
            least, most, inner = value
            most = min(int(most), int(least) + _UNBOUNDED_REPEATS)
            return "".join(_sequence(inner, draws, groups) for _ in range(draws.between(int(least), most)))
        case "ATOMIC_GROUP":
            return _sequence(value, draws, groups)
        case _:  # anchors and lookarounds add no characters
            return ""


def _members(parts: Any) -> str:
    names = [(str(code), value) for code, value in parts]
    chars = ""
    for code, value in names:
        if code == "LITERAL":
            chars += chr(value)
        elif code == "RANGE":
            chars += "".join(map(chr, range(value[0], min(value[1], value[0] + 200) + 1)))
        elif code == "CATEGORY":
            chars += _CATEGORIES[str(value)]
    if names and names[0][0] == "NEGATE":
        return "".join(char for char in _LETTERS + _PRINTABLE if char not in chars)
    return chars
