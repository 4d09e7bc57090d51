"""Types for a pipeline's own functions: rows, params, calls of tools, and the exceptions that they raise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from batch_assets.core.errors import ErrorType
from batch_assets.core.template.values import RowRejectedError

Row = dict[str, Any]
Params = dict[str, Any]


class RowRejected(RowRejectedError):
    """Raised by `render_request` to reject a row. The text becomes the row's `error_message`.

    Args:
        message: The reason.
    """

    def __init__(self, message: str) -> None:
        super().__init__(ErrorType.RENDER_REQUEST, message)


@dataclass(frozen=True)
class ToolCall:
    """A call of a tool in an answer.

    Attributes:
        id: The id of the call. It is the same when the function is called again after an interruption.
        name: The name of the tool.
        input: Its input. It matches the tool's `input_schema` only if the tool is `strict`.
        params: The params of the request that was answered.
    """

    id: str
    name: str
    input: dict[str, Any]
    params: Params


ToolFunction = Callable[[ToolCall], str | list[dict[str, Any]]]
"""Takes the call of a tool, and returns the content of its `tool_result`: a text, or content blocks."""
ToolFunctions = Mapping[str, ToolFunction]
"""A pipeline's functions by the names of their tools."""
NO_TOOLS: ToolFunctions = MappingProxyType({})


class ToolFailed(Exception):
    """Raised by the function of a tool to tell the model that the call failed; its message goes to the model."""


def name_of(hook: Callable[..., Any]) -> str:
    """Return the module and name of a function, such as `shop.shorten`."""
    name = getattr(hook, "__qualname__", None) or type(hook).__qualname__
    return f"{getattr(hook, '__module__', None) or type(hook).__module__}.{name}"
