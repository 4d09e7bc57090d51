"""Params as far as they are known before there is a row: what can be checked when a pipeline is loaded."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import Any


class Unknown(enum.Enum):
    """Stands in params where only a row gives the value."""

    VALUE = "any value"
    TEXT = "some text"


class Spliced(list[Any]):
    """A list in the place of one entry of another list: its entries stand in its stead."""


def entries(value: Any, field: str) -> Iterator[tuple[str, Any]]:
    """(field, entry) of a list; nothing of anything else."""
    if isinstance(value, list):
        for position, entry in enumerate(value):
            place = f"{field}[{position}]"
            if isinstance(entry, Spliced):
                yield from entries(list(entry), place)
            else:
                yield place, entry
