"""What is kept of a message that leaves the response store: the numbers of its usage, which say what it cost."""

from __future__ import annotations

from typing import Any

from batch_assets.core.io.json_text import dump
from batch_assets.core.prices.usage import usage_of

# The texts in a usage that decide what it costs: a region, and for each iteration its kind and its model.
_USAGE_TEXTS = ("inference_geo", "type", "model")


def usage_in(message: str | None) -> str | None:
    """Return a message with nothing but the numbers of its usage; `None` if it has no usage."""
    usage = usage_of(message)
    return dump({"usage": _numbers_in(usage)}) if usage is not None else None


def _numbers_in(usage: dict[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for name, value in usage.items():
        if isinstance(value, dict):
            kept[name] = _numbers_in(value)
        elif isinstance(value, list):
            kept[name] = [_numbers_in(part) for part in value if isinstance(part, dict)]
        elif isinstance(value, int | float) or (name in _USAGE_TEXTS and isinstance(value, str)):
            kept[name] = value
    return kept
