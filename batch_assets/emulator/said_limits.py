"""Limits that a schema's description tells the model, because the API does not take them in the schema.

The form is the SDK's, which sends pydantic models so: `The stars.\n\n{maximum: 5, minimum: 1}`
(anthropic/lib/_parse/_transform.py). The emulator's model keeps to what it is told.
"""

import re
from collections.abc import Mapping
from typing import Any

_TOLD = re.compile(r"\{[^{}]*\w: .+\}\Z", re.DOTALL)
_NUMBER = re.compile(
    r"\b(minimum|maximum|exclusiveMinimum|exclusiveMaximum|multipleOf|minLength|maxLength|minItems|maxItems): "
    r"(-?\d+(?:\.\d+)?(?:e[+-]?\d+)?)(?=[,}])"
)
_PATTERN = re.compile(r"[{ ]pattern: (.+)\}\Z", re.DOTALL)


def with_said_limits(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema with the limits in its description as words of its own; those that it has already stay."""
    description = schema.get("description")
    told = _TOLD.search(description) if isinstance(description, str) else None
    if told is None:
        return dict(schema)
    limits: dict[str, Any] = {}
    text = told.group()
    pattern = _PATTERN.search(text)
    if pattern is not None:
        limits["pattern"] = pattern.group(1)
        text = text[: pattern.start()] + "}"
    for word, number in _NUMBER.findall(text):
        limits[word] = float(number) if set(number) & {".", "e"} else int(number)
    return {**limits, **schema}
