"""Types of columns from Python values, decided over all values and not by the database's declared types.

As with CSV, a value late in the dataset must not change the prompts of earlier rows. So a column has another type
than text only if all its values are of one kind, and each prints in a prompt as it would by itself.
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
# Python types and their kinds. Subclasses come before their base classes. Every other type is text.
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
_MOST_DIGITS = 38  # the limit of Arrow's decimal128


class ColumnValues:
    """Collects one column's values slice by slice, and finds the type that can store all of them.

    Lists and objects become text that holds their JSON. A column without values is text.

    Args:
        name: The name of the column, for errors.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._kinds: set[str] = set()
        self._exponents: set[Any] = set()

    def take(self, values: Sequence[Any]) -> pa.Array:
        """Convert the next values to the type that fits them. `as_type` later converts them to the final type.

        Returns:
            The values, shape (n,).

        Raises:
            DatasetError: When the column has bytes and other values, because bytes cannot become text.
        """
        kinds = {_kind(type_) for type_ in set(map(type, values))} - {None}
        if kinds & {"local", "time"}:  # values with a time zone are of another kind
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
            except (pa.ArrowInvalid, OverflowError):  # more digits than Arrow can store
                self._kinds.add(_TEXT)
        return text_array([_text(value) for value in values])

    @property
    def type(self) -> pa.DataType:
        """The type that can store all values so far."""
        if len(self._kinds) != 1:
            return pa.string()
        (kind,) = self._kinds
        if kind != _DECIMAL:
            return _TYPES[kind]
        exponent = next(iter(self._exponents))
        fits = len(self._exponents) == 1 and isinstance(exponent, int) and -_MOST_DIGITS <= exponent <= 0
        return pa.decimal128(_MOST_DIGITS, -exponent) if fits else pa.string()


def as_type(values: pa.Array, type_: pa.DataType) -> pa.Array:
    """Convert a slice of a column to the type of the whole column: the slice's own type, or text.

    Args:
        values: A slice of the column, shape (n,).
        type_: The type of the whole column.
    """
    if values.type == type_:
        return values
    if values.null_count == len(values):
        return pa.nulls(len(values), type_)
    return text_array([_text(value) for value in values.to_pylist()])


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
