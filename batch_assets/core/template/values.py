"""Convert values of a row for a request: to text where the API wants text, and to JSON."""

from __future__ import annotations

import base64
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jinja2
import orjson
from jinja2.utils import Cycler

from batch_assets.core.errors import ErrorType
from batch_assets.core.template.key_access import Absent

# The fields in which the API wants text: https://platform.claude.com/docs/en/api/messages
TEXT_KEYS = frozenset({"content", "text", "system"})
# The fields in which the API accepts any JSON. Names such as `text` have no special meaning within them.
DATA_KEYS = frozenset({"input", "input_examples", "input_schema", "schema"})

Check = Callable[[Any, str], Any]
"""Takes (value, field), and returns the value as the API accepts it there or raises RowRejectedError."""


class RowRejectedError(Exception):
    """A row that cannot become a request.

    Attributes:
        error_type: The type of the error, for the row.
        message: What was wrong, with the field.
    """

    def __init__(self, error_type: ErrorType, message: str) -> None:
        self.error_type, self.message = error_type, message
        super().__init__(message)


def as_text(value: Any, field: str) -> Any:
    """Return a value for a field in which the API wants text. A scalar becomes text.

    Args:
        value: The value.
        field: The field, for errors.

    Raises:
        RowRejectedError: When the value is null or empty, or cannot become text.
    """
    if value is None:
        raise RowRejectedError(ErrorType.EMPTY_PROMPT, f"{field}: the value is null")
    if isinstance(value, str):
        if not value or value.isspace():
            raise RowRejectedError(ErrorType.EMPTY_PROMPT, f"{field}: the text is empty")
        return value
    if isinstance(value, list | tuple | dict):
        if not value:
            raise RowRejectedError(ErrorType.EMPTY_PROMPT, f"{field}: the value is empty")
        return checked(value, field)
    try:
        return str(printed(value))
    except Exception as error:  # the number may have too many digits, the undefined value its own error
        raise RowRejectedError(ErrorType.TEMPLATE_ERROR, f"{field}: {reason(error)}") from None


def reason(error: Exception) -> str:
    """Return why a value has no text or JSON form.

    Args:
        error: What its conversion raised.
    """
    text = str(error) or type(error).__name__
    if "integer string conversion" in text:
        return f"a whole number has more than {sys.get_int_max_str_digits()} digits, too many to print"
    return text


def checked(value: Any, field: str) -> Any:
    """Return a list or object from the dataset, with `as_text` applied to its fields in which the API wants text.

    Raises:
        RowRejectedError: See `as_text`.
    """
    if isinstance(value, dict):
        return {key: as_text(sub, f"{field}.{key}") if key in TEXT_KEYS else sub for key, sub in value.items()}
    if isinstance(value, list | tuple):
        return [checked(sub, f"{field}[{position}]") for position, sub in enumerate(value)]
    return value


def printed(value: Any) -> Any:
    """Return what a template prints for a value. Null prints as nothing.

    Raises:
        TypeError: When the value has no text form. Functions and generators would print their memory address,
            which differs from process to process.
    """
    if value is None:
        return ""
    if isinstance(value, str | int | float | jinja2.Undefined):
        return value
    if isinstance(value, bytes):
        raise TypeError("bytes are not text: use | base64, or .decode() if they contain text")
    if callable(value) or isinstance(value, Cycler):
        raise TypeError("a function of the template language is not a value, and there is no column of that name")
    if isinstance(value, Iterator):
        raise TypeError("a filter's items are not text: add | list or | join")
    return value


def dump(value: Any, field: str) -> bytes:
    """Return a value as JSON.

    Raises:
        RowRejectedError: When the value has no JSON form or is not valid Unicode.
    """
    try:
        return orjson.dumps(value, default=_json_form)
    except Exception as error:
        if "surrogates" in str(error):
            problem = "the text is not valid Unicode (a lone surrogate)"
            raise RowRejectedError(ErrorType.INVALID_UNICODE, f"{field}: {problem}") from None
        raise RowRejectedError(ErrorType.TEMPLATE_ERROR, f"{field}: {_of_json(error)}") from None


def _of_json(error: Exception) -> str:
    return reason(error.__cause__ if isinstance(error.__cause__, Exception) else error)


def sent(value: Any, field: str, check: Check) -> bytes:
    """Check a value, and return it as JSON.

    Args:
        value: The value.
        field: The field, for errors.
        check: Its check.

    Raises:
        RowRejectedError: When the check refuses the value, or the value has no text or JSON form.
    """
    try:
        return dump(check(value, field), field)
    except RowRejectedError:
        raise
    except Exception as error:  # whatever a value does, it is its row that cannot be sent
        raise RowRejectedError(ErrorType.TEMPLATE_ERROR, f"{field}: {reason(error)}") from None


def _json_form(value: Any) -> str | None:
    if isinstance(value, Absent):
        return None
    if isinstance(value, bytes):
        raise TypeError("bytes have no JSON form: use | base64")
    return str(printed(value))


def to_base64(value: bytes | str | None) -> str:
    """Return bytes, or text in UTF-8, as Base64.

    Raises:
        TypeError: When the value is null or empty.
    """
    if value is None:
        raise TypeError("the value is null, which has no Base64 form")
    if value == b"":
        raise TypeError("there are no bytes in it")
    return base64.b64encode(value.encode() if isinstance(value, str) else value).decode()
