"""The calls of tools in an answer that a pipeline's own functions give results for."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

WAITS_FOR_TOOLS = "tool_use"
"""The stop reason of an answer that ends with calls of the client's tools."""


def calls_to_answer(message: Mapping[str, Any], tools: Collection[str]) -> list[dict[str, Any]]:
    """Return the calls of tools in an answer; an empty list unless all of them can be answered.

    The API takes an answer back only with the results of all of its calls. Calls of server tools are not among
    them: the API runs these. Nor can a call from within code execution be answered, whose container is gone before
    a batch has ended.

    Args:
        message: The answer.
        tools: The names of the tools that have a function.
    """
    calls = [block for block in message.get("content") or [] if block.get("type") == "tool_use"]
    return calls if all(call.get("name") in tools and _is_direct(call) for call in calls) else []


def _is_direct(call: Mapping[str, Any]) -> bool:
    caller = call.get("caller")
    return not isinstance(caller, Mapping) or caller.get("type") == "direct"
