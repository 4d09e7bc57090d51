"""Values of Parquet files and tables in memory whose kind is on record: each is read by that kind if it fits.

One value that is null or a fraction makes pandas turn whole numbers into floats, so that 1 becomes 1.0 in all
other rows too, and one text makes text of them. A new key in one object gives all others that key, with null.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import date, time, timedelta
from decimal import Context, Decimal, InvalidOperation
from functools import cache, partial
from typing import Any

import numpy as np
import pyarrow as pa

from batch_assets.core.dataset.column_kinds import is_same
from batch_assets.core.dataset.rows import OwnColumn, Rows
from batch_assets.core.dataset.shown_values import is_stored_otherwise, plain_decimal
from batch_assets.core.dataset.table_times import (
    as_date,
    as_duration,
    as_nanoseconds,
    as_time,
    as_timestamp,
    in_zone,
    zone_of,
)
from batch_assets.core.io.json_text import FLOATS_SKIP, whole_number

Read = Callable[[Any], Any]
"""Takes a value that is not null, and returns it as one of the kind on record if it fits, else unchanged."""

_INTEGER, _FLOAT, _FLOAT32, _DECIMAL = "integer", "float", "float32", "decimal "
_TEXT, _BOOLEAN, _DATE, _TIMESTAMP = "text", "boolean", "date", "timestamp"
_ZONED, _TIME, _DURATION, _NANOSECONDS = "timestamp ", "time", "duration", "duration ns"
_LIST, _MAP = "list", "map"
_BYTES = "bytes"  # is not recorded, so that a column of bytes may become text
MIXED = "mixed"
"""The kind of a column of Python objects that has integers and floats, or values of a kind on record. It is not
recorded."""
_WHOLE = re.compile("0|-?[1-9][0-9]*")
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?(e[+-]?[0-9]+)?")
_BOOLEANS = {"True": True, "true": True, "False": False, "false": False}
_DIGITS = Context(prec=80)  # more than Arrow's decimals have


@cache
def kind_of(type_: pa.DataType) -> Any:
    """Return the kind of values of a type, as JSON; `None` if they are read as they are, whatever is on record."""
    if pa.types.is_dictionary(type_):
        return kind_of(type_.value_type)
    if pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_string_view(type_):
        return _TEXT
    if pa.types.is_boolean(type_):
        return _BOOLEAN
    if pa.types.is_integer(type_):
        return _INTEGER
    if pa.types.is_floating(type_):
        return _FLOAT if pa.types.is_float64(type_) else _FLOAT32
    if pa.types.is_decimal(type_):
        return f"{_DECIMAL}{type_.scale}"
    if pa.types.is_date(type_):
        return _DATE
    if pa.types.is_timestamp(type_):
        return _TIMESTAMP if type_.tz is None else f"{_ZONED}{type_.tz}"
    if pa.types.is_time(type_):
        return _TIME
    if pa.types.is_duration(type_):
        return _NANOSECONDS if type_.unit == "ns" else _DURATION
    if pa.types.is_struct(type_):
        return {inner.name: kind_of(inner.type) for inner in type_}
    if pa.types.is_map(type_):
        inner = kind_of(type_.item_type)
        return [_MAP, inner] if inner is not None else None
    inner = kind_of(type_.field(0).type) if pa.types.is_nested(type_) and type_.num_fields == 1 else None
    return [_LIST, inner] if inner is not None else None


def kinds_of(schema: pa.Schema) -> dict[str, Any]:
    """Return the kinds of columns, without those that have none."""
    kinds = {field.name: None if is_stored_otherwise(field) else kind_of(field.type) for field in schema}
    return {name: kind for name, kind in kinds.items() if kind is not None}


def bytes_in(schema: pa.Schema) -> dict[str, Any]:
    """Return the columns of bytes, as kinds for `readers`: text on record is read from them."""
    kinds = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary)
    return {field.name: _BYTES for field in schema if any(is_kind(field.type) for is_kind in kinds)}


def has_keys(kind: Any) -> bool:
    """Whether values of a kind are objects or lists of them, so that each file has keys of its own."""
    return isinstance(kind, dict) or (isinstance(kind, list) and has_keys(kind[-1]))


def with_own_keys(recorded: Any, now: Any) -> Any:
    """Return the kind by which a new file is read: as on record, but objects have the keys of the file.

    Args:
        recorded: The kind on record.
        now: The kind of the column in the file.
    """
    if isinstance(recorded, dict) and isinstance(now, dict):
        return {
            name: with_own_keys(recorded[name], inner) if name in recorded else inner
            for name, inner in now.items()
        }
    if isinstance(recorded, list) and isinstance(now, list) and recorded[0] == now[0]:
        return [now[0], with_own_keys(recorded[-1], now[-1])]
    return recorded


def kind_of_objects(values: Iterable[Any]) -> str | None:
    """Return the kind of the numbers in a column of Python objects; `None` if there are none."""
    kinds = {
        _FLOAT if isinstance(value, float | np.floating) else _INTEGER
        for value in values
        if isinstance(value, int | float | np.number) and not isinstance(value, bool) and value == value
    }
    return MIXED if len(kinds) > 1 else next(iter(kinds), None)


def applies_to_objects(kind: Any) -> bool:
    """Whether a kind on record applies to Python objects too, which otherwise have a kind each by itself.

    pandas makes objects of times whose zones differ, and of durations that have no type in common.
    """
    return isinstance(kind, str) and (kind.startswith(_ZONED) or kind in (_DURATION, _NANOSECONDS))


def readers(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Read]:
    """Return what reads the columns whose kind has changed.

    Args:
        recorded: The kinds on record.
        now: The kinds of the columns as they are inferred.
    """
    changed = [name for name in now if name in recorded and not is_same(now[name], recorded[name])]
    wanted = {name: _reader(recorded[name]) for name in changed}
    return {name: read for name, read in wanted.items() if read is not None}


def read_by(rows: Rows, wanted: Mapping[str, Read]) -> None:
    """Give templates the values of some columns as their readers return them.

    Args:
        rows: The rows, whose `own` changes.
        wanted: The readers by column.
    """
    for name in wanted.keys() & set(rows.table.schema.names):
        read = wanted[name]
        own = rows.own.get(name)
        if isinstance(own, list):
            rows.own[name] = _all(read, own)
            continue
        own = own or OwnColumn.of(rows.table.column(name), rows.table.schema.field(name))
        rows.own[name] = own._replace(convert=partial(_converted, own.convert, read))


def _converted(convert: Callable[[pa.Array], list[Any]], read: Read, column: pa.Array) -> list[Any]:
    return _all(read, convert(column))


def _all(read: Read, values: list[Any]) -> list[Any]:
    return [None if value is None else read(value) for value in values]


def _reader(kind: Any) -> Read | None:
    """Return what reads values by a kind; `None` if they stay as they are."""
    if isinstance(kind, dict):
        return partial(_object, {name: _reader(inner) for name, inner in kind.items()})
    if isinstance(kind, list):
        read = _reader(kind[-1])
        return partial(_map if kind[0] == _MAP else _list, read) if read is not None else None
    if isinstance(kind, str) and kind.startswith(_DECIMAL):
        return partial(_decimal, int(kind.removeprefix(_DECIMAL)))
    if isinstance(kind, str) and kind.startswith(_ZONED):
        zone = zone_of(kind.removeprefix(_ZONED))
        return partial(in_zone, zone) if zone is not None else None
    return _SCALARS.get(kind)


def _object(inner: Mapping[str, Read | None], value: Any) -> Any:
    """An object with the keys on record, in their order, followed by new ones that have a value."""
    if not isinstance(value, dict):
        return value
    known = {name: _inner(read, value.get(name)) for name, read in inner.items()}
    return known | {name: sub for name, sub in value.items() if name not in inner and sub is not None}


def _list(read: Read, value: Any) -> Any:
    return _all(read, value) if isinstance(value, list) else value


def _map(read: Read, value: Any) -> Any:
    return {key: _inner(read, sub) for key, sub in value.items()} if isinstance(value, dict) else value


def _inner(read: Read | None, value: Any) -> Any:
    return value if value is None or read is None else read(value)


def _text(value: Any) -> Any:
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return value
    if isinstance(value, float) and value.is_integer() and abs(value) < FLOATS_SKIP:
        return str(int(value))  # it was written without a point, if it was text because of other values
    return str(value) if isinstance(value, bool | int | float | Decimal | date | time | timedelta) else value


def _boolean(value: Any) -> Any:
    return _BOOLEANS.get(value, value) if isinstance(value, str) else value


def _integer(value: Any) -> Any:
    if isinstance(value, str):
        return int(value) if _WHOLE.fullmatch(value) else value
    if isinstance(value, float):
        return whole_number(value)
    return int(value) if isinstance(value, Decimal) and value == value.to_integral_value() else value


def _float(value: Any) -> Any:
    if isinstance(value, str):
        is_number = _NUMBER.fullmatch(value) and math.isfinite(float(value))
        return float(value) if is_number and (repr(float(value)) == value or _WHOLE.fullmatch(value)) else value
    if isinstance(value, int) and not isinstance(value, bool):
        return float(value) if abs(value) < FLOATS_SKIP else value
    return float(value) if isinstance(value, Decimal) and Decimal(repr(float(value))) == value else value


def _float32(value: Any) -> Any:
    value = _float(value)
    if isinstance(value, float) and math.isfinite(value) and abs(value) < float(np.finfo(np.float32).max):
        short = np.float32(value)
        return float(str(short)) if float(short) == value else value
    return value


def _decimal(scale: int, value: Any) -> Any:
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        number = _decimal(scale, Decimal(value))
        return number if format(number, "f") == value else value
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return value
    number = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    try:
        scaled = number.quantize(Decimal(1).scaleb(-scale), context=_DIGITS)
    except InvalidOperation:  # not finite, or too large
        return value
    return plain_decimal(scaled) if scaled == number else value


_SCALARS: dict[Any, Read] = {
    _TEXT: _text,
    _BOOLEAN: _boolean,
    _INTEGER: _integer,
    _FLOAT: _float,
    _FLOAT32: _float32,
    _DATE: as_date,
    _TIMESTAMP: as_timestamp,
    _TIME: as_time,
    _DURATION: as_duration,
    _NANOSECONDS: as_nanoseconds,
}
