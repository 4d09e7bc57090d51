"""Bounds on the size of the value that a method or filter makes at once: it may far exceed the arguments."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from batch_assets.core.template import work_budget
from batch_assets.core.template.work_budget import weigh

_NUMBER = re.compile(r"\d+")
_LONG_NUMBER = re.compile(r"\d{7}")
# A width in a format that comes from an argument.
_WIDTH_OF_ARGUMENT = re.compile(r"%[^a-zA-Z%]*\*|:[^{}]*\{")


def bound(name: str, values: tuple[Any, ...]) -> int:
    """Return the most characters or items of what a call makes; 0 if they are about as many as in its arguments.

    Args:
        name: The method of a text, or the filter.
        values: The text that the method belongs to or the filter is for, and all arguments.

    Raises:
        OverflowError: When the bound is not known, because a format takes a width from an argument.
    """
    count = _BOUNDS.get(name)
    return count(values) if count is not None else 0


def is_bounded_call(name: str) -> bool:
    """Whether a method or filter can make a value that is far larger than its arguments."""
    return name in _BOUNDS


def _padded(values: tuple[Any, ...]) -> int:
    return max((value for value in values if isinstance(value, int)), default=0)


def _lengths(values: tuple[Any, ...]) -> list[int]:
    return [len(value) for value in values if isinstance(value, str | bytes)]


def _count(text: Any, part: Any) -> int:
    """How often a text has a part; as often as it has characters if that is unknown."""
    try:
        return int(text.count(part))
    except (AttributeError, TypeError):
        return len(str(text))


def _lines(text: Any) -> int:
    return _count(text, "\n") + _count(text, "\r") + 1


def _indented(values: tuple[Any, ...]) -> int:
    return _lines(values[0]) * max(_padded(values[1:]), *_lengths(values[1:]), 0)


def _tabs(values: tuple[Any, ...]) -> int:
    return _count(values[0], "\t") * (_padded(values[1:]) or 8)


def _wrapped(values: tuple[Any, ...]) -> int:
    """Two lines that follow each other are longer than the width together."""
    lengths = _lengths(values)
    width = next((value for value in values[1:] if isinstance(value, int) and not isinstance(value, bool)), 79)
    lines = 2 * (lengths[0] if lengths else 0) // max(width, 1) + 2 * _lines(values[0])
    return lines * max(lengths[1:], default=1)


def _replaced(values: tuple[Any, ...]) -> int:
    text, *others = values
    if len(others) > 1:
        return len(str(text)) + _count(text, others[0]) * max(_lengths(values[2:]), default=0)
    return len(str(text)) * max(_lengths(values[1:]), default=0)


def _joined(values: tuple[Any, ...]) -> int:
    """A separator, and what it joins."""
    return len(values[0]) * max((len(value) for value in values[1:] if hasattr(value, "__len__")), default=0)


def _joined_by(values: tuple[Any, ...]) -> int:
    """What is joined, and a separator."""
    items, separator = values[0], values[1] if len(values) > 1 else ""
    return len(separator) * len(items) if isinstance(separator, str) and hasattr(items, "__len__") else 0


def _batches(values: tuple[Any, ...]) -> int:
    """The items of a batch that is filled up."""
    return 8 * _padded(values)


def _slices(values: tuple[Any, ...]) -> int:
    """Each slice is a list."""
    return 64 * _padded(values)


def _json_indents(values: tuple[Any, ...]) -> int:
    total, indent = 0, _padded(values[1:])
    stack = [(values[0], 1)] if indent else []
    while stack and total <= work_budget.UNITS:  # a list may be in another one many times
        value, depth = stack.pop()
        if isinstance(value, Mapping | list | tuple):
            total += (len(value) + 1) * indent * depth
            entries = value.values() if isinstance(value, Mapping) else value
            stack += [(entry, depth + 1) for entry in entries]
    return total


def _rounded(values: tuple[Any, ...]) -> int:
    """A power of ten with so many digits, which takes about the square of their number."""
    return max((value**2 for value in values[1:] if isinstance(value, int)), default=0)


def _sum(values: tuple[Any, ...]) -> int:
    """Each list is added to a copy of those before it."""
    if not any(isinstance(value, list | tuple) for value in values[1:]) or not hasattr(values[0], "__len__"):
        return 0
    return len(values[0]) * (weigh(values, work_budget.UNITS << 9) >> 9)


def _translated(values: tuple[Any, ...]) -> int:
    tables = [value for value in values[1:] if isinstance(value, Mapping)]
    longest = max((len(text) for table in tables for text in table.values() if isinstance(text, str)), default=1)
    return len(values[0]) * longest


def _links(values: tuple[Any, ...]) -> int:
    text = values[0]
    return len(text.split()) * sum(_lengths(values[1:])) if isinstance(text, str) else 0


def _formatted(values: tuple[Any, ...]) -> int:
    """Every field may be as long as the longest argument, and as its width."""
    pattern = values[0]
    if not isinstance(pattern, str | bytes):
        return 0
    text = pattern if isinstance(pattern, str) else pattern.decode("latin-1")
    if _LONG_NUMBER.search(text) or _WIDTH_OF_ARGUMENT.search(text):
        raise OverflowError("a format with a width in the millions, or with a width from an argument")
    longest = max(
        (len(value) if isinstance(value, str) else weigh(value, work_budget.UNITS) for value in values[1:]),
        default=0,
    )
    fields = max(text.count("{"), text.count("%"))
    return len(text) + fields * longest + sum(map(int, _NUMBER.findall(text)))


_BOUNDS: dict[str, Callable[[tuple[Any, ...]], int]] = {
    **dict.fromkeys(("center", "ljust", "rjust", "zfill", "to_bytes"), _padded),
    **dict.fromkeys(("format", "format_map"), _formatted),
    "batch": _batches,
    "expandtabs": _tabs,
    "indent": _indented,
    "join": _joined,
    "|join": _joined_by,
    "replace": _replaced,
    "round": _rounded,
    "slice": _slices,
    "sum": _sum,
    "tojson": _json_indents,
    "translate": _translated,
    "urlize": _links,
    "wordwrap": _wrapped,
}
