"""Estimate tokens from the length of texts: three characters per token, deterministic and cheap.

The real tokenizer is not public. The public guides name between 2.5 and 3.5 characters of English per token,
depending on the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson

CHARS_PER_TOKEN = 3
_MEDIA_TOKENS = 1600  # for an image or a document, whatever the length of its encoding


def text_tokens(text: str) -> int:
    """Estimate the tokens of a text, at least 1."""
    return max(1, -(-len(text) // CHARS_PER_TOKEN))


class PromptTokens(NamedTuple):
    """Estimated tokens of a prompt.

    Attributes:
        total: All tokens.
        marked: The tokens up to the last `cache_control` mark; 0 without one.
        ttl: The ttl of that mark, `5m` by default.
    """

    total: int
    marked: int
    ttl: str


def prompt_tokens(params: Mapping[str, Any]) -> PromptTokens:
    """Estimate the tokens of tools, system prompt and messages, plus a few for the framing of each message."""
    messages = params["messages"]
    total, marked, ttl = 4 + 3 * len(messages), 0, "5m"
    # In the order in which prompt caching processes them.
    blocks: list[Any] = [*(params.get("tools") or ())]
    for content in (params.get("system"), *(message["content"] for message in messages)):
        if isinstance(content, str):
            blocks.append(content)
        elif content is not None:
            blocks += content
    for block in blocks:
        if isinstance(block, str):
            total += -(-len(block) // CHARS_PER_TOKEN)
            continue
        total += _block_tokens(block)
        if isinstance(mark := block.get("cache_control"), dict):
            marked, ttl = total, mark.get("ttl", "5m")
    if isinstance(mark := params.get("cache_control"), dict):
        marked, ttl = total, mark.get("ttl", "5m")
    return PromptTokens(total, marked, ttl)


def _block_tokens(block: Mapping[str, Any]) -> int:
    kind = block.get("type")
    if kind == "text":
        return text_tokens(block["text"])
    if kind in ("image", "document"):
        return _MEDIA_TOKENS
    return -(-len(orjson.dumps(block)) // CHARS_PER_TOKEN)
