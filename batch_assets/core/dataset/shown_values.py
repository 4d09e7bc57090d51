"""Values of Arrow columns as a person would write them, for templates.

Some types would print as they are stored: a month as a number, a float32 with digits that were never written, a
decimal with an exponent, NaN as a word.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from batch_assets.core.dataset.clock_times import clock_time, in_numbers, is_clock

Converter = Callable[[Any], Any]
"""Takes a value that is not null."""

_PERIOD, _INTERVAL = "pandas.period", "pandas.interval"
# Their storage is something else than what they print as, and `plain_type` reads them as their storage.
_STORED_OTHERWISE = frozenset({_PERIOD, _INTERVAL})
_NANOSECONDS = 1_000_000_000


class PlainDecimal(Decimal):
    """A decimal that prints all its digits: 0.0000000000, where Python prints 0E-10."""

    def __str__(self) -> str:
        return format(self, "f")


def shown_values(column: pa.Array, field: pa.Field) -> list[Any]:
    """Return a column as Python values for templates. A map is an object, like a struct.

    Args:
        column: The values, shape (n,).
        field: The type of the column, with its metadata.

    Raises:
        ValueError: When Python cannot represent a value. Also OverflowError, and KeyError for a map with one key
            twice.
    """
    type_ = column.type
    if pa.types.is_float32(type_):
        # Arrow prints the shortest decimal that reads back as the same number.
        column = column.cast(pa.string()).cast(pa.float64())
        type_ = column.type
    if pa.types.is_float64(type_):
        is_nan = pc.is_nan(column)
        if pc.any(is_nan).as_py():
            column = pc.if_else(is_nan, None, column)
        values: list[Any] = column.to_pylist()
        return values
    if has_clock(type_):
        column = in_numbers(column)
    if pa.types.is_union(type_):  # values of several kinds
        return [_by_itself(value) for value in column.to_pylist()]
    values = column.to_pylist(maps_as_pydicts="strict") if pa.types.is_nested(type_) else column.to_pylist()
    convert = converter(field.with_type(type_))
    if convert is None:
        return values
    return [None if value is None else convert(value) for value in values]


def is_stored_otherwise(field: pa.Field) -> bool:
    """Whether the column, or values nested in it, must be converted by its type as it is in the file or table."""
    return _extension(field)[0] in _STORED_OTHERWISE or any(map(is_stored_otherwise, _inner(field.type)))


def has_clock(type_: pa.DataType) -> bool:
    """Whether a type is a time of the day in nanoseconds, or has lists or objects with such."""
    if pa.types.is_dictionary(type_):
        return is_clock(type_.value_type)
    return is_clock(type_) or any(has_clock(field.type) for field in _inner(type_))


def is_period(field: pa.Field) -> bool:
    """Whether a column has pandas' periods, such as months."""
    return _extension(field)[0] == _PERIOD


def has_periods(field: pa.Field) -> bool:
    """Whether a column has pandas' periods, or lists or objects with such."""
    return is_period(field) or any(map(has_periods, _inner(field.type)))


def converter(field: pa.Field) -> Converter | None:
    """Return what converts the values of a column, or `None` if they stay as they are."""
    type_, (extension, metadata) = field.type, _extension(field)
    if extension == _PERIOD:
        return _period(metadata["freq"])
    if extension == _INTERVAL:
        return _interval(metadata["closed"])
    if extension == "arrow.uuid":
        return str
    if isinstance(type_, pa.BaseExtensionType):
        return converter(field.with_type(type_.storage_type))
    if pa.types.is_float16(type_):
        return _shortest(np.float16)
    if pa.types.is_float32(type_):
        return _shortest(np.float32)
    if pa.types.is_float64(type_):
        return _number
    if pa.types.is_decimal(type_):
        return plain_decimal
    if is_clock(type_):
        return clock_time
    if type_ == pa.month_day_nano_interval():
        return _iso_duration
    if pa.types.is_dictionary(type_):
        return converter(pa.field("", type_.value_type))
    return _nested(type_)


def _nested(type_: pa.DataType) -> Converter | None:
    inner = _inner(type_)
    if pa.types.is_struct(type_):
        converters = {field.name: converter(field) for field in inner}
        needed = {name: convert for name, convert in converters.items() if convert is not None}
        if not needed:
            return None

        def of_struct(value: dict[str, Any]) -> dict[str, Any]:
            return value | {
                name: convert(value[name]) for name, convert in needed.items() if value[name] is not None
            }

        return of_struct
    convert = converter(inner[-1]) if inner else None  # of the items of a list, or the values of a map
    if convert is None:
        return None
    if pa.types.is_map(type_):
        return lambda value: {key: None if sub is None else convert(sub) for key, sub in value.items()}
    return lambda value: [None if item is None else convert(item) for item in value]


def _inner(type_: pa.DataType) -> list[pa.Field]:
    """The fields of a nested type: of a struct, the items of a list, or the values of a map."""
    if pa.types.is_map(type_):
        return [type_.item_field]
    if pa.types.is_struct(type_):
        return list(type_)
    return [type_.field(position) for position in range(type_.num_fields)] if pa.types.is_nested(type_) else []


def _extension(field: pa.Field) -> tuple[str, dict[str, Any]]:
    """The name and the metadata of a field's extension type; ("", {}) without one.

    A type of pandas is known to Arrow only after pandas has registered it. Until then only the field names it.
    """
    if isinstance(field.type, pa.BaseExtensionType):
        name = field.type.extension_name
        content = field.type.__arrow_ext_serialize__() if name in _STORED_OTHERWISE else b""
    else:
        metadata = field.metadata or {}
        name = metadata.get(b"ARROW:extension:name", b"").decode()
        content = metadata.get(b"ARROW:extension:metadata", b"")
    return name, orjson.loads(content) if name in _STORED_OTHERWISE else {}


def _period(frequency: str) -> Converter:
    import pandas as pd  # it takes long to import, and few datasets need it

    return lambda ordinal: str(pd.Period(ordinal=ordinal, freq=frequency))


def _interval(closed: str) -> Converter:
    import pandas as pd  # see `_period`

    def end(value: Any) -> Any:
        """The end of an interval as pandas wants it: Arrow returns Python's dates and durations."""
        if isinstance(value, date):  # also a datetime
            return pd.Timestamp(value)
        return pd.Timedelta(value) if isinstance(value, timedelta) else value

    return lambda ends: str(pd.Interval(end(ends["left"]), end(ends["right"]), closed))


def _shortest(type_: type[np.floating[Any]]) -> Converter:
    """Return a converter to the shortest decimal that reads back as the same number of a short type."""
    return lambda value: None if value != value else float(str(type_(value)))


def _number(value: float) -> float | None:
    return None if value != value else value


def _by_itself(value: Any) -> Any:
    if isinstance(value, Decimal):
        return plain_decimal(value)
    return value if value == value else None


def plain_decimal(value: Decimal) -> Decimal:
    """Return a decimal that prints without an exponent."""
    return PlainDecimal(value) if "E" in str(value) else value


def _iso_duration(value: Any) -> str:
    """Months, days and nanoseconds as an ISO 8601 duration: P1M2DT3.5S."""
    seconds, nanoseconds = divmod(abs(value.nanoseconds), _NANOSECONDS)
    fraction = f".{nanoseconds:09d}".rstrip("0") if nanoseconds else ""
    sign = "-" if value.nanoseconds < 0 else ""
    parts = f"{value.months}M" if value.months else ""
    parts += f"{value.days}D" if value.days else ""
    parts += f"T{sign}{seconds}{fraction}S" if value.nanoseconds else ""
    return f"P{parts or '0D'}"
