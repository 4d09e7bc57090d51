"""One answer -> the value of a shape, exactly, or why it is none."""

from __future__ import annotations

import json
import re
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import orjson
import pyarrow as pa

from batch_assets.core.answers.limits import broken_limit
from batch_assets.core.answers.output_shapes import Shape
from batch_assets.core.io.json_text import FLOATS_SKIP, dump

_SHOWN_CHARACTERS = 60
_SHOWN_VALUES = 12
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
# https://www.rfc-editor.org/rfc/rfc3339#section-5.6, which is what `date-time` means in JSON Schema
_DATE_TIME = re.compile(r"(\d{4}-\d\d-\d\d)[Tt](\d\d:\d\d:\d\d)(?:\.(\d+))?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
# A number of fewer digits is exact as a float, and of fewer yet as the 64 bits that orjson keeps.
_MANY_DIGITS = re.compile(r"[0-9.]{16}|[0-9][eE][0-9+]")
_FITS = (-(2**63), 2**63)
# Python makes whole numbers of no more digits.
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
    """An answer that is no value of the schema; the text says why, naming the property."""


def parse(text: str, shape: Shape) -> dict[str, Any]:
    """The raw values of an answer's properties, as `Shape.raw` takes them.

    Args:
        text: the answer.
        shape: of an object; a property without Arrow type becomes text holding JSON.

    Errors:
        MismatchError: not JSON, or it does not match.
    """
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise MismatchError(f"the answer is not valid JSON: {error}") from None
    if _MANY_DIGITS.search(text):
        value = _load_exactly(text)
    if not isinstance(value, dict):
        raise MismatchError("the answer is not a JSON object")
    taken = _object(shape, value, "")
    for name, part in shape.fields.items():
        if part.raw is None and value.get(name) is not None:
            try:
                taken[name] = dump(value[name])
            except RecursionError:  # deeper than Python writes; orjson reads deeper
                raise MismatchError(f"the property {name!r} is nested too deeply") from None
    return taken


def _load_exactly(text: str) -> Any:
    """JSON with every digit of its whole numbers, of which floats keep 53 bits."""
    try:
        return json.loads(text, parse_int=_whole, parse_float=_number)
    except RecursionError:
        raise MismatchError("the answer is nested too deeply") from None


def _whole(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise MismatchError(f"the answer holds a number of {len(digits)} digits")
    return int(digits)


def _number(digits: str) -> int | float:
    number = float(digits)
    if number.is_integer() and abs(number) >= FLOATS_SKIP:
        exact = Decimal(digits)
        return int(exact) if exact == exact.to_integral_value() else number
    return number


def _take(shape: Shape, value: Any, path: str) -> Any:
    if value is None and shape.nullable:
        return None
    if shape.limits and (broken := broken_limit(shape.limits, shape.kind, value)) is not None:
        raise MismatchError(f"the property {path!r} is {_shown(value)}, {broken}")
    if shape.kind == "enum":
        return _member(shape, value, path)
    if shape.kind == "any":
        return value
    elif shape.kind == "object" and isinstance(value, dict):
        return _object(shape, value, path + ".")
    elif shape.kind == "array" and shape.items is not None and isinstance(value, list):
        return [_take(shape.items, item, f"{path}[{position}]") for position, item in enumerate(value)]
    elif shape.kind == "union":
        for option in shape.options:
            try:
                return _take(option, value, path)
            except MismatchError:
                continue
    elif (taken := _scalar(shape.kind, value)) is not None:
        return taken
    is_large = shape.kind == "integer" and type(value) in (int, float) and _is_whole(value)
    problem = "more than the 64 bits of a column hold" if is_large else f"not {_NAMES[shape.kind]}"
    raise MismatchError(f"the property {path!r} is {_shown(value)}, {problem}")


def _object(shape: Shape, value: dict[str, Any], prefix: str) -> dict[str, Any]:
    if shape.closed and (more := next((name for name in value if name not in shape.fields), None)) is not None:
        raise MismatchError(f"the schema has no property {prefix + more!r}")
    taken: dict[str, Any] = {}
    for name, part in shape.fields.items():
        path = prefix + name
        if name not in value:
            if name in shape.required:
                raise MismatchError(f"the answer lacks the property {path!r}")
        elif value[name] is not None or name in shape.required:
            # null for what may be left out says no more than leaving it out
            taken[name] = _take(part, value[name], path)
    return taken


def _scalar(kind: str, value: Any) -> Any:
    """The value in Python's matching type, None when it is not of the kind."""
    number = type(value) in (int, float)
    if kind == "string":
        return value if isinstance(value, str) else None
    if kind == "boolean":
        return value if isinstance(value, bool) else None
    if kind == "number":
        return _float(value) if number else None
    if kind == "integer":
        return int(value) if number and _is_whole(value) and _FITS[0] <= value < _FITS[1] else None
    if isinstance(value, str) and kind in ("date", "date-time"):
        return _day(value) if kind == "date" else _moment(value)
    return None


def _is_whole(value: int | float) -> bool:
    """Whole numbers that floats may not hold are no floats here: see `_number`."""
    return isinstance(value, int) or (value.is_integer() and abs(value) < FLOATS_SKIP)


def _float(value: int | float) -> float | None:
    try:
        return float(value)
    except OverflowError:
        return None


def _day(text: str) -> str | None:
    try:
        return date.fromisoformat(text).isoformat() if _DATE.fullmatch(text) else None
    except ValueError:
        return None


def _moment(text: str) -> str | None:
    """The moment in UTC, to the microsecond; finer digits are cut off."""
    parts = _DATE_TIME.fullmatch(text)
    if parts is None:
        return None
    day, time, fraction, offset = parts.groups()
    try:
        moment = datetime.fromisoformat(f"{day}T{time}.{(fraction or '')[:6]:0<6}{offset.upper()}")
        return moment.astimezone(UTC).isoformat(timespec="microseconds")
    except (ValueError, OverflowError):
        return None


def _member(shape: Shape, value: Any, path: str) -> Any:
    if not any(_equal(member, value) for member in shape.values):
        raise MismatchError(
            f"unexpected value {_shown(value)} of the property {path!r}; expected is one of {_members(shape)}"
        )
    if type(value) in (int, float):
        return int(value) if shape.raw == pa.int64() else float(value)
    return value


def _equal(member: Any, value: Any) -> bool:
    """As JSON Schema says it: 1 and 1.0 are equal, true and 1 are not."""
    if isinstance(member, bool) or isinstance(value, bool):
        return member is value
    return bool(member == value)


def _members(shape: Shape) -> str:
    named = ", ".join(_shown(value) for value in shape.values[:_SHOWN_VALUES])
    more = len(shape.values) - _SHOWN_VALUES
    return f"{named} and {more} more" if more > 0 else named


def _shown(value: Any) -> str:
    if isinstance(value, list | dict):
        text = "a list" if isinstance(value, list) else "an object"
    else:
        text = repr(value) if isinstance(value, str) else dump(value)
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"
