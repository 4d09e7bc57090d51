"""Fields of JSON that can have words of ours or of the API only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

FIXED_FIELDS = frozenset(("type", "role", "stop_reason", "processing_status", "state", "kind", "event"))
"""Their names."""


def values_in(value: Any, field: str = "") -> Iterator[str]:
    """Yield the texts in a JSON value that may be those of a row: no names of fields, and no fixed words.

    Args:
        value: The value.
        field: The name of the field that has it.
    """
    if isinstance(value, str):
        if field not in FIXED_FIELDS:
            yield value
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from values_in(item, name)
    elif isinstance(value, list):
        for item in value:
            yield from values_in(item, field)
