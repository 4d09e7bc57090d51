"""JSON as bytes: reading a line, reading every digit of it, and writing it as the API does."""

from __future__ import annotations

import json
import math
import re
from decimal import Decimal
from typing import Any

import orjson

# Shorter integers fit into the 64 bits that orjson keeps, and shorter decimals into a float.
_LONG_NUMBER = re.compile(rb"[0-9](?:[0-9]{18}|[0-9.]{15}|[eE][0-9+])")
# Python parses no integers with more digits.
_MOST_DIGITS = 4000
FLOATS_SKIP = 2**53
"""From here on floats skip integers."""
_UNSIGNED = 2**64


class NestedTooDeeplyError(ValueError):
    """A line is nested more deeply than Python's JSON reader allows."""


def load_line(line: bytes) -> Any:
    """Parses a line; lone surrogates, which orjson refuses, become U+FFFD.

    Raises:
        NestedTooDeeplyError: The line has too many levels.
        ValueError: The line is not JSON.
    """
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        return _load_slowly(line)


def load_exactly(line: bytes) -> Any:
    """Parses a line with every digit of integers that `load_line` turns into inexact floats.

    These are integers beyond 64 bits, and those beyond 53 bits that are written as decimals.

    Raises:
        ValueError: The line is not JSON.
    """
    return _load_slowly(line) if _LONG_NUMBER.search(line) else load_line(line)


def dump(value: Any) -> str:
    """Serializes a value in the compact form that the API uses."""
    try:
        return orjson.dumps(value).decode()
    except TypeError:  # integers beyond 64 bits, and values nested deeper than orjson writes
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _load_slowly(line: bytes) -> Any:
    try:
        return without_surrogates(
            json.loads(line, parse_constant=lambda _: None, parse_int=_integer, parse_float=_fraction)
        )
    except RecursionError:
        raise NestedTooDeeplyError("it is nested too deeply") from None


def _integer(digits: str) -> int | None:
    return int(digits) if len(digits) <= _MOST_DIGITS else None


def _fraction(digits: str) -> float | int | None:
    number = float(digits)
    if not math.isfinite(number):
        return None
    if number.is_integer() and FLOATS_SKIP <= abs(number) < _UNSIGNED:
        exact = Decimal(digits)
        if exact != number and exact == exact.to_integral_value():
            return int(exact)
    return number


def whole_number(number: float) -> float | int:
    """Return a number as an integer if it is whole and a float has all its digits: 1.0 becomes 1."""
    return int(number) if number.is_integer() and abs(number) < FLOATS_SKIP else number


def without_surrogates(value: Any) -> Any:
    """Return a JSON value with U+FFFD in place of each lone surrogate, in texts and keys at any depth."""
    if isinstance(value, str):
        return re.sub("[\ud800-\udfff]", "�", value)
    if isinstance(value, list):
        return [without_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {without_surrogates(key): without_surrogates(item) for key, item in value.items()}
    return value
