"""What a pipeline's own code works with: rows, params, and the exception that rejects a row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from batch_assets.core.template.values import RowRejectedError

REASON = "render_request"
Row = dict[str, Any]
Params = dict[str, Any]


class RowRejected(RowRejectedError):
    """Raised by `render_request`: the row is rejected, with this message in its `error_message`."""

    def __init__(self, message: str) -> None:
        super().__init__(REASON, message)


def name_of(hook: Callable[..., Any]) -> str:
    """Where a function is found: its module and its name there."""
    name = getattr(hook, "__qualname__", None) or type(hook).__qualname__
    return f"{getattr(hook, '__module__', None) or type(hook).__module__}.{name}"
