"""Params that certain models refuse although the Messages API accepts them. As of November 2026.

Only certain refusals are listed, and only for models whose names are written out. Nothing is assumed about newer
models.
Sources: https://platform.claude.com/docs/en/about-claude/models/overview, the pages of the models, the guide
https://platform.claude.com/docs/en/api/migration-2026-10-21 and, for the number of images,
https://platform.claude.com/docs/en/build-with-claude/vision.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from batch_assets.core.template.outline import Unknown, entries

Problem = tuple[str, str]
"""(field, what is wrong and what to do)."""

_NAME = re.compile(r"claude-(fable|mythos|opus|sonnet|haiku)-(\d)(?:-(\d{1,2}))?(?:-\d{8})?")
_NEWEST = (5, 5)
_NO_PREFILL = (4, 6)
_NO_SAMPLING = _NO_THINKING_BUDGET = (4, 7)
_NO_FORCED_TOOL = (("sonnet", (5, 5)), ("opus", (5, 5)))
_ALWAYS_THINKS = ("sonnet", (5, 5))
# Models with a context window of 200,000 tokens take fewer images.
_LAST_SMALL_WINDOW = (4, 5)
_IMAGES, _IMAGES_OF_SMALL_WINDOW = 600, 100


def takes_no_sampling(model: Any) -> bool:
    """Whether a model is known to refuse temperature, top_p and top_k under every API version."""
    return _version(model) >= _NO_SAMPLING


def images_at_most(model: Any) -> int:
    """Return how many images one request to a model may have. For unknown models it is the larger number."""
    line, version = _parsed(model)
    return _IMAGES_OF_SMALL_WINDOW if line and version <= _LAST_SMALL_WINDOW else _IMAGES


def refused_by_model(outline: Mapping[str, Any]) -> Problem | None:
    """Find the first field that the model of the params would refuse.

    Args:
        outline: The params as returned by `Template.outline`.
    """
    model = outline["model"]
    line, version = _parsed(model)
    thinking, choice = _type_of(outline.get("thinking")), _type_of(outline.get("tool_choice"))
    if version >= _NO_PREFILL and (field := _prefill(outline["messages"])) is not None:
        return field, f"{model} refuses a prefilled answer: end with a user message"
    if version >= _NO_THINKING_BUDGET and thinking == "enabled":
        return "params.thinking.type", f"{model} refuses 'enabled': write adaptive, without budget_tokens"
    if (line, version) == _ALWAYS_THINKS and thinking == "disabled":
        return "params.thinking.type", f"{model} refuses 'disabled': it always thinks; remove the field"
    if (line, version) in _NO_FORCED_TOOL and choice in ("tool", "any"):
        remedy = "write auto and say in the prompt which tool to call, or use output_schema"
        return "params.tool_choice.type", f"{model} refuses {choice!r} because it thinks before a call: {remedy}"
    return None


def _parsed(model: Any) -> tuple[str, tuple[int, int]]:
    """(line, version) of a model; the lowest version if the name is unknown."""
    match = _NAME.fullmatch(model) if isinstance(model, str) else None
    if match is None:
        return "", (0, 0)
    line, major, minor = match.groups()
    version = int(major), int(minor or 0)
    return (line, version) if version <= _NEWEST else ("", (0, 0))


def _version(model: Any) -> tuple[int, int]:
    return _parsed(model)[1]


def _type_of(value: Any) -> Any:
    return value.get("type") if isinstance(value, dict) else None


def _prefill(messages: Any) -> str | None:
    """The field of assistant text at the end of the messages, a prefill.

    Other assistant blocks at the end continue a turn, which models accept.
    """
    last = list(entries(messages, "params.messages"))[-1:]
    if not last or not isinstance(last[0][1], dict) or last[0][1].get("role") != "assistant":
        return None
    field, content = last[0][0], last[0][1].get("content")
    blocks = [block for _, block in entries(content, "")]
    is_text = isinstance(content, str) or content is Unknown.TEXT
    return field if is_text or (blocks and _type_of(blocks[-1]) == "text") else None
