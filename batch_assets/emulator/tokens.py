"""Estimate tokens from the length of texts: three characters per token, deterministic and cheap.

The real tokenizer is not public. The public guides name between 2.5 and 3.5 characters of English per token,
depending on the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import orjson

CHARS_PER_TOKEN = 3
_MEDIA_TOKENS = 1600  # for an image or a document, whatever the length of its encoding


def text_tokens(text: str) -> int:
    """Estimate the tokens of a text, at least 1."""
    return max(1, -(-len(text) // CHARS_PER_TOKEN))


class Mark(NamedTuple):
    """A `cache_control` mark.

    Attributes:
        tokens: The tokens of the prompt up to the mark.
        ttl: How long the prompt up to the mark is cached: `5m` by default, or `1h`.
    """

    tokens: int
    ttl: str


class PromptTokens(NamedTuple):
    """Estimated tokens of a prompt.

    Attributes:
        total: All tokens.
        marks: The marks in the order of the prompt.
    """

    total: int
    marks: tuple[Mark, ...]


def prompt_blocks(params: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the role of each block of a prompt and the block, in the order in which prompt caching reads them.

    A text in the place of a list of blocks is one block.
    """
    for tool in params.get("tools") or ():
        yield "tool", tool
    contents = [("system", params.get("system"))]
    contents += [(message["role"], message["content"]) for message in params["messages"]]
    for role, content in contents:
        if isinstance(content, str):
            yield role, content
        elif content is not None:
            for block in content:
                yield role, block


def has_texts_only(params: Mapping[str, Any]) -> bool:
    """Whether each block of a prompt is a text in the place of a list of blocks: none can have a mark."""
    if params.get("tools") or not isinstance(params.get("system", ""), str):
        return False
    return all(isinstance(message["content"], str) for message in params["messages"])


def framing_tokens(params: Mapping[str, Any]) -> int:
    """Estimate the tokens of a prompt that no block has."""
    return 4 + 3 * len(params["messages"])


def ttl_of(marked: Mapping[str, Any]) -> str | None:
    """Return the ttl of the mark of a block, or of the params as a whole; `None` without a mark."""
    mark = marked.get("cache_control")
    return str(mark.get("ttl") or "5m") if isinstance(mark, dict) else None


def prompt_tokens(params: Mapping[str, Any]) -> PromptTokens:
    """Estimate the tokens of tools, system prompt and messages, plus a few for the framing of each message."""
    total, marks = framing_tokens(params), list[Mark]()
    for _, block in prompt_blocks(params):
        total += block_tokens(block)
        if not isinstance(block, str) and (ttl := ttl_of(block)) is not None:
            marks.append(Mark(total, ttl))
    if (ttl := ttl_of(params)) is not None:
        marks.append(Mark(total, ttl))
    return PromptTokens(total, tuple(marks))


def block_tokens(block: Mapping[str, Any] | str) -> int:
    """Estimate the tokens of a block."""
    if isinstance(block, str):
        return -(-len(block) // CHARS_PER_TOKEN)
    kind = block.get("type")
    if kind == "text":
        return text_tokens(block["text"])
    if kind in ("image", "document"):
        return _MEDIA_TOKENS
    return -(-len(orjson.dumps({key: block[key] for key in block if key != "cache_control"})) // CHARS_PER_TOKEN)
