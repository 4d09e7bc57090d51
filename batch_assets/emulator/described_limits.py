r"""Read limits from the descriptions in a schema, where the SDK puts limits that the API does not accept.

The SDK writes the limits of pydantic models like this: `The stars.\n\n{maximum: 5, minimum: 1}`
(anthropic/lib/_parse/_transform.py). The emulated answers keep these limits.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_LIMITS = re.compile(r"\{[^{}]*\w: .+\}\Z", re.DOTALL)
_NUMBER = re.compile(
    r"\b(minimum|maximum|exclusiveMinimum|exclusiveMaximum|multipleOf|minLength|maxLength|minItems|maxItems): "
    r"(-?\d+(?:\.\d+)?(?:e[+-]?\d+)?)(?=[,}])"
)
_PATTERN = re.compile(r"[{ ]pattern: (.+)\}\Z", re.DOTALL)


def with_described_limits(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Copy a schema and add the limits in its description as keywords. Existing keywords stay."""
    description = schema.get("description")
    match = _LIMITS.search(description) if isinstance(description, str) else None
    if match is None:
        return dict(schema)
    limits: dict[str, Any] = {}
    text = match.group()
    pattern = _PATTERN.search(text)
    if pattern is not None:
        limits["pattern"] = pattern.group(1)
        text = text[: pattern.start()] + "}"
    for word, number in _NUMBER.findall(text):
        limits[word] = float(number) if set(number) & {".", "e"} else int(number)
    return {**limits, **schema}
