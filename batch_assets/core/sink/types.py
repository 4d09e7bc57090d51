"""Database types for columns of results, and which existing column types keep every value unchanged."""

from __future__ import annotations

import base64
import re
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa
from sqlalchemy.dialects import mysql as of_mysql
from sqlalchemy.dialects import postgresql as of_postgresql

from batch_assets.core.io.database import MYSQL
from batch_assets.core.sink import mysql

# SQLite stores a decimal as a double, in which 15 digits are exact; DuckDB has 38.
# https://www.sqlite.org/floatingpoint.html, https://duckdb.org/docs/stable/sql/data_types/numeric
_DECIMAL_DIGITS = {"sqlite": 15, "duckdb": 38, **dict.fromkeys(MYSQL, mysql.MOST_DIGITS)}
_MICROSECONDS = 6  # decimal places of seconds
# An unsigned 64-bit integer has up to 20 digits.
_UINT64 = pa.decimal128(20, 0)

# Kind of a column of results -> kinds of database columns that can hold its values. Integers and reals go into a
# double if the double is exact; as text, a value is stored as it prints.
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
# Types of new columns in MySQL, where the usual ones hold up to 64 KB and whole seconds.
_OF_MYSQL: dict[str, sa.types.TypeEngine[Any]] = {
    "text": of_mysql.LONGTEXT(charset="utf8mb4"),
    "binary": of_mysql.LONGBLOB(),
    "time": of_mysql.TIME(fsp=_MICROSECONDS),
    "timestamp": of_mysql.DATETIME(fsp=_MICROSECONDS),
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
    """The database column would change a value."""


def kind_of(type_: pa.DataType, dialect: str) -> str:
    """Return the kind of database column for a column of results; "text" for types that databases do not have.

    Args:
        type_: The type of the column of results.
        dialect: SQLAlchemy's name of the database.
    """
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
        fits = type_.precision <= _DECIMAL_DIGITS.get(dialect, type_.precision)
        fits &= dialect not in MYSQL or 0 <= type_.scale <= mysql.MOST_DECIMAL_PLACES
        return "numeric" if fits else "text"
    if pa.types.is_date(type_):
        return "date"
    if pa.types.is_time(type_):
        return "time"
    if pa.types.is_timestamp(type_):
        # Only these two databases distinguish timestamps with a time zone.
        zoned = type_.tz is not None and dialect in ("postgresql", "duckdb")
        return "timestamp with time zone" if zoned else "timestamp"
    if pa.types.is_binary(type_) or pa.types.is_large_binary(type_) or pa.types.is_fixed_size_binary(type_):
        return "binary"
    return "text"


def new_type(type_: pa.DataType, dialect: str) -> sa.types.TypeEngine[Any]:
    """Return the type of a new database column for a column of results."""
    kind = kind_of(type_, dialect)
    if kind == "numeric":
        exact = _UINT64 if pa.types.is_uint64(type_) else type_
        return sa.Numeric(exact.precision, exact.scale)
    if dialect in MYSQL and kind in _OF_MYSQL:
        return _OF_MYSQL[kind]
    return statement_type(kind)


def statement_type(kind: str) -> sa.types.TypeEngine[Any]:
    """Return the type that statements declare for values of a database column."""
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
    """Return the kind of an existing DuckDB column, or the name of its type if no kind fits."""
    return next((kind for pattern, kind in _DUCKDB if re.fullmatch(pattern, name)), name)


def kind_of_column(type_: sa.types.TypeEngine[Any], dialect: str, wanted: str) -> str:
    """Return the kind of an existing column, or the name of its type if no kind fits.

    Args:
        type_: The type of the column.
        dialect: SQLAlchemy's name of the database.
        wanted: The kind of the column of results.
    """
    if dialect in MYSQL and (kind := mysql.kind_of_column(type_, wanted)) is not None:
        return kind
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
        return str(type_)  # CHAR pads values with blanks, so it does not count as text
    if isinstance(type_, sa.String | sa.JSON):
        return "text"
    return str(type_)


def scale_of_column(type_: sa.types.TypeEngine[Any] | str) -> int | None:
    """Return the number of decimal places of a decimal column or of seconds; `None` if they are not limited."""
    if isinstance(type_, str):
        match = re.fullmatch(r"DECIMAL\(\d+,(\d+)\)", type_)
        return int(match[1]) if match else None
    if isinstance(type_, of_mysql.DATETIME | of_mysql.TIMESTAMP | of_mysql.TIME):
        return type_.fsp or 0
    if isinstance(type_, of_postgresql.TIMESTAMP | of_postgresql.TIME):
        return type_.precision
    return getattr(type_, "scale", None)


def as_kind(column: pa.ChunkedArray, kind: str, dialect: str, scale: int | None = None) -> pa.ChunkedArray:
    """Convert values for a database column, without changing any of them.

    Args:
        column: A column of results.
        kind: The kind of the database column.
        dialect: SQLAlchemy's name of the database.
        scale: The number of decimal places of the column, also of seconds; `None` if they are not limited.

    Raises:
        LossError: When the database column would change a value.
    """
    if column.null_count == len(column):
        return pa.chunked_array([pa.nulls(len(column), _ARROW.get(kind, pa.string()))])
    result_kind = kind_of(column.type, dialect)
    if kind not in _HOLDERS[result_kind] and not (
        result_kind == "numeric" and kind == "integer" and _scale(column.type) == 0
    ):
        raise LossError
    if "numeric" in (result_kind, kind) and scale is not None and _scale(column.type) > scale:
        raise LossError
    plain = _plain(column, dialect)
    if dialect in MYSQL and kind in ("real", "double") and pa.types.is_floating(plain.type):
        plain = pc.if_else(pc.is_finite(plain), plain, None)
    if kind in ("time", "timestamp", "timestamp with time zone") and scale is not None:
        _check_seconds(plain, scale)
    if kind in (result_kind, "real", "numeric", "integer"):
        return plain
    try:
        return plain if plain.type == _ARROW[kind] else plain.cast(_ARROW[kind])
    except pa.ArrowInvalid:
        raise LossError from None


def _check_seconds(column: pa.ChunkedArray, places: int) -> None:
    if pa.types.is_date(column.type) or places >= _MICROSECONDS:
        return
    microseconds, unit = column.cast(pa.int64()), 10 ** (_MICROSECONDS - places)
    if not pc.all(pc.equal(pc.multiply(pc.divide(microseconds, unit), unit), microseconds)).as_py():
        raise LossError


def _scale(type_: pa.DataType) -> int:
    return type_.scale if pa.types.is_decimal(type_) else 0


def _plain(column: pa.ChunkedArray, dialect: str) -> pa.ChunkedArray:
    """Convert values for the drivers: no dictionaries, timestamps in UTC, nested values as JSON."""
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
        # PostgreSQL cannot store this character: https://www.postgresql.org/docs/current/datatype-character.html
        column = pc.replace_substring(column, "\x00", "\ufffd")
    return column


def _as_text(column: pa.ChunkedArray, to_text: Any) -> pa.ChunkedArray:
    texts = [None if value is None else to_text(value) for value in column.to_pylist()]
    return pa.chunked_array([pa.array(texts, pa.string())])


def _json(value: Any) -> str:
    def unknown_type(inner: Any) -> str:
        return base64.b64encode(inner).decode() if isinstance(inner, bytes) else str(inner)

    return orjson.dumps(value, default=unknown_type).decode()
