"""Values of DuckDB that its driver turns into others.

The driver makes the years 9999 and 1 of infinite dates, 30 days of a month, and leaves out nanoseconds: a query
with such a value is refused, also if it is within a list or an object. It gives a FLOAT more digits than it has:
these are shortened.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import date, datetime
from typing import Any, NamedTuple

import numpy as np
import sqlalchemy as sa

from batch_assets.core.dataset.query_guard import without_end
from batch_assets.core.dataset.query_values import INFINITE, MONTHS
from batch_assets.core.errors import DatasetError

_NANOSECONDS = "a time with nanoseconds"
# By DuckDB's type: what is wrong with values, the condition for it, and whether only extreme values may have it.
_OF_DUCKDB = {
    **dict.fromkeys(
        ("DATE", "TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP WITH TIME ZONE"),
        (INFINITE, "NOT isfinite({0})", True),
    ),
    "INTERVAL": (MONTHS, "extract(month FROM {0}) <> 0 OR extract(year FROM {0}) <> 0", False),
    "TIMESTAMP_NS": (
        f"{INFINITE}, or {_NANOSECONDS}",
        "NOT isfinite({0}::TIMESTAMP) OR {0} <> {0}::TIMESTAMP::TIMESTAMP_NS",
        False,
    ),
    "TIME_NS": (_NANOSECONDS, "{0} <> {0}::TIME::TIME_NS", False),
}
# The items of a list, and the keys and values of a map.
_ITEMS = {"child": "{0}[:]", "key": "map_keys({0})", "value": "map_values({0})"}
_EXTREMES = {date.min, date.max, datetime.min, datetime.max}


class _Check(NamedTuple):
    """What may be wrong with the values of a column.

    Attributes:
        problem: What is wrong.
        condition: The condition for it in SQL.
        is_extreme: Whether only values with the first or last date that Python has may have it.
    """

    problem: str
    condition: str
    is_extreme: bool


def _checks(type_: Any, value: str, depth: int = 0) -> Iterator[_Check]:
    """Yield what may be wrong with values of a type, and with those within them.

    Args:
        type_: The type.
        value: A value in SQL.
        depth: In how many lists it is.
    """
    if (known := _OF_DUCKDB.get(str(type_))) is not None:
        problem, condition, is_extreme = known
        yield _Check(problem, condition.format(value), is_extreme)
    kind = getattr(type_, "id", "")
    if kind not in ("list", "array", "map", "struct", "tuple", "union"):
        return
    for position, (name, child) in enumerate(type_.children):
        if kind in ("struct", "tuple"):
            yield from _checks(child, f"struct_extract_at({value}, {position + 1})", depth)
        elif kind == "union" and name:  # the first one is its tag
            tag = name.replace("'", "''")
            yield from _checks(child, f"union_extract({value}, '{tag}')", depth)
        elif name in _ITEMS:
            items, item = _ITEMS[name].format(value), f"x{depth}"
            for check in _checks(child, item, depth + 1):
                found = f"len(list_filter({items}, lambda {item}: {check.condition})) > 0"
                yield check._replace(condition=found)


class DuckdbValues:
    """Looks for such values in the result of a query in DuckDB, whose driver cannot refuse them.

    A second query asks for them, and only where a column or value may hide one.

    Args:
        result: The result of the query, of which no row is fetched yet.
    """

    def __init__(self, result: sa.CursorResult[Any]) -> None:
        description = result.cursor.description
        shorten = {at: _shortener(column[1]) for at, column in enumerate(description)}
        self._shorten = {at: convert for at, convert in shorten.items() if convert is not None}
        self._names = list(result.keys())
        checks = [(at, check) for at, column in enumerate(description) for check in _checks(column[1], f"c{at}")]
        self._suspects = [(at, check) for at, check in checks if not check.is_extreme]
        self._until_extreme = [(at, check) for at, check in checks if check.is_extreme]

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
        columns = {at for at, _ in self._until_extreme}
        extreme = {at for at in columns if any(row[at] is not None and _is_extreme(row[at]) for row in rows)}
        self._suspects += [(at, check) for at, check in self._until_extreme if at in extreme]
        self._until_extreme = [(at, check) for at, check in self._until_extreme if at not in extreme]

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
        counts = ", ".join(f"count(*) FILTER (WHERE {check.condition})" for _, check in suspects)
        columns = ", ".join(f"c{at}" for at in range(len(self._names)))
        text = without_end(query.text if isinstance(query, sa.TextClause) else query, "duckdb")
        counting = f"SELECT {counts} FROM ({text}\n) AS t({columns})"
        with suppress(sa.exc.SQLAlchemyError):  # a statement that cannot be part of another has no such values
            found = _execute(connection, query, counting).one()
            for (at, check), count in zip(suspects, found, strict=True):
                if count:
                    problem = f"column {self._names[at]!r} of the query has {check.problem}"
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
    if isinstance(value, dict):
        return any(map(_is_extreme, value)) or any(map(_is_extreme, value.values()))
    if isinstance(value, list | tuple):
        return any(map(_is_extreme, value))
    return (value.replace(tzinfo=None) if isinstance(value, datetime) else value) in _EXTREMES
