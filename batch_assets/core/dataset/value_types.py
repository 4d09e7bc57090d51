"""Types of columns that come as Python values: decided over all of them, whatever the database says.

As with CSV, a value that comes late must not change the prompts of the rows before it. So a column has a type of
its own only if its values are of one kind, and each prints in a prompt as it would alone; else it is text.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

import pyarrow as pa

from batch_assets.core.dataset.rows import text_array
from batch_assets.core.errors import DatasetError

_TEXT, _DECIMAL, _BYTES = "text", "decimal", "bytes"
_TYPES: dict[str, pa.DataType] = {
    "bool": pa.bool_(),
    "int": pa.int64(),
    "float": pa.float64(),
    "date": pa.date32(),
    "time": pa.time64("us"),
    "local": pa.timestamp("us"),
    "instant": pa.timestamp("us", "UTC"),
    _BYTES: pa.binary(),
    _TEXT: pa.string(),
}
# Python type -> kind, the narrower first. Everything else is text.
_KINDS: list[tuple[type | tuple[type, ...], str]] = [
    (bool, "bool"),
    (int, "int"),
    (float, "float"),
    (Decimal, _DECIMAL),
    (datetime, "local"),
    (date, "date"),
    (time, "time"),
    ((bytes, bytearray, memoryview), _BYTES),
]
_MOST_DIGITS = 38  # of Arrow's decimal128


class ColumnValues:
    """Takes one column's values piece by piece, and in the end knows the type that holds them all.

    Lists and objects are text with their JSON, a column without any value is text.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._kinds: set[str] = set()
        self._exponents: set[Any] = set()

    def take(self, values: Sequence[Any]) -> pa.Array:
        """The next values, of the type that suits them alone; `as_type` brings it to that of all.

        Errors:
            DatasetError: bytes beside other values, which no text holds.
        """
        kinds = {_kind(type_) for type_ in set(map(type, values))} - {None}
        if kinds & {"local", "time"}:  # with a zone they are of another kind
            kinds = {_kind_of_time(value) for value in values} - {None}
        self._kinds |= {kind for kind in kinds if kind}
        if _BYTES in self._kinds and len(self._kinds) > 1:
            raise DatasetError(f"the column {self._name!r} holds bytes and other values: cast it in the query")
        if kinds == {_BYTES}:
            return pa.array([None if value is None else bytes(value) for value in values], pa.binary())
        if kinds == {_DECIMAL}:
            self._exponents |= {value.as_tuple().exponent for value in values if value is not None}
        if len(kinds) == 1 and self.type != pa.string():
            try:
                return pa.array(values, self.type)
            except (pa.ArrowInvalid, OverflowError):  # more digits than Arrow has
                self._kinds.add(_TEXT)
        return text_array([_text(value) for value in values])

    @property
    def type(self) -> pa.DataType:
        """The type that holds every value taken."""
        if len(self._kinds) != 1:
            return pa.string()
        (kind,) = self._kinds
        if kind != _DECIMAL:
            return _TYPES[kind]
        exponent = next(iter(self._exponents))
        is_one = len(self._exponents) == 1 and isinstance(exponent, int) and -_MOST_DIGITS <= exponent <= 0
        return pa.decimal128(_MOST_DIGITS, -exponent) if is_one else pa.string()


def as_type(piece: pa.Array, type_: pa.DataType) -> pa.Array:
    """A piece of a column brought to the type that holds the whole column: its own, or text."""
    if piece.type == type_:
        return piece
    if piece.null_count == len(piece):
        return pa.nulls(len(piece), type_)
    return text_array([_text(value) for value in piece.to_pylist()])


def _kind(type_: type) -> str | None:
    if type_ is type(None):
        return None
    return next((kind for types, kind in _KINDS if issubclass(type_, types)), _TEXT)


def _kind_of_time(value: Any) -> str | None:
    kind = _kind(type(value))
    if kind == "local" and value.utcoffset() is not None:
        return "instant"
    return _TEXT if kind == "time" and value.tzinfo is not None else kind


def _text(value: Any) -> str | None:
    if value is None or type(value) is str:
        return value
    if isinstance(value, dict | list | tuple):
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)
    if isinstance(value, datetime) and value.utcoffset() is not None:
        value = value.astimezone(UTC)
    return str(value)
