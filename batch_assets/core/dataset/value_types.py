"""Types of columns from Python values, decided over all values and not by the database's declared types.

A column has another type than text only if all its values are of one kind, and each prints as it would by itself.
That is what results carry. Templates see each value with the kind that it has in its own row: while rows are
collected, a slice of values of several kinds is a union.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

import pyarrow as pa

from batch_assets.core.dataset.column_texts import text_array
from batch_assets.core.dataset.nested_texts import without_nested
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

    def take(self, values: Sequence[Any]) -> tuple[pa.Array, pa.Array | None]:
        """Convert the next values to the type that fits them. `as_type` later converts them to the final type.

        Returns:
            The values, shape (n,): a union if they are of several kinds. And the texts of lists and objects that
            rendering 2 printed otherwise, shape (n,), null for all other values; `None` if there are none.

        Raises:
            DatasetError: When the column has bytes and other values, because bytes cannot become text.
        """
        plain, before = without_nested(values)
        return self._array(plain), text_array(before) if before is not None else None

    def _array(self, values: Sequence[Any]) -> pa.Array:
        kinds = {_kind(type_) for type_ in set(map(type, values))} - {None}
        if kinds & {"local", "time"}:  # values with a time zone are of another kind
            kinds = {_kind_of(value) for value in values} - {None}
        self._kinds |= {kind for kind in kinds if kind}
        if _BYTES in self._kinds and len(self._kinds) > 1:
            raise DatasetError(f"the column {self._name!r} holds bytes and other values: cast it in the query")
        if kinds == {_BYTES}:
            return pa.array([None if value is None else bytes(value) for value in values], pa.binary())
        exponents = set()
        if _DECIMAL in kinds:
            exponents = {value.as_tuple().exponent for value in values if isinstance(value, Decimal)}
            self._exponents |= exponents
        type_ = _type_of(kinds, exponents)
        if type_ is not None and not pa.types.is_string(type_):
            try:
                return pa.array(values, type_)
            except (pa.ArrowInvalid, OverflowError):  # more digits than Arrow can store
                self._kinds.add(_TEXT)
        return text_array([_text(value) for value in values]) if kinds <= {_TEXT} else _union(values)

    @property
    def type(self) -> pa.DataType:
        """The type that can store all values so far."""
        return _type_of(self._kinds, self._exponents) or pa.string()


def _type_of(kinds: Set[str | None], exponents: Set[Any]) -> pa.DataType | None:
    """The type that can store values of these kinds, unless it is text or null.

    Args:
        kinds: The kinds of the values.
        exponents: The exponents of the decimals among them.
    """
    if len(kinds) != 1:
        return None
    (kind,) = kinds
    if kind != _DECIMAL:
        return _TYPES[kind or _TEXT]
    exponent = next(iter(exponents))
    fits = len(exponents) == 1 and isinstance(exponent, int) and -_MOST_DIGITS <= exponent <= 0
    return pa.decimal128(_MOST_DIGITS, -exponent) if fits else None


def _union(values: Sequence[Any]) -> pa.Array:
    """The values, each with its own kind: a dense union, shape (n,)."""
    children: dict[pa.DataType, list[Any]] = {}
    types, offsets = [], []
    for value in values:
        type_ = _type_alone(value)
        child = children.setdefault(type_, [])
        types.append(list(children).index(type_))
        offsets.append(len(child))
        child.append(_text(value) if pa.types.is_string(type_) else value)
    arrays = [
        text_array(child) if pa.types.is_string(type_) else pa.array(child, type_)
        for type_, child in children.items()
    ]
    return pa.UnionArray.from_dense(pa.array(types, pa.int8()), pa.array(offsets, pa.int32()), arrays)


def _type_alone(value: Any) -> pa.DataType:
    """The type that a value would have if it were alone in its column."""
    kind = _kind_of(value)
    if kind == "int" and not -(2**63) <= value < 2**63:
        return pa.string()
    if kind != _DECIMAL:
        return _TYPES[kind or _TEXT]
    digits = len(value.as_tuple().digits)
    return (digits <= _MOST_DIGITS and _type_of({kind}, {value.as_tuple().exponent})) or pa.string()


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


def _kind_of(value: Any) -> str | None:
    kind = _kind(type(value))
    if kind == "local" and value.utcoffset() is not None:
        return "instant"
    return _TEXT if kind == "time" and value.tzinfo is not None else kind


def _text(value: Any) -> str | None:
    if value is None or type(value) is str:
        return value
    if isinstance(value, datetime) and value.utcoffset() is not None:
        value = value.astimezone(UTC)
    return str(value)
