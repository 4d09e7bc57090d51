"""The SDK's types of a request, and its version."""

from __future__ import annotations

import importlib.metadata
from typing import Any

from batch_assets.core.template.sdk_modules import sdk_module


def request_type(*, beta: bool) -> Any:
    """Return the installed SDK's TypedDict for the params of one request.

    Args:
        beta: Whether to return the type for beta features, which has more fields and blocks.
    """
    module = sdk_module("types.beta.message_create_params" if beta else "types.message_create_params")
    return module.MessageCreateParamsNonStreaming


def sdk_version() -> str:
    """Return the installed SDK's version."""
    return importlib.metadata.version("anthropic")
