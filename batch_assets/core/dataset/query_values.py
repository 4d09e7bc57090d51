"""Values of a query that a database's driver turns into others. They are refused by name.

Python has no infinite date, and no interval of months: drivers return the year 9999 or 1, and 30 days for a month.
DuckDB's driver also leaves out nanoseconds, and that of PostgreSQL makes 00:00 of the time 24:00. Other values are
converted here: PyMySQL makes an interval of each time and bytes of each number of bits, and DuckDB's driver gives
a FLOAT more digits than it has.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import date, datetime, time
from typing import Any

import numpy as np
import sqlalchemy as sa

from batch_assets.core.dataset.query_guard import without_end
from batch_assets.core.errors import DatasetError

_INFINITE = "an infinite date or time"
_MONTHS = "an interval of months or years, whose length differs"
_NANOSECONDS = "a time with nanoseconds"
_END_OF_DAY = "the time 24:00"
# What psycopg2 calls its conversions, PostgreSQL's number of the type of their lists, and the texts they change.
_CONVERSIONS = (
    ("PYDATE", 1182, "infinity", _INFINITE),
    ("PYDATETIME", 1115, "infinity", _INFINITE),
    ("PYDATETIMETZ", 1185, "infinity", _INFINITE),
    ("PYTIME", 1183, "^24", _END_OF_DAY),
    ("PYINTERVAL", 1187, "mon|year", _MONTHS),
)
# By DuckDB's type: what is wrong with values, the condition for it, and whether only extreme values may have it.
_OF_DUCKDB = {
    **dict.fromkeys(
        ("DATE", "TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP WITH TIME ZONE"),
        (_INFINITE, "NOT isfinite({0})", True),
    ),
    "INTERVAL": (_MONTHS, "extract(month FROM {0}) <> 0 OR extract(year FROM {0}) <> 0", False),
    "TIMESTAMP_NS": (
        f"{_INFINITE}, or {_NANOSECONDS}",
        "NOT isfinite({0}::TIMESTAMP) OR {0} <> {0}::TIMESTAMP::TIMESTAMP_NS",
        False,
    ),
    "TIME_NS": (_NANOSECONDS, "{0} <> {0}::TIME::TIME_NS", False),
}
_EXTREMES = {date.min, date.max, datetime.min, datetime.max}


def refuse_on_connect(engine: sa.Engine) -> None:
    """Let an engine's connections refuse such values when they are fetched, where the driver allows it.

    Args:
        engine: The engine. Its queries then raise ValueError.
    """
    if engine.dialect.driver == "pymysql":
        numbers = engine.dialect.dbapi.constants.FIELD_TYPE  # type: ignore[union-attr]
        sa.event.listen(engine, "connect", lambda connection, _: _convert_times_and_bits(connection, numbers))
    if engine.dialect.driver == "psycopg2":
        extensions = engine.dialect.dbapi.extensions  # type: ignore[union-attr]
        sa.event.listen(engine, "connect", lambda connection, _: _convert_exactly(connection, extensions))


def _convert_exactly(connection: Any, extensions: Any) -> None:
    for name, list_type, changed, problem in _CONVERSIONS:
        convert = getattr(extensions, name)
        exact = extensions.new_type(convert.values, name, _exact(convert, re.compile(changed), problem))
        extensions.register_type(exact, connection)
        extensions.register_type(extensions.new_array_type((list_type,), f"{name}S", exact), connection)


def _exact(convert: Any, changed: re.Pattern[str], problem: str) -> Callable[[str | None, Any], Any]:
    def exact(text: str | None, cursor: Any) -> Any:
        if text is not None and changed.search(text):
            raise ValueError(f"{text} is {problem}")
        return convert(text, cursor)

    return exact


def _convert_times_and_bits(connection: Any, numbers: Any) -> None:
    connection.decoders[numbers.TIME] = _time_of_mysql
    connection.decoders[numbers.BIT] = lambda bits: int.from_bytes(bits, "big")


def _time_of_mysql(text: str) -> time | str:
    """Return a time of the day; the text if it is negative or longer than a day."""
    hours, *_ = text.split(":")
    return time.fromisoformat(text) if hours.isdigit() and int(hours) < 24 else text


class DuckdbValues:
    """Looks for such values in the result of a query in DuckDB, whose driver cannot refuse them.

    A second query asks for them, and only where a column or value may hide one.

    Args:
        result: The result of the query, of which no row is fetched yet.
    """

    def __init__(self, result: sa.CursorResult[Any]) -> None:
        description = result.cursor.description
        types = [str(column[1]) for column in description]
        shorten = {at: _shortener(column[1]) for at, column in enumerate(description)}
        self._shorten = {at: convert for at, convert in shorten.items() if convert is not None}
        self._names = list(result.keys())
        self._checks = {at: _OF_DUCKDB[type_] for at, type_ in enumerate(types) if type_ in _OF_DUCKDB}
        self._suspects = {at for at, (_, _, is_extreme) in self._checks.items() if not is_extreme}

    def shortened(self, rows: Sequence[Sequence[Any]]) -> Sequence[Sequence[Any]]:
        """Return rows with each FLOAT as the shortest decimal that reads back as the same number."""
        if not self._shorten:
            return rows
        shortened = [list(row) for row in rows]
        for row in shortened:
            for at, convert in self._shorten.items():
                row[at] = _by(convert, row[at])
        return shortened

    def watch(self, rows: Sequence[Sequence[Any]]) -> None:
        """Take some rows into account."""
        for at in self._checks.keys() - self._suspects:
            if any(row[at] is not None and _is_extreme(row[at]) for row in rows):
                self._suspects.add(at)

    def check(self, connection: sa.Connection, query: str | sa.TextClause) -> None:
        """Ask for the values.

        Args:
            connection: The connection, in the transaction of the query.
            query: The query.

        Raises:
            DatasetError: When there is one. Names its column.
        """
        if not self._suspects:
            return
        suspects = sorted(self._suspects)
        counts = ", ".join(f"count(*) FILTER (WHERE {self._checks[at][1].format(f'c{at}')})" for at in suspects)
        columns = ", ".join(f"c{at}" for at in range(len(self._names)))
        text = without_end(query.text if isinstance(query, sa.TextClause) else query, "duckdb")
        counting = f"SELECT {counts} FROM ({text}\n) AS t({columns})"
        with suppress(sa.exc.SQLAlchemyError):  # a statement that cannot be part of another has no such values
            found = _execute(connection, query, counting).one()
            for at, count in zip(suspects, found, strict=True):
                if count:
                    problem = f"column {self._names[at]!r} of the query has {self._checks[at][0]}"
                    raise DatasetError(f"{problem}, which Python cannot represent; cast it to text in the query")


def _shortener(type_: Any) -> Callable[[Any], Any] | None:
    """Return what shortens the floats in the values of a type of DuckDB; `None` if there are none."""
    name = getattr(type_, "id", "")
    if name == "float":
        return _shortest
    if name not in ("list", "array", "struct", "map"):
        return None
    inner = {part: _shortener(child) for part, child in type_.children if part != "size"}
    if not any(inner.values()):
        return None
    if name == "struct":
        return lambda value: {part: _by(inner[part], item) for part, item in value.items()}
    if name == "map":
        return lambda value: {_by(inner["key"], key): _by(inner["value"], item) for key, item in value.items()}
    return lambda value: [_by(inner["child"], item) for item in value]


def _shortest(value: float) -> float:
    return float(str(np.float32(value)))


def _by(convert: Callable[[Any], Any] | None, value: Any) -> Any:
    return value if convert is None or value is None else convert(value)


def _execute(connection: sa.Connection, query: str | sa.TextClause, text: str) -> sa.CursorResult[Any]:
    if isinstance(query, sa.TextClause):
        return connection.execute(sa.text(text).bindparams(**query.compile().params))
    return connection.execution_options(no_parameters=True).exec_driver_sql(text)


def _is_extreme(value: Any) -> bool:
    return (value.replace(tzinfo=None) if isinstance(value, datetime) else value) in _EXTREMES
