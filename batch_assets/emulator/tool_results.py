"""Check that each call of a tool has its result, with the API's error texts.

The message after a `tool_use` begins with the results of all of its calls, each once. Messages of the same role
that follow each other are one turn.
https://platform.claude.com/docs/en/agents-and-tools/tool-use/handle-tool-calls
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

_Block = tuple[str, dict[str, Any]]


def tool_results_problem(messages: Sequence[dict[str, Any]]) -> str | None:
    """Return why the API would refuse messages for their calls of tools; `None` if it would not.

    Args:
        messages: The messages of a request. Their blocks have a type.
    """
    if all(isinstance(message["content"], str) for message in messages):
        return None
    calls: dict[str, str] = {}
    for role, blocks in _turns(messages):
        results = _results(blocks) if role == "user" else []
        answered = Counter(block.get("tool_use_id") for _, block in results)
        if missing := [id_ for id_ in calls if id_ not in answered]:
            return _unanswered(calls[missing[0]], missing)
        for path, block in results:
            id_ = block.get("tool_use_id")
            if id_ not in calls:
                return (
                    f"{path}: unexpected `tool_use_id` found in `tool_result` blocks: {id_}. Each `tool_result` "
                    "block must have a corresponding `tool_use` block in the previous message."
                )
            if answered[id_] > 1:
                return (
                    f"{path}: each tool_use must have a single result. Found multiple `tool_result` blocks with "
                    f"id: {id_}"
                )
        calls = {
            block.get("id", ""): path.split(".content.")[0]
            for path, block in blocks
            if role == "assistant" and block["type"] == "tool_use"
        }
    return _unanswered(next(iter(calls.values())), list(calls)) if calls else None


def _turns(messages: Sequence[dict[str, Any]]) -> Iterator[tuple[str, list[_Block]]]:
    """Yield the role of each turn with its blocks and their fields."""
    for role, together in groupby(enumerate(messages), lambda numbered: numbered[1]["role"]):
        yield (
            role,
            [
                (f"messages.{at}.content.{number}", block)
                for at, message in together
                if isinstance(message["content"], list)
                for number, block in enumerate(message["content"])
            ],
        )


def _results(blocks: list[_Block]) -> list[_Block]:
    """Return the results of tools with which a turn begins, or those further on if it begins with others."""
    found = [at for at, (_, block) in enumerate(blocks) if block["type"] == "tool_result"]
    return [blocks[at] for at in found] if found == list(range(len(found))) else []


def _unanswered(path: str, ids: list[str]) -> str:
    return (
        f"{path}: `tool_use` ids were found without `tool_result` blocks immediately after: {', '.join(ids)}. "
        "Each `tool_use` block must have a corresponding `tool_result` block in the next message."
    )
