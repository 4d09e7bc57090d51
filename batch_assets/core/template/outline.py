"""Params as far as they are known without a row, so that they can be checked when a pipeline is loaded."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import Any


class Unknown(enum.Enum):
    """Replaces a value in params that only a row can give."""

    VALUE = "any value"
    TEXT = "some text"


class Spliced(list[Any]):
    """A list that replaces one entry of another list. Its entries become entries of that list."""


def entries(value: Any, field: str) -> Iterator[tuple[str, Any]]:
    """Yield (field, entry) for each entry of a list; nothing if the value is not a list.

    Args:
        value: Any value.
        field: The field of the value.
    """
    if isinstance(value, list):
        for position, entry in enumerate(value):
            entry_field = f"{field}[{position}]"
            if isinstance(entry, Spliced):
                yield from entries(list(entry), entry_field)
            else:
                yield entry_field, entry
