"""Emulated answers: a deterministic function of a request's params.

The same params always get the same answer, so a test can compute the expected answer to a row. The texts say that
they are emulated, and contain a short digest and the beginning of the last user text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from batch_assets.emulator.caching import TTL_SECONDS, cache_usage
from batch_assets.emulator.draws import Draws
from batch_assets.emulator.params import output_schema
from batch_assets.emulator.schema_instance import schema_instance
from batch_assets.emulator.tokens import CHARS_PER_TOKEN, text_tokens
from batch_assets.emulator.wire import derived_id

ECHO_CHARS = 120
"""How much of the last user text an answer echoes, in characters."""

_OPENINGS = (
    "This is an emulated answer",
    "An emulated reply, made without a model,",
    "Emulated text, as no model was asked, in reply",
)
_CLOSINGS = ("", "\nNothing more is claimed here.", "\nIt may be repeated at will.", "\nEnd of the emulation.")

_NO_CACHE = {
    "cache_creation_input_tokens": 0,
    "cache_read_input_tokens": 0,
    "cache_creation": {f"ephemeral_{ttl}_input_tokens": 0 for ttl in TTL_SECONDS},
}


def text_digest(text: str) -> str:
    """Compute the eight hexadecimal digits that identify a text in the answer to it."""
    return hashlib.blake2b(text.encode(errors="replace"), digest_size=4).hexdigest()


def last_user_text(params: Mapping[str, Any]) -> str:
    """Return the text of the last user message, with its text blocks joined by newlines; "" if there is none.

    The texts of the results of tools count too.
    """
    for message in reversed(params["messages"]):
        if message["role"] == "user":
            return "\n".join(_texts(message["content"]))
    return ""


def _texts(content: Any) -> Iterator[str]:
    if isinstance(content, str):
        yield content
        return
    for block in content:
        if block["type"] == "text":
            yield block["text"]
        elif block["type"] == "tool_result":
            yield from _texts(block.get("content") or [])


def emulated_answer(params: Mapping[str, Any], cache_read: int = 0) -> dict[str, Any]:
    """Compute the answer to a request.

    A forced tool (tool_choice `tool` or `any`) gets a `tool_use` block with a valid input. A JSON schema gets a
    valid instance as text. Any other request gets a short text. `max_tokens` and `stop_sequences` cut the answer.

    Args:
        params: The params of the request.
        cache_read: The tokens of the prompt that are read from the cache.

    Returns:
        `content`, `stop_reason`, `stop_sequence` and `usage` of a message. The token counts are estimates.

    Raises:
        ValueError: When no value satisfies a schema.
    """
    canonical = orjson.dumps(params, option=orjson.OPT_SORT_KEYS)
    seed = int.from_bytes(hashlib.blake2b(canonical, digest_size=8).digest(), "big")
    tool = _forced_tool(params, seed)
    thinking = _thinking(params)
    if tool is not None:
        content, stop_reason, size = _tool_use(params, tool, seed)
        stop_sequence = None
    else:
        text, stop_reason, stop_sequence = _cut(params, _text(params, seed))
        content, size = [{"type": "text", "text": text}], text_tokens(text)
    return {
        "content": thinking + content,
        "stop_reason": stop_reason,
        "stop_sequence": stop_sequence,
        "usage": _usage(params, size + 20 * len(thinking), cache_read),
    }


def emulated_message(
    params: Mapping[str, Any], message_id: str, service_tier: str, cache_read: int = 0
) -> dict[str, Any]:
    """Make the whole message for a request, as in the answer of `POST /v1/messages` and in a result line.

    Args:
        params: The params of the request.
        message_id: The id of the message.
        service_tier: The service tier in its `usage`.
        cache_read: The tokens of the prompt that are read from the cache.

    Raises:
        ValueError: When no value satisfies a schema.
    """
    return whole_message(params, message_id, emulated_answer(params, cache_read), service_tier)


def whole_message(
    params: Mapping[str, Any], message_id: str, answer: Mapping[str, Any], service_tier: str
) -> dict[str, Any]:
    """Make a message from the answer to a request.

    Args:
        params: The params of the request.
        message_id: The id of the message.
        answer: Its `content`, `stop_reason`, `stop_sequence` and `usage`. Fields that its `usage` does not have
            are those of a request that uses no cache.
        service_tier: The service tier in its `usage`.
    """
    return {
        "model": params["model"],
        "id": message_id,
        "type": "message",
        "role": "assistant",
        "content": answer["content"],
        "stop_reason": answer["stop_reason"],
        "stop_sequence": answer["stop_sequence"],
        "stop_details": None,
        "usage": {
            **_NO_CACHE,
            "inference_geo": params.get("inference_geo") or "not_available",
            **answer["usage"],
            "service_tier": service_tier,
        },
    }


def _text(params: Mapping[str, Any], seed: int) -> str:
    schema = output_schema(params)
    if schema is not None:
        return orjson.dumps(schema_instance(schema, seed)).decode()
    user_text = last_user_text(params)
    echo = user_text[:ECHO_CHARS]
    opening, closing = _OPENINGS[seed % len(_OPENINGS)], _CLOSINGS[(seed >> 16) % len(_CLOSINGS)]
    return f"{opening} to text {text_digest(user_text)}: {echo}{closing}"


def _forced_tool(params: Mapping[str, Any], seed: int) -> dict[str, Any] | None:
    choice, tools = params.get("tool_choice"), params.get("tools")
    if not isinstance(choice, dict) or not tools:
        return None
    if choice.get("type") == "tool":
        return next((tool for tool in tools if tool["name"] == choice.get("name")), None)
    return Draws(seed).pick(tools) if choice.get("type") == "any" else None


def _tool_use(params: Mapping[str, Any], tool: dict[str, Any], seed: int) -> tuple[list[dict[str, Any]], str, int]:
    value = schema_instance(tool.get("input_schema", {"type": "object"}), seed)
    size = text_tokens(orjson.dumps(value).decode())
    stop_reason = "tool_use"
    if size > params["max_tokens"]:  # a truncated call has no usable input
        value, size, stop_reason = {}, params["max_tokens"], "max_tokens"
    block = {"type": "tool_use", "id": derived_id("toolu", str(seed)), "name": tool["name"], "input": value}
    return [block], stop_reason, size


def _thinking(params: Mapping[str, Any]) -> list[dict[str, Any]]:
    thinking = params.get("thinking")
    if not isinstance(thinking, dict) or thinking.get("type") != "enabled":
        return []
    return [{"type": "thinking", "thinking": "Emulated thinking.", "signature": "ZW11bGF0ZWQ="}]


def _cut(params: Mapping[str, Any], text: str) -> tuple[str, str, str | None]:
    """Cut a text at max_tokens and at the first stop sequence.

    Returns:
        The text, the stop reason, and the stop sequence that cut it (`None` for another reason).
    """
    stop_reason, stop_sequence = "end_turn", None
    limit = params["max_tokens"] * CHARS_PER_TOKEN
    if len(text) > limit:
        text, stop_reason = text[:limit], "max_tokens"
    for sequence in params.get("stop_sequences") or ():
        at = text.find(sequence) if sequence else -1
        if at >= 0:
            text, stop_reason, stop_sequence = text[:at], "stop_sequence", sequence
    return text, stop_reason, stop_sequence


def _usage(params: Mapping[str, Any], output: int, cache_read: int) -> dict[str, Any]:
    return {
        **cache_usage(params, cache_read),
        "output_tokens": output,
        "service_tier": "standard",
        "inference_geo": params.get("inference_geo") or "not_available",
    }
