"""Parse one answer into the values of a schema without losing precision, or say why it does not match."""

from __future__ import annotations

import json
import math
import re
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import orjson
import pyarrow as pa

from batch_assets.core.answers.limits import broken_limit
from batch_assets.core.answers.output_shapes import Shape
from batch_assets.core.io.json_text import FLOATS_SKIP, dump

_MAX_TEXT = 60
_MAX_MEMBERS = 12
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
# https://www.rfc-editor.org/rfc/rfc3339#section-5.6, which is what `date-time` means in JSON Schema
_DATE_TIME = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt]((?:[01]\d|2[0-3]):[0-5]\d):([0-5]\d|60)(?:\.(\d+))?"
    r"([Zz]|[+-](?:[01]\d|2[0-3]):[0-5]\d)",
    re.ASCII,
)
# Text that may hold a number with too many digits for a float. orjson reads shorter numbers exactly.
_MANY_DIGITS = re.compile(r"[0-9](?:[0-9.]{15}|[eE][0-9+])")
_FITS = (-(2**63), 2**63)
# Python refuses to convert whole numbers with more than 4300 digits.
_MOST_DIGITS = 4000
_NAMES = {
    "string": "a text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "null": "null",
    "date": "a date such as 2026-01-31",
    "date-time": "a time with its offset such as 2026-01-31T12:00:00Z",
    "array": "a list",
    "object": "an object",
    "union": "of a type that the schema allows",
}


class MismatchError(Exception):
    """An answer does not match the schema. The text names the property and says why."""


def parse(text: str, shape: Shape) -> dict[str, Any]:
    """Parse an answer into the raw values of its properties, as `Shape.raw` describes them.

    Args:
        text: The answer.
        shape: The shape of an object. A property without an Arrow type becomes text that holds JSON.

    Raises:
        MismatchError: When the answer is not JSON, or does not match the shape.
    """
    value = load(text)
    if not isinstance(value, dict):
        raise MismatchError("the answer is not a JSON object")
    values = _object(shape, value, "")
    for name, part in shape.fields.items():
        if part.raw is None and value.get(name) is not None:
            try:
                values[name] = dump(value[name])
            except RecursionError:  # orjson reads deeper nesting than Python's json writes
                raise MismatchError(f"the property {name!r} is nested too deeply") from None
    return values


def load(text: str) -> Any:
    """Parse an answer as JSON, with every digit of whole numbers.

    Raises:
        MismatchError: When it is not JSON, or has a number that is too large.
    """
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        problem = MismatchError(f"the answer is not valid JSON: {error}")
        if not _MANY_DIGITS.search(text):
            raise problem from None
        return _load_large_numbers(text, problem)
    return _load_exactly(text) if _MANY_DIGITS.search(text) else value


def _load_large_numbers(text: str, problem: MismatchError) -> Any:
    """Parse JSON that orjson refuses, perhaps only because a number is too large for a float."""
    try:
        value = _load_exactly(text)
        dump(value).encode()
    except (ValueError, RecursionError):  # also UnicodeEncodeError: a lone surrogate
        raise problem from None
    return value


def _load_exactly(text: str) -> Any:
    """Parse JSON and keep every digit of whole numbers. A float would keep 53 bits only."""
    try:
        return json.loads(text, parse_int=_integer, parse_float=_number, parse_constant=_no_constant)
    except RecursionError:
        raise MismatchError("the answer is nested too deeply") from None


def _no_constant(name: str) -> None:
    raise ValueError(f"JSON has no {name}")


def _integer(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise MismatchError(f"the answer has a number with {len(digits)} digits, more than can be read")
    return int(digits)


def _number(digits: str) -> int | float:
    number = float(digits)
    if math.isinf(number):
        raise MismatchError(f"the answer has the number {digits[:_MAX_TEXT]}, which is too large for a double")
    if number.is_integer() and abs(number) >= FLOATS_SKIP:
        exact = Decimal(digits)
        return int(exact) if exact == exact.to_integral_value() else number
    return number


def _convert(shape: Shape, value: Any, path: str, is_text: bool = False) -> Any:
    """Convert a parsed value to the raw value of a shape, or raise a MismatchError that names the path.

    Args:
        shape: The shape.
        value: The value.
        path: The path of the value in the answer.
        is_text: Whether its column holds JSON as text, so that the value need not fit into an Arrow type.
    """
    if value is None and shape.nullable:
        return None
    if shape.limits and (broken := broken_limit(shape.limits, shape.kind, value)) is not None:
        raise MismatchError(f"the property {path!r} is {shown(value)}, {broken}")
    if shape.kind == "enum":
        return _member(shape, value, path)
    if shape.kind == "any":
        return value
    elif shape.kind == "object" and isinstance(value, dict):
        return _object(shape, value, path + ".", is_text)
    elif shape.kind == "array" and shape.items is not None and isinstance(value, list):
        items, inner = shape.items, enumerate(value)
        return [_convert(items, item, f"{path}[{position}]", is_text) for position, item in inner]
    elif shape.kind == "union":
        for option in shape.options:
            try:
                return _convert(option, value, path, is_text)
            except MismatchError:
                continue
    elif (scalar := _scalar(shape.kind, value, is_text)) is not None:
        return scalar
    is_large = type(value) in (int, float) and shape.kind in ("integer", "number") and _is_whole(value)
    problem = "too large for a column of 64 bits" if is_large else f"not {_NAMES[shape.kind]}"
    raise MismatchError(f"the property {path!r} is {shown(value)}, {problem}")


def _object(shape: Shape, value: dict[str, Any], prefix: str, is_text: bool = False) -> dict[str, Any]:
    if shape.closed and (extra := next((name for name in value if name not in shape.fields), None)) is not None:
        raise MismatchError(f"the schema has no property {prefix + extra!r}")
    values: dict[str, Any] = {}
    for name, part in shape.fields.items():
        path = prefix + name
        if name not in value:
            if name in shape.required:
                raise MismatchError(f"the answer lacks the property {path!r}")
        elif value[name] is not None or name in shape.required:
            # A null for an optional property means the same as leaving it out.
            values[name] = _convert(part, value[name], path, is_text or (not prefix and part.raw is None))
    return values


def _scalar(kind: str, value: Any, is_text: bool) -> Any:
    """The value in Python's matching type; `None` if it is not of that kind."""
    is_number = type(value) in (int, float)
    if kind == "string":
        return value if isinstance(value, str) else None
    if kind == "boolean":
        return value if isinstance(value, bool) else None
    if is_number and is_text:
        return value if kind == "number" or (kind == "integer" and _is_whole(value)) else None
    if kind == "number":
        return _float(value) if is_number else None
    if kind == "integer":
        return int(value) if is_number and _is_whole(value) and _FITS[0] <= value < _FITS[1] else None
    if isinstance(value, str) and kind in ("date", "date-time"):
        return _date(value) if kind == "date" else _date_time(value)
    return None


def _is_whole(value: int | float) -> bool:
    """Whether a number is whole. Whole numbers too large for an exact float are ints by now; see `_number`."""
    return isinstance(value, int) or (value.is_integer() and abs(value) < FLOATS_SKIP)


def _float(value: int | float) -> float | None:
    try:
        return float(value)
    except OverflowError:
        return None


def _date(text: str) -> str | None:
    try:
        return date.fromisoformat(text).isoformat() if _DATE.fullmatch(text) else None
    except ValueError:
        return None


def _date_time(text: str) -> str | None:
    """The time in UTC, cut to microseconds; `None` if the text is not a time with an offset."""
    parts = _DATE_TIME.fullmatch(text)
    if parts is None:
        return None
    day, minute, second, fraction, offset = parts.groups()
    is_leap = second == "60"
    exact = f"{day}T{minute}:{'59' if is_leap else second}.{(fraction or '')[:6]:0<6}{offset.upper()}"
    try:
        moment = datetime.fromisoformat(exact).astimezone(UTC)
        if is_leap:  # the last second of a day in UTC; a timestamp counts it as the first of the next day
            if (moment.hour, moment.minute) != (23, 59):
                return None
            moment += timedelta(seconds=1)
        return moment.isoformat(timespec="microseconds")
    except (ValueError, OverflowError):
        return None


def _member(shape: Shape, value: Any, path: str) -> Any:
    if not any(_equal(member, value) for member in shape.values):
        raise MismatchError(
            f"unexpected value {shown(value)} of the property {path!r}; expected one of {_members(shape)}"
        )
    if shape.raw == pa.int64():
        return int(value)
    return float(value) if shape.raw == pa.float64() else value


def _equal(member: Any, value: Any) -> bool:
    """Compare as JSON Schema does: 1 and 1.0 are equal, true and 1 are not."""
    if isinstance(member, bool) or isinstance(value, bool):
        return member is value
    if isinstance(member, list) and isinstance(value, list):
        return len(member) == len(value) and all(map(_equal, member, value))
    if isinstance(member, dict) and isinstance(value, dict):
        return member.keys() == value.keys() and all(_equal(member[name], value[name]) for name in member)
    return bool(member == value)


def _members(shape: Shape) -> str:
    names = ", ".join(shown(value) for value in shape.values[:_MAX_MEMBERS])
    hidden = len(shape.values) - _MAX_MEMBERS
    return f"{names} and {hidden} more" if hidden > 0 else names


def shown(value: Any) -> str:
    """A value as errors show it, shortened."""
    if isinstance(value, list | dict):
        text = "a list" if isinstance(value, list) else "an object"
    else:
        text = repr(value) if isinstance(value, str) else dump(value)
    return shortened(text)


def shortened(text: str) -> str:
    """A text as errors show it."""
    return text if len(text) <= _MAX_TEXT else text[: _MAX_TEXT - 1] + "…"
