"""Requests of the Messages API in the form of OpenAI's chat API, and its answers in the form of messages.

https://platform.openai.com/docs/api-reference/chat describes the form. Ollama, llama.cpp, vLLM and LM Studio
follow it. What has no form there, such as a PDF, is refused before the server is asked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from batch_assets.emulator.params import output_schema
from batch_assets.emulator.wire import HttpError, derived_id

_STOP_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}
_TOOL_CHOICES = {"auto": "auto", "any": "required", "none": "none"}
_SAME = {"max_tokens": "max_tokens", "temperature": "temperature", "top_p": "top_p", "stop_sequences": "stop"}


def chat_body(params: Mapping[str, Any]) -> dict[str, Any]:
    """Make the body of a call of the chat API.

    Thinking is left out: each server has its own option for it.

    Args:
        params: The params of a request, which are valid.

    Raises:
        HttpError: 400 when the chat API has no form for a part of the request.
    """
    messages = []
    if params.get("system"):
        messages.append({"role": "system", "content": _text("system", params["system"])})
    for at, message in enumerate(params["messages"]):
        messages += _chat_messages(f"messages.{at}", message)
    body = {"model": params["model"], "messages": messages}
    body |= {theirs: params[ours] for ours, theirs in _SAME.items() if ours in params}
    schema = output_schema(params)
    if schema is not None:
        form = {"name": "answer", "strict": True, "schema": schema}
        body["response_format"] = {"type": "json_schema", "json_schema": form}
    if params.get("tools"):
        body["tools"] = [_tool(f"tools.{at}", tool) for at, tool in enumerate(params["tools"])]
        choice = params.get("tool_choice") or {"type": "auto"}
        named = {"type": "function", "function": {"name": choice.get("name")}}
        body["tool_choice"] = _TOOL_CHOICES.get(choice["type"], named)
    return body


def _refused(path: str, what: str) -> HttpError:
    return HttpError(400, f"{path}: OpenAI's chat API, which answers here, has no form for {what}")


def _tool(path: str, tool: Mapping[str, Any]) -> dict[str, Any]:
    if "input_schema" not in tool:
        raise _refused(path, f"the tool {tool.get('type')!r}")
    function = {"name": tool["name"], "parameters": tool["input_schema"]}
    if "description" in tool:
        function["description"] = tool["description"]
    return {"type": "function", "function": function}


def _text(path: str, content: Any) -> str:
    """Join the texts of a content that can only be text."""
    if isinstance(content, str):
        return content
    for at, block in enumerate(content):
        if block["type"] != "text":
            raise _refused(f"{path}.{at}", f"the block {block['type']!r} here")
    return "\n".join(block["text"] for block in content)


def _chat_messages(path: str, message: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a message as those of the chat API: each result of a tool is one of its own."""
    role, content = message["role"], message["content"]
    if isinstance(content, str):
        yield {"role": role, "content": content}
        return
    parts, calls = [], []
    for at, block in enumerate(content):
        field = f"{path}.content.{at}"
        match block["type"]:
            case "tool_result":
                answer = _text(f"{field}.content", block.get("content") or "")
                yield {"role": "tool", "tool_call_id": block["tool_use_id"], "content": answer}
            case "tool_use":
                function = {"name": block["name"], "arguments": orjson.dumps(block["input"]).decode()}
                calls.append({"id": block["id"], "type": "function", "function": function})
            case "thinking" | "redacted_thinking":
                pass
            case _:
                parts.append(_part(field, block))
    if role != "user" and parts:
        parts = [{"type": "text", "text": _text(f"{path}.content", parts)}]
    if calls:
        yield {"role": role, "content": parts[0]["text"] if parts else None, "tool_calls": calls}
    elif parts:
        is_one_text = len(parts) == 1 and parts[0]["type"] == "text"
        yield {"role": role, "content": parts[0]["text"] if is_one_text else parts}


def _part(path: str, block: Mapping[str, Any]) -> dict[str, Any]:
    """Make the chat API's form of a text, an image, or a document that is plain text."""
    source = block.get("source") or {}
    match block["type"], source.get("type"):
        case "text", _:
            return {"type": "text", "text": block["text"]}
        case "image", "base64":
            url = f"data:{source['media_type']};base64,{source['data']}"
            return {"type": "image_url", "image_url": {"url": url}}
        case "image", "url":
            return {"type": "image_url", "image_url": {"url": source["url"]}}
        case "document", "text":
            return {"type": "text", "text": source["data"]}
        case "document", ("base64" | "url"):
            raise _refused(path, "a PDF. Send its pages as text or as images")
        case kind, _:
            raise _refused(path, f"the block {kind!r}")


def chat_answer(body: Mapping[str, Any]) -> dict[str, Any]:
    """Make `content`, `stop_reason`, `stop_sequence` and `usage` of a message from an answer of the chat API.

    Args:
        body: The body of the answer.

    Returns:
        These fields. `usage` has `input_tokens` and `output_tokens`, if the server counts them.

    Raises:
        KeyError: When the body has another form. So do `IndexError`, `TypeError` and `ValueError`.
    """
    choice = body["choices"][0]
    message = choice["message"]
    content: list[dict[str, Any]] = []
    if text := _answered_text(message.get("content")):
        content.append({"type": "text", "text": text})
    calls = message.get("tool_calls") or []
    stop_reason = _STOP_REASONS.get(choice.get("finish_reason"), "end_turn")
    if calls and stop_reason == "end_turn":
        stop_reason = "tool_use"
    for at, call in enumerate(calls):
        function = call["function"]
        call_id = call.get("id") or derived_id("toolu", str(body.get("id")), str(at))
        argument = _arguments(function.get("arguments"), is_cut=stop_reason == "max_tokens")
        content.append({"type": "tool_use", "id": call_id, "name": function["name"], "input": argument})
    usage = body.get("usage") or {}
    return {
        "content": content or [{"type": "text", "text": ""}],
        "stop_reason": stop_reason,
        "stop_sequence": None,
        "usage": {
            "input_tokens": usage.get("prompt_tokens"),
            "output_tokens": usage.get("completion_tokens"),
        },
    }


def _answered_text(content: Any) -> str:
    """Return the text of an answer, which some servers send in parts, with the model's thinking in others."""
    if isinstance(content, list):
        return "".join(part["text"] for part in content if part["type"] == "text")
    return str(content or "")


def _arguments(arguments: Any, *, is_cut: bool) -> Any:
    """Return the input of a tool. Some servers have empty text or null for none, or an object in place of JSON."""
    if not arguments or isinstance(arguments, dict):
        return arguments or {}
    try:
        return orjson.loads(arguments)
    except orjson.JSONDecodeError:
        if is_cut:  # a truncated call has no usable input
            return {}
        raise
