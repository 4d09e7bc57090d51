"""Write values as JSON that shows their kinds, for digests of inputs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def exact_json(value: Any) -> bytes:
    """Return JSON that differs wherever what is sent may differ.

    In plain JSON the keys true and "true" are the same. Requests have "True" for the first.
    """
    return json.dumps(_with_kinds(value), default=str).encode()


def _with_kinds(value: Any) -> Any:
    """Return the value with each object as the list of its entries, in order, with the kinds of their keys."""
    if isinstance(value, Mapping):
        entries = [[type(key).__name__, str(key), _with_kinds(entry)] for key, entry in value.items()]
        return {"object": entries}
    return [*map(_with_kinds, value)] if isinstance(value, list | tuple) else value
