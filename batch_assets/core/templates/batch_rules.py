"""What the Messages API takes and a batch refuses, or the API version that is asked for.

The API says so after the whole batch was accepted, one `errored` line a request; here it is said at load.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from batch_assets.core.templates.outline import entries

OLD_VERSION = "2023-06-01"
"""The API version that still takes the sampling params."""

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
"""Message params that a batch refuses, and why.
Source: https://platform.claude.com/docs/en/build-with-claude/batch-processing
"""

_REQUIRED = ("model", "max_tokens", "messages")
# The migration guide of API version 2026-10-21, the SDK's default.
_SAMPLING = ("temperature", "top_p", "top_k")

Problem = tuple[str, str]
"""(field, what is wrong and what to do)"""


def refused(params: Mapping[str, Any], version: str | None) -> Problem | None:
    """The first field that the API would refuse whatever its value is.

    Args:
        version: the API version that the pipeline pins.
    """
    for name in _REQUIRED:
        if name not in params:
            return f"params.{name}", "this field is required by the Messages API"
    for name, why in REFUSED.items():
        if name in params:
            return f"params.{name}", why
    for name in _SAMPLING:
        if name in params and version != OLD_VERSION:
            remedy = f"remove it, or pin the version that takes it: anthropic_version: {OLD_VERSION}"
            which = f"version {version}" if version else "the API's default version"
            return f"params.{name}", f"{which} refuses it: {remedy}"
    return None


def sampling(version: str | None) -> tuple[str, ...]:
    """The fields that the SDK's types do not know any more and this API version takes."""
    return _SAMPLING if version == OLD_VERSION else ()


def refused_value(outline: Mapping[str, Any], version: str | None) -> Problem | None:
    """The first value that a batch, or the API version, would refuse.

    Args:
        outline: the params as `Template.outline` gives them.
    """
    max_tokens = outline["max_tokens"]
    if type(max_tokens) is int and max_tokens < 1:
        return "params.max_tokens", f"a batch refuses {max_tokens}: give at least 1"
    if version == OLD_VERSION:
        return None
    for field, role, block in _blocks(outline["messages"]):
        if role == "assistant" and block.get("type") == "document":
            return field, "the API refuses a document in an assistant message: put it into a user message"
        if role == "user" and block.get("type") == "text" and block.get("citations") not in (None, []):
            return f"{field}.citations", "the API refuses citations in a user message: remove them"
    return None


def _blocks(messages: Any) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """(field, role, block) of every content block that is known without a row."""
    for place, message in entries(messages, "params.messages"):
        if isinstance(message, dict):
            for field, block in entries(message.get("content"), f"{place}.content"):
                if isinstance(block, dict):
                    yield field, message.get("role"), block
