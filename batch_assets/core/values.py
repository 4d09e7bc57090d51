"""Values of a row on their way into a request: what may stand where the API wants text, and their JSON."""

from __future__ import annotations

import base64
from typing import Any

import orjson

# Where the API wants text: https://platform.claude.com/docs/en/api/messages
TEXT_KEYS = frozenset({"content", "text", "system"})


class RowRejectedError(Exception):
    """A row that cannot become a request.

    Attributes:
        reason: `template_error`, `empty_prompt`, `invalid_unicode` or `request_too_large`.
        message: what was wrong, naming the field.
    """

    def __init__(self, reason: str, message: str) -> None:
        self.reason, self.message = reason, message
        super().__init__(message)


def as_text(value: Any, field: str) -> Any:
    """What the API takes where it wants text: a scalar becomes text, null and white space reject the row."""
    if value is None:
        raise RowRejectedError("empty_prompt", f"{field}: the value is null")
    if isinstance(value, str):
        if not value or value.isspace():
            raise RowRejectedError("empty_prompt", f"{field}: the text is empty")
        return value
    if isinstance(value, list | tuple | dict):
        return checked(value, field)
    if isinstance(value, bytes):
        raise RowRejectedError("template_error", f"{field}: bytes are not text: use | base64")
    return str(value)


def checked(value: Any, field: str) -> Any:
    """A list or object from the dataset, with the texts in it held to the same rule."""
    if isinstance(value, dict):
        for key, sub in value.items():
            if key in TEXT_KEYS:
                as_text(sub, f"{field}.{key}")
    elif isinstance(value, list | tuple):
        for position, sub in enumerate(value):
            checked(sub, f"{field}[{position}]")
    return value


def dump(value: Any, field: str) -> bytes:
    try:
        return orjson.dumps(value, default=_json_form)
    except TypeError as error:
        if "surrogates" in str(error):
            problem = "the text is not valid Unicode (a lone surrogate)"
            raise RowRejectedError("invalid_unicode", f"{field}: {problem}") from None
        raise RowRejectedError("template_error", f"{field}: {error}") from None


def _json_form(value: Any) -> str:
    if isinstance(value, bytes):
        raise TypeError("bytes have no JSON form: use | base64")
    return str(value)


def to_base64(value: bytes | str) -> str:
    return base64.b64encode(value.encode() if isinstance(value, str) else value).decode()
