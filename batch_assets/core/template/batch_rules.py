"""Params that are valid for the Messages API but refused in a batch, or refused by the requested API version.

The API reports them only after it has accepted the whole batch, with one `errored` line per request. These checks
report them when the pipeline is loaded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from batch_assets.core.template.model_rules import Problem, refused_by_model, takes_no_sampling
from batch_assets.core.template.outline import entries
from batch_assets.core.text import nearest

OLD_VERSION = "2023-06-01"
"""The API version under which older models still accept the sampling params."""

REFUSED = {
    "stream": "a batch refuses it: batches answer as a whole, not as a stream",
    "speed": "a batch refuses it: fast mode is not available in batches",
    "fallbacks": "a batch refuses it: server-side fallbacks are not available in batches",
    "store": "a batch refuses it: threads are not available in batches",
    "thread": "a batch refuses it: threads are not available in batches",
    "previous_thread_event_id": "a batch refuses it: threads are not available in batches",
    "cache_hint": "a batch refuses it: cache hints are not available in batches",
    "context_hint": "a batch refuses it: context hints are not available in batches",
    "betas": "a batch refuses it: put it beside `params`, it is sent as a header",
    "anthropic_version": "a batch refuses it: put it beside `params`, it is sent as a header",
    "workspace_id": "a batch refuses it: it is a header; the workspace is the one of the key",
    "extra_headers": "a batch refuses it: not part of the API's body",
    "extra_query": "a batch refuses it: not part of the API's body",
    "extra_body": "a batch refuses it: not part of the API's body; its fields go into params themselves",
    "timeout": "a batch refuses it: not part of the API's body",
}
"""Params that a batch refuses, and why.
Source: https://platform.claude.com/docs/en/build-with-claude/batch-processing
"""

_REQUIRED = ("model", "max_tokens", "messages")
# Source: the migration guide of API version 2026-10-21, the SDK's default.
_SAMPLING = ("temperature", "top_p", "top_k")
# Values that the old version accepts for every model, because they change nothing.
_DEFAULTS: dict[str, tuple[Any, ...]] = {"temperature": (None, 1), "top_p": (None, 1), "top_k": (None,)}


def refused(params: Mapping[str, Any], version: str | None) -> Problem | None:
    """Find the first field that the API refuses whatever its value is, or a required field that is missing.

    Args:
        params: The params of the pipeline file.
        version: The API version that the pipeline pins; `None` for the default.
    """
    for name in _REQUIRED:
        if name not in params:
            written = nearest(name, (str(key) for key in params if key not in _REQUIRED))
            if written is not None:
                return f"params.{written}", f"there is no such field: did you mean `{name}`?"
            return f"params.{name}", "this field is required by the Messages API"
    for name, why in REFUSED.items():
        if name in params:
            return f"params.{name}", why
    for name in _SAMPLING:
        if name in params and (problem := _refused_sampling(name, params, version)) is not None:
            return f"params.{name}", problem
    return None


def _refused_sampling(name: str, params: Mapping[str, Any], version: str | None) -> str | None:
    model, value = params["model"], params[name]
    if takes_no_sampling(model):
        may_be_default = isinstance(value, str) or value in _DEFAULTS.get(name, ())  # a string is a template
        if version == OLD_VERSION and may_be_default:
            return None
        return f"{model} refuses it, under every version of the API: remove it"
    if version == OLD_VERSION:
        return None
    remedy = f"remove it, or pin the version under which older models accept it: anthropic_version: {OLD_VERSION}"
    refusing = f"version {version}" if version else "the API's default version"
    return f"{refusing} refuses it: {remedy} (models from 4.7 on accept it under no version)"


def sampling(version: str | None) -> tuple[str, ...]:
    """Return the fields that this API version accepts, although the SDK's types no longer have them."""
    return _SAMPLING if version == OLD_VERSION else ()


def refused_value(outline: Mapping[str, Any], version: str | None) -> Problem | None:
    """Find the first value that a batch or the API version would refuse.

    Args:
        outline: The params as returned by `Template.outline`.
        version: The API version that the pipeline pins; `None` for the default.
    """
    model, max_tokens = outline["model"], outline["max_tokens"]
    if isinstance(model, str) and not model.strip():
        return "params.model", "the text is empty: name a model"
    if type(max_tokens) is int and max_tokens < 1:
        return "params.max_tokens", f"a batch refuses {max_tokens}: give at least 1"
    if outline["messages"] == []:
        return "params.messages", "the API refuses an empty list: give at least one message"
    if problem := _refused_choice(outline) or refused_by_model(outline):
        return problem
    if version == OLD_VERSION:
        return None
    for field, role, block in _blocks(outline["messages"]):
        if role == "assistant" and block.get("type") == "document":
            return field, "the API refuses a document in an assistant message: put it into a user message"
        if role == "user" and block.get("type") == "text" and block.get("citations") not in (None, []):
            return f"{field}.citations", "the API refuses citations in a user message: remove them"
    return None


def _refused_choice(outline: Mapping[str, Any]) -> Problem | None:
    """A `tool_choice` that names a missing tool. With MCP servers or toolsets, not all names are known here."""
    choice, tools = outline.get("tool_choice"), outline.get("tools", [])
    if not isinstance(choice, dict) or not isinstance(tools, list) or "mcp_servers" in outline:
        return None
    names = [tool.get("name") if isinstance(tool, dict) else None for _, tool in entries(tools, "")]
    if choice.get("type") == "any" and not names:
        return "params.tool_choice", "the API refuses it without tools: remove it, or add `tools`"
    chosen = choice.get("name")
    if choice.get("type") != "tool" or not isinstance(chosen, str):
        return None
    if chosen in names or not all(isinstance(name, str) for name in names):
        return None
    known = f"the tools are {', '.join(map(str, names))}" if names else "there are no tools"
    return "params.tool_choice.name", f"there is no tool {chosen!r}; {known}"


def _blocks(messages: Any) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """Yield (field, role, block) of every content block that is known without a row."""
    for message_field, message in entries(messages, "params.messages"):
        if isinstance(message, dict):
            for field, block in entries(message.get("content"), f"{message_field}.content"):
                if isinstance(block, dict):
                    yield field, message.get("role"), block
