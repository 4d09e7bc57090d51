"""Which type of a database a column of results gets, and which types that are there take it without a loss."""

from __future__ import annotations

import base64
import re
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa

# SQLite keeps a decimal as a double, of which 15 digits are certain; DuckDB has 38.
# https://www.sqlite.org/floatingpoint.html, https://duckdb.org/docs/stable/sql/data_types/numeric
_DECIMAL_DIGITS = {"sqlite": 15, "duckdb": 38}
# The digits of an unsigned integer of 64 bits.
_UINT64 = pa.decimal128(20, 0)

# Column of results -> kinds of columns that hold every value of it, its own included. Integers and reals go into
# a double when the double is exact; text is the value as it prints.
_HOLDERS = {
    "boolean": {"boolean", "text"},
    "integer": {"integer", "numeric", "double", "text"},
    "numeric": {"numeric", "text"},
    "real": {"real", "double", "text"},
    "double": {"double", "text"},
    "date": {"date", "timestamp", "text"},
    "time": {"time", "text"},
    "timestamp": {"timestamp", "text"},
    "timestamp with time zone": {"timestamp with time zone", "text"},
    "binary": {"binary"},
    "text": {"text"},
}
_ARROW = {
    "double": pa.float64(),
    "timestamp": pa.timestamp("us"),
    "text": pa.string(),
}
_DUCKDB = [
    (r"BOOLEAN", "boolean"),
    (r"U?(TINY|SMALL|BIG|HUGE)INT|U?INTEGER", "integer"),
    (r"DECIMAL\(\d+,\d+\)", "numeric"),
    (r"FLOAT", "real"),
    (r"DOUBLE", "double"),
    (r"DATE", "date"),
    (r"TIME", "time"),
    (r"TIMESTAMP(_NS)?", "timestamp"),
    (r"TIMESTAMP WITH TIME ZONE", "timestamp with time zone"),
    (r"BLOB", "binary"),
    (r"VARCHAR|JSON|ENUM\(.*\)", "text"),
]


class LossError(ValueError):
    """A value that the column of the table would change."""


def kind_of(type_: pa.DataType, dialect: str) -> str:
    """What a column of results is for the database; what has no type of its own is text."""
    if pa.types.is_dictionary(type_):
        type_ = type_.value_type
    if pa.types.is_boolean(type_):
        return "boolean"
    if pa.types.is_uint64(type_):
        return kind_of(_UINT64, dialect)
    if pa.types.is_integer(type_):
        return "integer"
    if pa.types.is_float16(type_) or pa.types.is_float32(type_):
        return "real"
    if pa.types.is_floating(type_):
        return "double"
    if pa.types.is_decimal(type_):
        return "numeric" if type_.precision <= _DECIMAL_DIGITS.get(dialect, type_.precision) else "text"
    if pa.types.is_date(type_):
        return "date"
    if pa.types.is_time(type_):
        return "time"
    if pa.types.is_timestamp(type_):
        # Only these two tell moments with a time zone from others.
        zoned = type_.tz is not None and dialect in ("postgresql", "duckdb")
        return "timestamp with time zone" if zoned else "timestamp"
    if pa.types.is_binary(type_) or pa.types.is_large_binary(type_) or pa.types.is_fixed_size_binary(type_):
        return "binary"
    return "text"


def new_type(type_: pa.DataType, dialect: str) -> sa.types.TypeEngine[Any]:
    """The type of a column that is made for it."""
    kind = kind_of(type_, dialect)
    if kind == "numeric":
        exact = _UINT64 if pa.types.is_uint64(type_) else type_
        return sa.Numeric(exact.precision, exact.scale)
    return statement_type(kind)


def statement_type(kind: str) -> sa.types.TypeEngine[Any]:
    """What a statement says of values that go into a column of that kind."""
    types: dict[str, sa.types.TypeEngine[Any]] = {
        "boolean": sa.Boolean(),
        "integer": sa.BigInteger(),
        "numeric": sa.Numeric(),
        "real": sa.Double(),
        "double": sa.Double(),
        "date": sa.Date(),
        "time": sa.Time(),
        "timestamp": sa.DateTime(),
        "timestamp with time zone": sa.DateTime(timezone=True),
        "binary": sa.LargeBinary(),
    }
    return types.get(kind, sa.Text())


def kind_of_duckdb(name: str) -> str:
    """The kind of a column of DuckDB by the name of its type; that name for one that is of no kind here."""
    return next((kind for pattern, kind in _DUCKDB if re.fullmatch(pattern, name)), name)


def kind_of_column(type_: sa.types.TypeEngine[Any], dialect: str) -> str:
    """The kind of a column that is there; its type's name for one that is of no kind here."""
    zoned = dialect == "postgresql" and getattr(type_, "timezone", False)
    if isinstance(type_, sa.Boolean):
        return "boolean"
    if isinstance(type_, sa.Integer):
        return "integer"
    if isinstance(type_, sa.REAL) and dialect != "sqlite":
        return "real"
    if isinstance(type_, sa.Float):
        return "double"
    if isinstance(type_, sa.Numeric):
        return "numeric"
    if isinstance(type_, sa.DateTime):
        return "timestamp with time zone" if zoned else "timestamp"
    if isinstance(type_, sa.Date):
        return "date"
    if isinstance(type_, sa.Time):
        return "time"
    if isinstance(type_, sa.LargeBinary):
        return "binary"
    if isinstance(type_, sa.CHAR):
        return str(type_)  # it fills up with blanks
    if isinstance(type_, sa.String | sa.JSON):
        return "text"
    return str(type_)


def scale_of_column(type_: sa.types.TypeEngine[Any] | str) -> int | None:
    """The digits behind the point that a decimal column holds; None for any number of them."""
    if isinstance(type_, str):
        found = re.fullmatch(r"DECIMAL\(\d+,(\d+)\)", type_)
        return int(found[1]) if found else None
    return getattr(type_, "scale", None)


def as_kind(column: pa.ChunkedArray, kind: str, dialect: str, scale: int | None = None) -> pa.ChunkedArray:
    """Values that go into a column of that kind as they are.

    Args:
        kind: of the column in the database.
        scale: of that column, where it holds decimals of one.

    Errors:
        LossError: the column would change one of them.
    """
    if column.null_count == len(column):
        return pa.chunked_array([pa.nulls(len(column), _ARROW.get(kind, pa.string()))])
    own = kind_of(column.type, dialect)
    if kind not in _HOLDERS[own] and not (own == "numeric" and kind == "integer" and _scale(column.type) == 0):
        raise LossError
    if "numeric" in (own, kind) and scale is not None and _scale(column.type) > scale:
        raise LossError
    plain = _plain(column, dialect)
    if kind in (own, "real", "numeric", "integer"):
        return plain
    try:
        return plain if plain.type == _ARROW[kind] else plain.cast(_ARROW[kind])
    except pa.ArrowInvalid:
        raise LossError from None


def _scale(type_: pa.DataType) -> int:
    return type_.scale if pa.types.is_decimal(type_) else 0


def _plain(column: pa.ChunkedArray, dialect: str) -> pa.ChunkedArray:
    """Values that every driver takes: no dictionaries, moments in UTC, and JSON for what is nested."""
    type_ = column.type
    if pa.types.is_dictionary(type_):
        return _plain(column.cast(type_.value_type), dialect)
    if pa.types.is_nested(type_):
        column = _as_text(column, _json)
    elif pa.types.is_duration(type_):
        column = _as_text(column, str)
    elif pa.types.is_float16(type_):
        column = column.cast(pa.float32())
    elif pa.types.is_timestamp(type_):
        column = column.cast(pa.timestamp("us", type_.tz and "UTC"), safe=False)
    elif pa.types.is_time(type_):
        column = column.cast(pa.time64("us"), safe=False)
    elif kind_of(type_, dialect) == "text":
        column = column.cast(pa.string())
    if dialect == "postgresql" and pa.types.is_string(column.type):
        # https://www.postgresql.org/docs/current/datatype-character.html: it has no place for this character.
        column = pc.replace_substring(column, "\x00", "\ufffd")
    return column


def _as_text(column: pa.ChunkedArray, shown: Any) -> pa.ChunkedArray:
    texts = [None if value is None else shown(value) for value in column.to_pylist()]
    return pa.chunked_array([pa.array(texts, pa.string())])


def _json(value: Any) -> str:
    def other(inner: Any) -> str:
        return base64.b64encode(inner).decode() if isinstance(inner, bytes) else str(inner)

    return orjson.dumps(value, default=other).decode()
