"""The template filters `tojson` and `fromjson`."""

from __future__ import annotations

import json
import math
from collections.abc import ItemsView, Iterator, KeysView, Mapping, ValuesView
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from json.encoder import encode_basestring
from typing import Any

import jinja2

from batch_assets.core.repeated_keys import RepeatedKeyError, checked_object
from batch_assets.core.template.key_access import Absent
from batch_assets.core.template.written_numbers import FLOATS_SKIP, NumberTooLargeError, written_number


def to_json(value: Any, indent: int | None = None) -> str:
    """Return a value as JSON, as a person would write it: with keys in their own order, and no needless escapes.

    Args:
        value: The value. Dates and times become ISO text, decimals numbers, NaN and infinities null.
        indent: The number of spaces for each level; `None` for one line.

    Raises:
        TypeError: When the value, or one within it, has no JSON form.
    """
    if isinstance(value, Iterator | KeysView | ValuesView | ItemsView | range):  # such as the filter `map` returns
        value = list(value)
    return "".join(_written(value, indent, "\n" if indent is not None else ""))


def _written(value: Any, indent: int | None, line: str) -> Iterator[str]:
    """Yield the parts of the JSON.

    Args:
        value: The value.
        indent: See `to_json`.
        line: A line break and the indent of the value; "" for one line.
    """
    if not isinstance(value, Mapping | list | tuple):
        yield _scalar(value)
        return
    opening, closing = "{}" if isinstance(value, Mapping) else "[]"
    if not value:
        yield opening + closing
        return
    inner = line + " " * indent if indent is not None else ""
    separator = opening + inner
    for entry in value:
        yield separator
        if isinstance(value, Mapping):
            yield f"{_key(entry)}: "
            entry = value[entry]
        yield from _written(entry, indent, inner)
        separator = f",{inner}" if line else ", "
    yield line + closing


def _key(key: Any) -> str:
    if isinstance(key, str):
        return encode_basestring(key)
    text = _scalar(key)
    return text if text.startswith('"') else f'"{text}"'


def _scalar(value: Any) -> str:
    if isinstance(value, Absent):
        return "null"
    if isinstance(value, jinja2.Undefined):
        str(value)  # raises the error that names it
    if isinstance(value, str):
        return encode_basestring(value)
    if value is None or value is True or value is False:
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int):
        return int.__repr__(value)
    if isinstance(value, float):
        return float.__repr__(value) if math.isfinite(value) else "null"
    if isinstance(value, Decimal):
        return format(value, "f") if value.is_finite() else "null"
    if isinstance(value, datetime | date | time):
        return f'"{value.isoformat()}"'
    if isinstance(value, bytes):
        raise TypeError("bytes have no JSON form: use | base64")
    if callable(value):
        raise TypeError(
            "a function of the template language has no JSON form, and there is no column of that name"
        )
    if isinstance(value, timedelta):
        return encode_basestring(str(value))
    raise TypeError(f"a {type(value).__name__} has no JSON form")


def from_json(text: Any, *, is_exact: bool = True) -> Any:
    """Return the value of JSON text. Null stays null, and whole numbers are integers: 1.0 becomes 1.

    Args:
        text: The text, or null.
        is_exact: Whether numbers are read by `written_number`, as from rendering 3 on.

    Raises:
        TypeError: When the value is not text.
        ValueError: When the text is not JSON, an object in it has a key twice, or a number is too large.
    """
    if text is None:
        return None
    if not isinstance(text, str):
        raise TypeError(f"fromjson takes JSON text, not {_kind(text)}")
    try:
        return json.loads(
            text,
            parse_float=written_number if is_exact else _number,
            parse_constant=lambda _: None,
            object_pairs_hook=checked_object,
        )
    except RecursionError:
        raise ValueError("fromjson: the text is nested too deeply") from None
    except (NumberTooLargeError, RepeatedKeyError) as error:
        raise ValueError(f"fromjson: {error}") from None
    except ValueError as error:
        raise ValueError(f"fromjson: the text is not JSON: {error}") from None


def _number(digits: str) -> int | float | None:
    number = float(digits)
    if not math.isfinite(number):
        return None
    return int(number) if number.is_integer() and abs(number) < FLOATS_SKIP else number


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "true or false"
    kinds = {"an object": Mapping, "a list": list | tuple, "a number": int | float | Decimal}
    return next((kind for kind, types in kinds.items() if isinstance(value, types)), type(value).__name__)
