"""`cache_control` that can only make requests more expensive: what it caches is the row's own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from batch_assets.core.template.model_rules import Problem
from batch_assets.core.template.outline import Unknown, entries

_WHY = (
    "no other request reads what the row's own text is part of, so it costs 1.25 or 2 times as much. Put it on "
    "the last block that all rows share, or use cache: auto"
)


def useless_cache_control(outline: Mapping[str, Any]) -> Problem | None:
    """Find `cache_control` on the last block of a prompt, if that depends on the row.

    Args:
        outline: The params as returned by `Template.outline`.
    """
    blocks = [*_blocks(outline["messages"])]
    if not blocks or not _has_unknown(blocks[-1][1]):
        return None
    field, block = blocks[-1]
    if outline.get("cache_control") is not None:
        return "params.cache_control", f"it caches each prompt up to its last block, {field}: {_WHY}"
    if isinstance(block, dict) and block.get("cache_control") is not None:
        return f"{field}.cache_control", _WHY
    return None


def has_cache_control(params: Any) -> bool:
    """Whether the author of params has some of the prompt cached."""
    if isinstance(params, Mapping):
        return params.get("cache_control") is not None or any(map(has_cache_control, params.values()))
    return isinstance(params, list) and any(map(has_cache_control, params))


def _blocks(messages: Any) -> Iterator[tuple[str, Any]]:
    for message_field, message in entries(messages, "params.messages"):
        if not isinstance(message, dict):
            yield message_field, message
        elif isinstance(content := message.get("content"), list):
            yield from entries(content, f"{message_field}.content")
        else:
            yield f"{message_field}.content", content


def _has_unknown(value: Any) -> bool:
    """Whether a value, or a value within it, depends on the row."""
    if isinstance(value, Mapping):
        return any(map(_has_unknown, value.values()))
    return isinstance(value, Unknown) or (isinstance(value, list) and any(map(_has_unknown, value)))
