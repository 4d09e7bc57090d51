"""Validate a request's `params`, with the API's error texts.

The API validates the requests of a batch after it has answered the create call, so a refusal becomes one `errored`
line. On `POST /v1/messages` the same refusal is the HTTP answer. Rules and texts follow the batch guide
(https://platform.claude.com/docs/en/build-with-claude/batch-processing), the API migration notes for version
2026-10-21 and public recordings of refusals.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from batch_assets.emulator.caching import marks_problem
from batch_assets.emulator.media import media_problem
from batch_assets.emulator.models import MODELS, OUTPUT_300K_BETA
from batch_assets.emulator.schema_instance import schema_problem
from batch_assets.emulator.tool_results import tool_results_problem

NO_SAMPLING_VERSION = "2026-10-21"
"""The first `anthropic-version` that refuses `temperature`, `top_p` and `top_k`."""

_SAMPLING = ("temperature", "top_p", "top_k")
_UNBATCHABLE = ("speed", "fallbacks", "store", "previous_thread_event_id", "cache_hint", "context_hint")
_USUAL = frozenset(
    (
        *("model", "max_tokens", "messages", "system", "metadata", "stop_sequences", "tools", "tool_choice"),
        *("output_config", "output_format", "thinking", "service_tier", "inference_geo", "cache_control"),
    )
)
_UNUSUAL = frozenset(
    (
        *_SAMPLING,
        "stream",
        "container",
        "context_management",
        "mcp_servers",
        "diagnostics",
        "speed",
        "fallbacks",
    )
)
_ROLES = ("user", "assistant", "system")
_NON_EMPTY = "text content blocks must be non-empty"


class Refusal(NamedTuple):
    """Why a request is refused.

    Attributes:
        type: The `error.type`.
        message: The `error.message`.
    """

    type: str
    message: str


def _invalid(message: str) -> Refusal:
    return Refusal("invalid_request_error", message)


def check_params(
    params: Mapping[str, Any], *, version: str = "", betas: Collection[str] = (), batch: bool = True
) -> Refusal | None:
    """Check the params of a request.

    Args:
        params: The params.
        version: The `anthropic-version` header.
        betas: The values of the `anthropic-beta` header.
        batch: Whether to apply the rules that are valid only in a batch.

    Returns:
        Why the API would refuse the request; `None` if it is valid.
    """
    for name in ("model", "max_tokens", "messages"):
        if name not in params:
            return _invalid(f"{name}: Field required")
    if not params.keys() <= _USUAL:
        refusal = _check_unusual(params, version, batch)
        if refusal is not None:
            return refusal
    return (
        _check_messages(params["messages"], params["model"])
        or _check_model(params, version, betas, batch)
        or _check_optional(params)
    )


def _check_unusual(params: Mapping[str, Any], version: str, batch: bool) -> Refusal | None:
    if batch and params.get("stream"):
        return _invalid('"stream=True" is not supported in the Message Batches API')
    for name in params:
        if batch and name in _UNBATCHABLE:
            return _invalid(f'"{name}" is not supported in the Message Batches API')
        if name not in _USUAL and name not in _UNUSUAL:
            return _invalid(f"{name}: Extra inputs are not permitted")
        if name in _SAMPLING and version >= NO_SAMPLING_VERSION:
            return _invalid(f"{name}: Extra inputs are not permitted")
    return None


def _check_model(params: Mapping[str, Any], version: str, betas: Collection[str], batch: bool) -> Refusal | None:
    name, max_tokens = params["model"], params["max_tokens"]
    if not isinstance(name, str):
        return _invalid("model: Input should be a valid string")
    if type(max_tokens) is not int:
        return _invalid("max_tokens: Input should be a valid integer")
    model = MODELS.get(name)
    if model is None:
        return Refusal("not_found_error", f"model: {name}")
    if max_tokens < (1 if batch else 0):
        least = 1 if batch else 0
        return _invalid(f"max_tokens: Input should be greater than or equal to {least}")
    limit = 300_000 if batch and model.output_300k and OUTPUT_300K_BETA in betas else model.max_tokens
    if max_tokens > limit:
        return _invalid(
            f"max_tokens: {max_tokens} > {limit}, which is the maximum allowed number of output tokens for {name}"
        )
    for key in _SAMPLING:
        if not model.sampling and params.get(key) not in (None, 1):
            return _invalid(f"`{key}` is not supported by {name}")
    return None


def _check_messages(messages: Any, model: Any) -> Refusal | None:
    if not isinstance(messages, list):
        return _invalid("messages: Input should be a valid list")
    if not messages:
        return _invalid("messages: at least one message is required")
    for at, message in enumerate(messages):
        if not isinstance(message, dict):
            return _invalid(f"messages.{at}: Input should be a valid dictionary or object")
        if message.get("role") not in _ROLES:
            return _invalid(f"messages.{at}.role: Input should be 'user', 'assistant' or 'system'")
        if "content" not in message:
            return _invalid(f"messages.{at}.content: Field required")
        is_last = at == len(messages) - 1
        refusal = _check_content(message["content"], at, is_last and message["role"] == "assistant")
        if refusal is not None:
            return refusal
    known = MODELS.get(model) if isinstance(model, str) else None
    if known is not None and not known.prefill and _is_prefill(messages[-1]):
        return _invalid(
            "This model does not support assistant message prefill. The conversation must end with a user message."
        )
    problem = tool_results_problem(messages)
    if problem is None:
        problem = media_problem(messages, known.max_images) if known is not None else media_problem(messages)
    return _invalid(problem) if problem is not None else None


def _is_prefill(message: Mapping[str, Any]) -> bool:
    """Whether a message begins the answer. One that ends with another block than text continues a paused turn."""
    content = message["content"]
    if message["role"] != "assistant" or not content:
        return False
    return isinstance(content, str) or content[-1]["type"] == "text"


def _check_content(content: Any, at: int, may_be_empty: bool) -> Refusal | None:
    if isinstance(content, str):
        if content or may_be_empty:
            return None
        return _invalid(f"messages.{at}: user messages must have non-empty content")
    if not isinstance(content, list):
        return _invalid(f"messages.{at}.content: Input should be a valid string or list")
    if not content and not may_be_empty:
        return _invalid(f"messages.{at}: user messages must have non-empty content")
    for number, block in enumerate(content):
        if not isinstance(block, dict) or not isinstance(block.get("type"), str):
            return _invalid(f"messages.{at}.content.{number}.type: Field required")
        if block["type"] == "text" and not (isinstance(block.get("text"), str) and block["text"]):
            return _invalid(f"messages: {_NON_EMPTY}")
    return None


def _check_optional(params: Mapping[str, Any]) -> Refusal | None:
    system, stops = params.get("system"), params.get("stop_sequences")
    if isinstance(system, list):
        for block in system:
            if not (isinstance(block, dict) and isinstance(block.get("text"), str) and block["text"]):
                return _invalid(f"system: {_NON_EMPTY}")
    elif system is not None and not isinstance(system, str):
        return _invalid("system: Input should be a valid string or list")
    if stops is not None and not (isinstance(stops, list) and all(isinstance(stop, str) for stop in stops)):
        return _invalid("stop_sequences: Input should be a valid list of strings")
    if "tools" in params or "tool_choice" in params:
        refusal = _check_tools(params.get("tools"), params.get("tool_choice"))
        if refusal is not None:
            return refusal
    schema = output_schema(params)
    if schema is not None and (problem := schema_problem(schema)) is not None:
        return _invalid(f"output_config.format.schema: {problem}")
    marks = marks_problem(params)
    return _invalid(marks) if marks is not None else None


def _check_tools(tools: Any, choice: Any) -> Refusal | None:
    for at, tool in enumerate(tools or ()):
        if not isinstance(tool, dict) or not isinstance(tool.get("name"), str):
            return _invalid(f"tools.{at}.name: Field required")
        problem = schema_problem(tool["input_schema"]) if "input_schema" in tool else None
        if problem is not None:
            return _invalid(f"tools.{at}.input_schema: {problem}")
    kind = choice.get("type") if isinstance(choice, dict) else None
    if kind == "tool" and choice.get("name") not in [tool["name"] for tool in tools or ()]:
        return _invalid(f"tool_choice: Tool '{choice.get('name')}' not found in provided tools")
    if kind == "any" and not tools:
        return _invalid("tool_choice: may only be specified while providing tools")
    return None


def output_schema(params: Mapping[str, Any]) -> Any:
    """Return the JSON schema of the answer; `None` if there is none.

    It is in `output_config.format`, or in the older `output_format`.
    """
    config = params.get("output_config")
    form = (config.get("format") if isinstance(config, dict) else None) or params.get("output_format")
    if isinstance(form, dict) and form.get("type") == "json_schema":
        return form.get("schema")
    return None
