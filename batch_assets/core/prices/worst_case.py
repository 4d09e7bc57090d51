"""The most that a request can cost by the price list: an upper bound that needs no count of its tokens.

A token has at least one byte, so a prompt has at most as many tokens as its params have bytes of JSON. An image
counts by the published maximum in place of its bytes. Where the bytes do not bound the prompt (a PDF, a URL, a
`file_id`, what server tools find), the context window of the model does.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from batch_assets.core.errors import UnboundedCostError
from batch_assets.core.prices.prices import Prices

# The most tokens of an image: https://platform.claude.com/docs/en/build-with-claude/vision
_IMAGE_TOKENS = 4_784
# What the API adds around the messages. It says that such tokens are not billed, so this is a margin only.
_FRAME_TOKENS = 50
# The system prompt of tool use, and what the API adds for a tool whose type it knows, such as text_editor. All
# published figures are below 1,000: https://platform.claude.com/docs/en/agents-and-tools/tool-use/overview
_TOOLS_TOKENS = 1_000
# Server tools with a limit in `max_uses`. The others run as often as the model wants.
_SEARCH = "web_search_"
_LIMITED = (_SEARCH, "web_fetch_")
_CLIENT = ("custom", "bash_", "text_editor_", "computer_", "memory_")
_UNLIMITED_FIELDS = {
    "mcp_servers": "calls of MCP servers",
    "container": "code execution",
    "fallbacks": "fallbacks",
}
# Edits of the context that only remove tokens. Compaction asks the model for a summary.
_ONLY_REMOVES = "clear_"


def worst_case(prices: Prices, params: bytes, *, writes_cache: bool = False, is_live: bool = False) -> int:
    """Return the most that a request can cost, in picodollars.

    Args:
        prices: The prices in force.
        params: The params as JSON.
        writes_cache: It may write the prompt cache for an hour, even without `cache_control` in the params.
        is_live: It is asked by a live call, and not in a batch.

    Raises:
        UnboundedCostError: When nothing bounds the cost: the model has no price, or a tool no `max_uses`.
    """
    request = parsed_params(params)
    model, max_tokens = request.get("model"), request.get("max_tokens")
    if not isinstance(model, str) or not prices.knows(model):
        raise UnboundedCostError(f"there is no price for {model}", "params.model")
    if type(max_tokens) is not int or max_tokens < 0:
        raise UnboundedCostError("it is not a whole number, so it bounds no answer", "params.max_tokens")
    searches, fetches = server_tool_uses(request)
    calls = searches + fetches + 1
    prompt = _prompt_tokens(request, len(params)) if calls == 1 else None
    window = prices.context_window(model)
    if prompt is None and window is None:
        raise UnboundedCostError(
            f"its prompt may be as long as the context window of {model}, which is not in the price file: add "
            "`context_window` there"
        )
    most = min(limit for limit in (prompt, window) if limit is not None)
    writes_cache, geo = writes_cache or b'"cache_control"' in params, request.get("inference_geo")
    one_call = prices.at_most(model, most, max_tokens, writes_cache=writes_cache, geo=geo, is_live=is_live)
    return calls * one_call + searches * prices.search_fee


def server_tool_uses(request: Mapping[str, Any]) -> tuple[int, int]:
    """Return how many searches and fetches the server tools of a request allow.

    Args:
        request: The params. Values that only a row can give may be anything else than they will be.

    Raises:
        UnboundedCostError: When a tool can be used without limit. Names the field.
    """
    for field, what in _UNLIMITED_FIELDS.items():
        if request.get(field):
            raise UnboundedCostError(f"nothing limits the cost of {what}", f"params.{field}")
    if (edit := _costly_edit(request.get("context_management"))) is not None:
        raise UnboundedCostError("nothing limits the cost of an edit of the context such as compaction", edit)
    uses = dict.fromkeys(_LIMITED, 0)
    tools = request.get("tools")
    for number, tool in enumerate(tools if isinstance(tools, list) else ()):
        kind = tool.get("type", "custom") if isinstance(tool, Mapping) else None
        if not isinstance(kind, str) or kind.startswith(_CLIENT):
            continue
        limit, field = tool.get("max_uses"), f"params.tools[{number}]"
        name = next((name for name in _LIMITED if kind.startswith(name)), None)
        if name is None:
            raise UnboundedCostError(f"nothing limits what the tool {kind} costs", field)
        if "max_uses" not in tool or limit is None:
            raise UnboundedCostError(f"nothing limits how often {kind} is used: give it `max_uses`", field)
        if type(limit) is int:
            uses[name] += max(0, limit)
    return uses[_SEARCH], uses["web_fetch_"]


def _costly_edit(management: Any) -> str | None:
    """Return the field with an edit of the context that may do more than remove tokens; `None` without one."""
    field = "params.context_management"
    if not management:
        return None
    edits = management.get("edits", []) if isinstance(management, Mapping) else None
    if not isinstance(edits, list):
        return field
    kinds = (edit.get("type") if isinstance(edit, Mapping) else None for edit in edits)
    removes = [isinstance(kind, str) and kind.startswith(_ONLY_REMOVES) for kind in kinds]
    return None if all(removes) else f"{field}.edits[{removes.index(False)}].type"


def parsed_params(params: bytes) -> dict[str, Any]:
    """Parse the params of a request; nothing if they are no object, which the pipeline's own code may return.

    Args:
        params: The params as JSON.
    """
    try:
        request = orjson.loads(params)
    except orjson.JSONDecodeError:  # it takes no lone surrogates
        request = json.loads(params)
    return request if isinstance(request, dict) else {}


def _prompt_tokens(request: Mapping[str, Any], size: int) -> int | None:
    """Return the most tokens that a prompt has; `None` if its bytes do not bound them."""
    tokens = size + _FRAME_TOKENS
    tools = request.get("tools")
    if tools:
        tokens += _TOOLS_TOKENS * (1 + len(tools))
    for kind, source in _sources(request):
        data = source.get("data")
        if source.get("type") == "base64" and kind == "image" and isinstance(data, str):
            tokens += _IMAGE_TOKENS - len(data)
        elif source.get("type") not in ("text", "content"):
            return None
    return tokens


def _sources(request: Mapping[str, Any]) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Yield (type of the block, source) of each block with a source, in messages, system prompt and results."""
    stack = [request.get("messages"), request.get("system")]
    while stack:
        value = stack.pop()
        if isinstance(value, list):
            stack += value
        elif isinstance(value, dict):
            source = value.get("source")
            if isinstance(source, dict):
                yield value.get("type"), source
                stack.append(source.get("content"))
            stack.append(value.get("content"))
