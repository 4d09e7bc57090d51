"""Types for a pipeline's own functions: rows, params, and the exception that rejects a row."""

from __future__ import annotations

from collections.abc import Callable
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


def name_of(hook: Callable[..., Any]) -> str:
    """Return the module and name of a function, such as `shop.shorten`."""
    name = getattr(hook, "__qualname__", None) or type(hook).__qualname__
    return f"{getattr(hook, '__module__', None) or type(hook).__module__}.{name}"
