"""Values of a query that a database's driver turns into others. They are refused by name.

Python has no infinite date, and no interval of months: drivers return the year 9999 or 1, and 30 days for a month.
That of PostgreSQL also makes 00:00 of the time 24:00. Other values are converted here: PyMySQL makes an interval
of each time and bytes of each number of bits. `duckdb_values.py` is about those of DuckDB.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import time
from typing import Any

import sqlalchemy as sa

INFINITE = "an infinite date or time"
MONTHS = "an interval of months or years, whose length differs"
_END_OF_DAY = "the time 24:00"
# What psycopg2 calls its conversions, PostgreSQL's number of the type of their lists, and the texts they change.
_CONVERSIONS = (
    ("PYDATE", 1182, "infinity", INFINITE),
    ("PYDATETIME", 1115, "infinity", INFINITE),
    ("PYDATETIMETZ", 1185, "infinity", INFINITE),
    ("PYTIME", 1183, "^24", _END_OF_DAY),
    ("PYINTERVAL", 1187, "mon|year", MONTHS),
)


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
