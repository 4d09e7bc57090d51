"""The parts of a message's `usage` that are priced one by one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

# Each takes part in the answer itself. The API adds them up in the usage of the message; it leaves out a
# compaction and the calls of an advisor.
# https://platform.claude.com/docs/en/agents-and-tools/tool-use/advisor-tool
_OWN_ITERATIONS = ("message", "fallback_message")
_CLASSES = ("input_tokens", "output_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")


def usage_of(message: str | None) -> dict[str, Any] | None:
    """Return the `usage` of a message; `None` if it has none.

    Args:
        message: The message as JSON; `None` without one.
    """
    try:
        usage = orjson.loads(message or "")["usage"]
    except (ValueError, LookupError, TypeError):
        return None
    return usage if isinstance(usage, dict) else None


def priced_parts(model: str, usage: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the parts of a usage with the model of each, every token once.

    Args:
        model: The model that the message names.
        usage: The message's `usage`, with `iterations` if it has any.
    """
    iterations = usage.get("iterations") or ()
    own = [part for part in iterations if part["type"] in _OWN_ITERATIONS]
    # The usage of the message has the sum of all, or the input of the first and the output of all.
    if own and all(sum(part.get(name) or 0 for part in own) >= (usage.get(name) or 0) for name in _CLASSES):
        # One by one: the price of a long prompt depends on the prompt of each iteration, not on their sum.
        yield from ((part.get("model") or model, part) for part in own)
    else:
        yield model, usage
        yield from ((part["model"], part) for part in own if part.get("model") not in (None, model))
    yield from ((part.get("model") or model, part) for part in iterations if part["type"] not in _OWN_ITERATIONS)
