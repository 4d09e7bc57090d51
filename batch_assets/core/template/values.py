"""Values of a row on their way into a request: what may stand where the API wants text, and their JSON."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import jinja2
import orjson

# Where the API wants text: https://platform.claude.com/docs/en/api/messages
TEXT_KEYS = frozenset({"content", "text", "system"})
# Where the API takes any JSON: what is called text below these is the author's own.
DATA_KEYS = frozenset({"input", "input_examples", "input_schema", "schema"})


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
    """What the API takes where it wants text: a scalar becomes text, null and what is empty reject the row."""
    if value is None:
        raise RowRejectedError("empty_prompt", f"{field}: the value is null")
    if isinstance(value, str):
        if not value or value.isspace():
            raise RowRejectedError("empty_prompt", f"{field}: the text is empty")
        return value
    if isinstance(value, list | tuple | dict):
        if not value:
            raise RowRejectedError("empty_prompt", f"{field}: there is nothing in it")
        return checked(value, field)
    try:
        return str(printed(value))
    except TypeError as error:
        raise RowRejectedError("template_error", f"{field}: {error}") from None


def checked(value: Any, field: str) -> Any:
    """A list or object from the dataset, with what stands in it in place of text held to the same rule."""
    if isinstance(value, dict):
        return {key: as_text(sub, f"{field}.{key}") if key in TEXT_KEYS else sub for key, sub in value.items()}
    if isinstance(value, list | tuple):
        return [checked(sub, f"{field}[{position}]") for position, sub in enumerate(value)]
    return value


def printed(value: Any) -> Any:
    """What a template prints for a value: null is nothing, and what has no text of its own is an error.

    Functions and generators would print with their address in memory, another one in every process.
    """
    if value is None:
        return ""
    if isinstance(value, str | int | float | jinja2.Undefined):
        return value
    if isinstance(value, bytes):
        raise TypeError("bytes are not text: use | base64, or .decode() where they hold text")
    if callable(value):
        raise TypeError("a function of the template language is no value, and no column has that name")
    if isinstance(value, Iterator):
        raise TypeError("a filter's items are not text: add | list or | join")
    return value


def dump(value: Any, field: str) -> bytes:
    try:
        return orjson.dumps(value, default=_json_form)
    except TypeError as error:
        if "surrogates" in str(error):
            problem = "the text is not valid Unicode (a lone surrogate)"
            raise RowRejectedError("invalid_unicode", f"{field}: {problem}") from None
        raise RowRejectedError("template_error", f"{field}: {error.__cause__ or error}") from None


def _json_form(value: Any) -> str:
    if isinstance(value, bytes):
        raise TypeError("bytes have no JSON form: use | base64")
    return str(printed(value))


def to_base64(value: bytes | str | None) -> str:
    if value is None:
        raise TypeError("the value is null, which has no Base64 form")
    if value == b"":
        raise TypeError("there are no bytes in it")
    return base64.b64encode(value.encode() if isinstance(value, str) else value).decode()
