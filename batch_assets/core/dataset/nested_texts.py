"""The JSON of lists and objects: those that a database returns, and those that the usual encoder cannot write."""

from __future__ import annotations

import json
import math
from base64 import b64encode
from collections.abc import Mapping, Sequence
from decimal import Decimal
from json.encoder import encode_basestring
from typing import Any

_NESTED = (dict, list, tuple)
_BYTES = (bytes, bytearray, memoryview)
_COMPACT = (",", ":")


def without_nested(values: Sequence[Any]) -> tuple[Sequence[Any], list[str | None] | None]:
    """Return values with the JSON of each list and object in its place.

    Decimals are numbers there, NaN and infinities null, and bytes are in Base64.

    Args:
        values: The values of a column.

    Returns:
        The values, and the texts that differ from what rendering 2 printed, as it printed them; `None` if there
        are none.
    """
    if not any(issubclass(type_, _NESTED) for type_ in set(map(type, values))):
        return values, None
    texts = list(values)
    before: list[str | None] = [None] * len(values)
    for position, value in enumerate(values):
        if isinstance(value, _NESTED):
            try:
                texts[position] = _dumped(value, default=_text_in_json, allow_nan=False)
            except (TypeError, ValueError):
                texts[position] = written(value)
                before[position] = _printed_before(value)
    return texts, before if any(text is not None for text in before) else None


def _dumped(value: Any, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=_COMPACT, **options)


def _text_in_json(value: Any) -> str:
    if isinstance(value, Decimal | bytes | bytearray | memoryview):
        raise TypeError("it is no text")
    return str(value)


def _printed_before(value: Any) -> str | None:
    """The JSON with decimals as text, `NaN`, and Python's text of bytes."""
    try:
        text = _dumped(value, default=str)
        text.encode()
    except (TypeError, UnicodeEncodeError):  # an error then: keys that are neither text nor numbers, or no Unicode
        return None
    return text


def written(value: Any) -> str:
    """Return a value as JSON, whatever numbers it has: decimals and whole numbers with all digits, no NaN.

    What JSON has no form for is text: bytes in Base64, and dates as Python prints them.
    """
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{_key(key)}:{written(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(written, value)) + "]"
    if isinstance(value, _BYTES):
        return f'"{b64encode(value).decode()}"'
    if isinstance(value, Decimal):
        return format(value, "f") if value.is_finite() else "null"
    if isinstance(value, float):
        return float.__repr__(value) if math.isfinite(value) else "null"
    if value is None or isinstance(value, bool | int):
        return json.dumps(value)
    return encode_basestring(str(value))


def _key(key: Any) -> str:
    text = written(key)
    return text if text.startswith('"') else encode_basestring(text)
