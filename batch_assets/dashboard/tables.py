"""Questions to the results tables, which DuckDB answers from the Parquet files.

Each question reads the columns that it needs, and returns a bounded number of rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import duckdb

from batch_assets.core.answers.result_columns import PARTITION, ColumnGroups
from batch_assets.core.answers.result_types import FAILED
from batch_assets.core.errors import StorageError
from batch_assets.core.io.file_systems import open_file_system
from batch_assets.core.root import Root

MOST_ROWS = 50
"""The most rows that a search returns."""
_MOST_FAILURES, _SAMPLES = 20, 3
# Columns with at most this many values are shown as a distribution.
_MOST_VALUES = 12
_CONFIG: dict[str, Any] = {
    "threads": 2,
    "memory_limit": "1GB",
    # Nothing is fetched from the network.
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
}
# How DuckDB says that there is no table yet.
_NO_FILES = "No files found"
_TEXT = "VARCHAR"
_PLAIN = (_TEXT, "BOOLEAN", "BIGINT")
_LISTS = tuple(f"{kind}[]" for kind in _PLAIN)


@dataclass(frozen=True)
class Failure:
    """Rows that failed for the same reason.

    Attributes:
        pipeline: The pipeline.
        result_type: Their result type.
        error_type: Their error type; "" if they have none.
        message: Their text.
        rows: Their number.
        keys: The row keys of some of them, as text.
    """

    pipeline: str
    result_type: str
    error_type: str
    message: str
    rows: int
    keys: tuple[str, ...]


@dataclass(frozen=True)
class Distribution:
    """How many rows have which value of a column.

    Attributes:
        values: The values as text and their rows, the most frequent first.
        rows: The number of rows that have a value.
        is_list: Whether a row may have several values: then it counts for each of them, once.
    """

    values: tuple[tuple[str, int], ...]
    rows: int
    is_list: bool = False


@dataclass(frozen=True)
class Row:
    """A row of a results table.

    Attributes:
        pipeline: The pipeline.
        partition: The partition key; "" without partitions.
        key: The row key, as text.
        values: All columns, in order.
        typed: The names of the typed columns.
        carried: The names of the carried columns.
    """

    pipeline: str
    partition: str
    key: str
    values: dict[str, Any]
    typed: tuple[str, ...]
    carried: tuple[str, ...]


@dataclass(frozen=True)
class _Columns:
    """The columns of a pipeline's tables.

    Attributes:
        types: Names to types of DuckDB, in order.
        groups: The columns by where they come from.
    """

    types: dict[str, str]
    groups: ColumnGroups

    @property
    def key(self) -> str:
        return self.groups.key

    @property
    def searched(self) -> list[str]:
        """The columns with text of people: carried ones, and the answer."""
        texts = [name for name in self.groups.carried if self.types[name] == _TEXT]
        return [*texts, "response_text"]


class Tables:
    """The results tables of a root.

    Args:
        root: The root.
    """

    def __init__(self, root: Root) -> None:
        self._storage, self._settings = root.storage, root.settings

    def failures(self, pipeline: str) -> list[Failure]:
        """Return why rows of a pipeline failed, the most frequent reason first, with some of their keys."""
        with self._open(pipeline) as (db, columns):
            if columns is None:
                return []
            key = _quoted(columns.key)
            rows = db.execute(
                f"SELECT result_type, coalesce(error_type, ''), coalesce(left(error_message, 500), ''), count(*), "
                f"list(CAST({key} AS VARCHAR) ORDER BY file_row_number)[1:{_SAMPLES}] FROM results "
                f"WHERE result_type IN ({_marks(FAILED)}) GROUP BY 1, 2, 3 ORDER BY 4 DESC, 1, 2, 3 LIMIT ?",
                [*map(str, FAILED), _MOST_FAILURES],
            ).fetchall()
        return [Failure(pipeline, kind, error, text, rows, tuple(keys)) for kind, error, text, rows, keys in rows]

    def distributions(self, pipeline: str) -> dict[str, Distribution]:
        """Return the values of each typed column that has few of them, and how many rows have each."""
        with self._open(pipeline) as (db, columns):
            if columns is None:
                return {}
            typed = {name: columns.types[name] for name in columns.groups.typed}
            # Counting is cheap, and grouping a column of a million texts is not.
            few = [name for name, number in _distinct(db, typed) if number <= 2 * _MOST_VALUES]
            found = {name: _distribution(db, name, is_list=typed[name] in _LISTS) for name in few}
        return {name: column for name, column in found.items() if 0 < len(column.values) <= _MOST_VALUES}

    def search(self, pipeline: str, text: str) -> list[Row]:
        """Return rows whose key is a text, or whose key, carried text or answer contains it; by default the first.

        Args:
            pipeline: The pipeline.
            text: The text, in any case.
        """
        with self._open(pipeline) as (db, columns):
            if columns is None:
                return []
            key = f"CAST({_quoted(columns.key)} AS VARCHAR)"
            if not text:
                return _rows(db, pipeline, columns, "true", [])
            exact = _rows(db, pipeline, columns, f"{key} = ?", [text])
            if exact:
                return exact
            among = [key, *map(_quoted, columns.searched)]
            contains = " OR ".join(f"contains(lower({column}), lower(?))" for column in among)
            return _rows(db, pipeline, columns, contains, [text] * len(among))

    def row(self, pipeline: str, partition: str, key: str) -> Row | None:
        """Return one row with all its columns.

        Args:
            pipeline: The pipeline.
            partition: The partition key; "" without partitions.
            key: The row key, as text.
        """
        with self._open(pipeline) as (db, columns):
            if columns is None:
                return None
            condition, values = f"CAST({_quoted(columns.key)} AS VARCHAR) = ?", [key]
            if PARTITION in columns.types:
                condition, values = f"{condition} AND {PARTITION} = ?", [key, partition]
            return next(iter(_rows(db, pipeline, columns, condition, values, whole=True)), None)

    @contextmanager
    def _open(self, pipeline: str) -> Iterator[tuple[duckdb.DuckDBPyConnection, _Columns | None]]:
        """Open a database with the view `results`, and the columns of the tables; `None` if there is no table."""
        pattern = self.uri(pipeline, "results", "**", "results.parquet")
        options = "union_by_name = true, hive_partitioning = true, hive_types_autocast = false"
        source = f"read_parquet({_literal(pattern)}, {options}, file_row_number = true)"
        with self.database() as db, self._reading(pipeline):
            try:
                db.execute(f"CREATE VIEW results AS SELECT * FROM {source}")
            except duckdb.IOException as error:
                if _NO_FILES not in str(error):
                    raise
                yield db, None
                return
            described = db.execute("DESCRIBE results").fetchall()
            types = {name: kind for name, kind, *_ in described if name != "file_row_number"}
            schema = db.sql("SELECT * FROM results LIMIT 0").to_arrow_table().schema
            yield db, _Columns(types, ColumnGroups.of(schema.field(name) for name in types if name != PARTITION))

    @contextmanager
    def _reading(self, pipeline: str) -> Iterator[None]:
        """Raise an error that names the tables if one of them cannot be read."""
        try:
            yield
        except (duckdb.Error, ValueError) as error:
            raise StorageError(
                f"a table in {self.uri(pipeline, 'results')} cannot be read: {error}. The next run of the "
                "pipeline writes it again"
            ) from None

    @contextmanager
    def database(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Open a database in memory that can read the files of the root."""
        with duckdb.connect(":memory:", config=_CONFIG) as db:
            if not self._storage.is_local:
                db.register_filesystem(open_file_system(self._settings.root, self._settings.storage_options)[0])
            yield db

    def uri(self, *parts: str) -> str:
        """Return the location of a file as DuckDB takes it."""
        return self._storage.uri(*parts)


def _distinct(db: duckdb.DuckDBPyConnection, types: Mapping[str, str]) -> Iterator[tuple[str, int]]:
    """Yield columns of the view `results` and about how many values they have, if they can be counted.

    Args:
        db: A database with the view `results`.
        types: Names of columns to types of DuckDB.
    """
    plain = [name for name, kind in types.items() if kind in _PLAIN]
    if plain:
        counted = ", ".join(f"approx_count_distinct({_quoted(name)})" for name in plain)
        yield from zip(plain, db.execute(f"SELECT {counted} FROM results").fetchone() or (), strict=True)
    for name in (name for name, kind in types.items() if kind in _LISTS):
        values = f"SELECT unnest({_quoted(name)}) AS value FROM results"
        ((number,),) = db.execute(f"SELECT approx_count_distinct(value) FROM ({values})").fetchall()
        yield name, number


def _distribution(db: duckdb.DuckDBPyConnection, name: str, *, is_list: bool) -> Distribution:
    """Return the most frequent values of a column of the view `results`, one more than are shown."""
    column = _quoted(name)
    value = f"unnest(list_distinct({column}))" if is_list else column
    found = db.execute(
        f"SELECT CAST(value AS VARCHAR), count(*) FROM (SELECT {value} AS value FROM results) "
        "WHERE value IS NOT NULL GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT ?",
        [_MOST_VALUES + 1],
    ).fetchall()
    has_value = f"len(list_distinct({column})) > 0" if is_list else f"{column} IS NOT NULL"
    ((rows,),) = db.execute(f"SELECT count(*) FROM results WHERE {has_value}").fetchall()
    return Distribution(tuple(found), rows, is_list)


def _rows(
    db: duckdb.DuckDBPyConnection,
    pipeline: str,
    columns: _Columns,
    condition: str,
    values: Sequence[str],
    *,
    whole: bool = False,
) -> list[Row]:
    """Return the first rows for which a condition holds.

    Args:
        db: A database with the view `results`.
        pipeline: The pipeline.
        columns: The columns of the view.
        condition: The condition in SQL.
        values: The values of its parameters.
        whole: Return all columns, and not only those of a list.
    """
    listed = [
        columns.key,
        "result_type",
        "response_text",
        *columns.groups.typed,
        *columns.groups.carried,
        "cost_usd",
        "attempts",
    ]
    if PARTITION in columns.types:
        listed.append(PARTITION)
    names = list(columns.types) if whole else listed
    found = db.execute(
        f"SELECT {', '.join(map(_quoted, names))} FROM results WHERE {condition} LIMIT ?", [*values, MOST_ROWS]
    ).fetchall()
    rows = [dict(zip(names, row, strict=True)) for row in found]
    return [
        Row(
            pipeline,
            row.get(PARTITION) or "",
            str(row[columns.key]),
            row,
            tuple(columns.groups.typed),
            tuple(columns.groups.carried),
        )
        for row in rows
    ]


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _marks(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))
