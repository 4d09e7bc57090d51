"""What the params of requests show about their cost: text, media, searches, and the prefix that they share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile
from typing import Any

_MEDIA_TOKENS = 1600
"""Of an image, or of a page of a document, whose number of pages is not looked at."""
_PROMPT = ("tools", "system", "messages")
_DATA = ("image", "document")
_SERVER_TOOLS = ("web_search", "web_fetch", "code_execution")


def characters(value: Any) -> int:
    """Count the characters of the texts and names in a part of a prompt, without the data of media."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Mapping):
        if value.get("type") in _DATA and isinstance(value.get("source"), Mapping):
            value = {key: each for key, each in value.items() if key != "source"} | _text_of(value["source"])
        return sum(len(key) + characters(each) for key, each in value.items() if key != "cache_control")
    if isinstance(value, Sequence):
        return sum(map(characters, value))
    return 0


def _text_of(source: Mapping[str, Any]) -> dict[str, Any]:
    """Return the text of a document that is text."""
    return {"data": source.get("data")} if source.get("type") == "text" else {}


def prompt_characters(params: Mapping[str, Any]) -> int:
    """Count the characters of a request's tools, system prompt, messages and output schema."""
    output = params.get("output_config")
    schema = output.get("format") if isinstance(output, Mapping) else None
    return sum(characters(params.get(name)) for name in _PROMPT) + characters(schema)


def media_tokens(params: Mapping[str, Any]) -> int:
    """Estimate the tokens of a request's images and documents, whatever their size."""
    return sum(_MEDIA_TOKENS for block in blocks(params) if _is_media(block))


def _is_media(block: Any) -> bool:
    if not isinstance(block, Mapping) or block.get("type") not in _DATA:
        return False
    source = block.get("source")
    return not isinstance(source, Mapping) or source.get("type") != "text"


def most_searches(params: Mapping[str, Any]) -> int | None:
    """Return the most web searches that a request allows; `None` if it does not limit them."""
    limits = [tool.get("max_uses") for kind, tool in _tools(params) if kind.startswith("web_search")]
    known = [max(0, limit) for limit in limits if isinstance(limit, int)]
    return sum(known) if len(known) == len(limits) else None


def has_server_tools(params: Mapping[str, Any]) -> bool:
    """Whether a request has tools that the API runs, whose results are further input."""
    return any(kind.startswith(_SERVER_TOOLS) for kind, _ in _tools(params))


def _tools(params: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the tools of a request, each with its type."""
    tools = params.get("tools")
    return [(str(tool.get("type")), tool) for tool in _listed(tools) if isinstance(tool, Mapping)]


def _listed(value: Any) -> list[Any]:
    """Return a list; nothing for any other value, which the pipeline's own code may have made."""
    return value if isinstance(value, list) else []


def blocks(params: Mapping[str, Any]) -> Iterator[Any]:
    """Yield the blocks of a prompt in the order in which caching processes them; a text is one block."""
    yield from _listed(params.get("tools"))
    messages = [message for message in _listed(params.get("messages")) if isinstance(message, Mapping)]
    for content in (params.get("system"), *(message.get("content") for message in messages)):
        if isinstance(content, str):
            yield content
        yield from _listed(content)


def shared_prefix(requests: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Return the blocks that all requests begin with, which a cache could hold.

    Args:
        requests: The params of several different requests.
    """
    each = [list(blocks(params)) for params in requests]
    together = takewhile(lambda some: all(block == some[0] for block in some), zip(*each, strict=False))
    shared = [some[0] for some in together]
    models = {str(params.get("model")) for params in requests}
    return shared if len(models) == 1 and any(len(own) > len(shared) for own in each) else []
