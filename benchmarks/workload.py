"""What every contender asks: the same model and the same prompt. And batches that no pipeline has sent."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

MODEL = "claude-haiku-5-5"
MAX_TOKENS = 300
SYSTEM = "You sum up customer messages for a support team. Answer with one short English sentence."
USER_TEMPLATE = "Sum up this message in one sentence.\n\n{{ text }}"
"""The user message, as a Jinja template over a row."""

POLL_SECONDS = 0.05


def params_for(content: Any = USER_TEMPLATE) -> dict[str, Any]:
    """Return the params of a request, with the content of its user message."""
    messages = [{"role": "user", "content": content}]
    return {"model": MODEL, "max_tokens": MAX_TOKENS, "system": SYSTEM, "messages": messages}


_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def create_batch(url: str, custom_id: str, content: str, max_tokens: int = MAX_TOKENS) -> dict[str, Any]:
    """Create a batch of one request at the emulator, and return it as the emulator's answer has it.

    Args:
        url: The URL of the emulator.
        custom_id: The `custom_id` of the request.
        content: The text of its message.
        max_tokens: Its `max_tokens`.
    """
    params = {"model": MODEL, "max_tokens": max_tokens, "messages": [{"role": "user", "content": content}]}
    body = json.dumps({"requests": [{"custom_id": custom_id, "params": params}]}).encode()
    headers = {"content-type": "application/json", "x-api-key": "bench", "anthropic-version": "2023-06-01"}
    request = urllib.request.Request(f"{url}/v1/messages/batches", body, headers)
    with _OPENER.open(request) as response:
        batch: dict[str, Any] = json.load(response)
    return batch
