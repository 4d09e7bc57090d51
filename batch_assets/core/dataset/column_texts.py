"""Texts of values for columns of text."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import orjson
import pyarrow as pa

from batch_assets.core.dataset.nested_texts import written


def json_text(value: Any) -> Any:
    """Return a value for a text column: text unchanged, any other value as its JSON."""
    if value is None or isinstance(value, str):
        return value
    try:
        return orjson.dumps(value, default=_json_value).decode()
    except TypeError:  # whole numbers beyond 64 bits
        return written(value)


def _json_value(value: Any) -> Any:
    """Return the JSON of a value that orjson does not know: bytes in base64, a decimal as a number."""
    if isinstance(value, bytes):
        return b64encode(value).decode()
    if isinstance(value, Decimal) and value.is_finite():
        return orjson.Fragment(f"{value:f}")
    return str(value)


def text_array(values: Sequence[str | None]) -> pa.Array:
    """Return a text column. Lone surrogates become invalid bytes, which `valid_text` finds."""
    try:
        return pa.array(values, pa.string())
    except UnicodeEncodeError:
        encoded = [None if value is None else value.encode("utf-8", "surrogatepass") for value in values]
        return pa.array(encoded, pa.binary()).view(pa.string())
