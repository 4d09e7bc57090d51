"""Values within lists and objects."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def map_leaves(change: Callable[[Any], Any], value: Any) -> Any:
    """Return a value with each part changed that is neither a list nor an object, at any depth.

    Args:
        change: Returns the new value of a part.
        value: The value.
    """
    if isinstance(value, list):
        return [map_leaves(change, item) for item in value]
    if isinstance(value, dict):
        return {key: map_leaves(change, item) for key, item in value.items()}
    return change(value)
