"""Questions to the results tables, which DuckDB answers from the Parquet files.

Each question reads the columns that it needs, and returns a bounded number of rows.
"""

from __future__ import annotations

import glob
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import duckdb

from batch_assets.core.answers.result_columns import ColumnGroups
from batch_assets.core.answers.result_types import FAILED
from batch_assets.core.errors import StorageError
from batch_assets.core.io.file_systems import open_file_system
from batch_assets.core.io.layout import results_parts
from batch_assets.core.io.storage import PARTITION_FOLDER
from batch_assets.core.results.causes import without_varying
from batch_assets.core.root import Root
from batch_assets.dashboard.columns import (
    ONLY_FILES,
    TEXT,
    Columns,
    key_meant_by,
    literal,
    names_in_files,
    numbered,
)

MOST_ROWS = 50
"""The most rows that a search returns."""
_MOST_FAILURES, _SAMPLES = 20, 3
# The most error messages that are grouped by cause, the most frequent first.
_MOST_MESSAGES = 100_000
# The most values of a distribution. A column that is no enum and has more is not shown.
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
_PARTITION = f"url_decode(regexp_extract(filename, '/{PARTITION_FOLDER}([^/]*)/[^/]*$', 1))"
_PLAIN = (TEXT, "BOOLEAN", "BIGINT")
_LISTS = tuple(f"{kind}[]" for kind in _PLAIN)


@dataclass
class Failure:
    """Rows that failed for the same cause, or whose answers cannot be used for the same cause.

    Attributes:
        pipeline: The pipeline.
        result_type: Their result type.
        error_type: Their error type or, without one, the stop reason of their answers; "" if they have neither.
        message: The error message of some of them; "" if they have none.
        rows: Their number.
        keys: The row keys of some of them, as text; "–" for a row without one.
        is_varied: Whether others have another message.
    """

    pipeline: str
    result_type: str
    error_type: str
    message: str
    rows: int
    keys: tuple[str, ...]
    is_varied: bool = False


@dataclass(frozen=True)
class Failures:
    """Why rows of a pipeline have no answer that can be used.

    Attributes:
        causes: The most frequent causes, the most frequent first.
        others: The number of rows with further causes, or with messages that are too many to be grouped.
    """

    causes: tuple[Failure, ...] = ()
    others: int = 0


@dataclass(frozen=True)
class Distribution:
    """How many rows have which value of a column.

    Attributes:
        values: The values as text and their rows, the most frequent first.
        rows: The number of rows that have a value.
        is_list: Whether a row may have several values: then it counts for each of them, once.
        more: The number of other values.
    """

    values: tuple[tuple[str, int], ...]
    rows: int
    is_list: bool = False
    more: int = 0


@dataclass(frozen=True)
class Row:
    """A row of a results table.

    Attributes:
        pipeline: The pipeline.
        partition: The partition key; "" without partitions.
        position: Its position in the table, from 0.
        key: The row key, as text; `None` if it has none.
        values: All columns, in order.
        row_key_name: The name of the row key.
        typed: The names of the typed columns.
        carried: The names of the carried columns.
    """

    pipeline: str
    partition: str
    position: int
    key: str | None
    values: dict[str, Any]
    row_key_name: str
    typed: tuple[str, ...]
    carried: tuple[str, ...]


class Tables:
    """The results tables of a root.

    Args:
        root: The root.
    """

    def __init__(self, root: Root) -> None:
        self._storage, self._settings = root.storage, root.settings

    def failures(self, pipeline: str) -> Failures:
        """Return why rows of a pipeline have no answer that can be used."""
        with self._open(pipeline) as (db, columns):
            if columns is None:
                return Failures()
            kind, message = columns.of("result_type"), columns.of("error_message")
            error = (
                f"coalesce({columns.of('error_type')}, if({columns.is_unusable}, {columns.of('stop_reason')}, ''))"
            )
            rows = db.execute(
                f"SELECT {kind}, {error}, coalesce(left({message}, 500), ''), count(*), "
                f"list(coalesce({columns.key}, '–') ORDER BY partition, position)[1:{_SAMPLES}], "
                "min((partition, position)), sum(count(*)) OVER () FROM results "
                f"WHERE {kind} IN ({_marks(FAILED)}) OR {columns.is_unusable} "
                "GROUP BY 1, 2, 3 ORDER BY 4 DESC, 6 LIMIT ?",
                [*map(str, FAILED), _MOST_MESSAGES],
            ).fetchall()
        return _by_cause(pipeline, rows)

    def distributions(self, pipeline: str, enums: Collection[str]) -> dict[str, Distribution]:
        """Return the values of typed columns, and how many rows have each: of enums, and of those with few values.

        Args:
            pipeline: The pipeline.
            enums: The columns of enums, or of lists of them.
        """
        with self._open(pipeline) as (db, columns):
            if columns is None:
                return {}
            # Counting is cheap, and grouping a column of a million texts is not.
            others = {columns.of(name): kind for name, kind in columns.typed.items() if name not in enums}
            few = {name for name, number in _distinct(db, others) if number <= 2 * _MOST_VALUES}
            found = {
                name: _distribution(db, columns.of(name), is_list=kind.endswith("[]"))
                for name, kind in columns.typed.items()
                if name in enums or columns.of(name) in few
            }
        return {
            name: column for name, column in found.items() if column.values and (name in enums or not column.more)
        }

    def search(self, pipeline: str, text: str) -> list[Row]:
        """Return rows whose key is a text, or whose key, carried text or answer contains it; by default the first.

        Args:
            pipeline: The pipeline.
            text: The text, in any case.
        """
        with self._open(pipeline) as (db, columns):
            if columns is None:
                return []
            if not text:
                return _rows(db, pipeline, columns, "true", [])
            exact = _rows(
                db, pipeline, columns, f"{columns.key} IN (?, ?)", [text, key_meant_by(db, columns, text)]
            )
            if exact:
                return exact
            among = [columns.key, *columns.searched]
            contains = " OR ".join(f"contains(lower({column}), lower(?))" for column in among)
            return _rows(db, pipeline, columns, contains, [text] * len(among))

    def row(self, row: Row) -> Row | None:
        """Return a row with all its columns; `None` if the table has another row at its position by now.

        Args:
            row: The row, as a search found it.
        """
        with self._open(row.pipeline, row.partition) as (db, columns):
            if columns is None:
                return None
            condition = f"position = ? AND {columns.key} IS NOT DISTINCT FROM ?"
            values = [row.position, row.key]
            return next(iter(_rows(db, row.pipeline, columns, condition, values, whole=True)), None)

    @contextmanager
    def _open(
        self, pipeline: str, partition: str | None = None
    ) -> Iterator[tuple[duckdb.DuckDBPyConnection, Columns | None]]:
        """Open a database with the view `results`, and the columns of the tables; `None` if there is no table.

        Args:
            pipeline: The pipeline.
            partition: The partition whose table is opened; `None` for all tables.
        """
        pattern = literal(self._pattern(pipeline, partition))
        source = f"read_parquet({pattern}, union_by_name = true, {ONLY_FILES})"
        with self.database() as db, self.reading(pipeline, "results", remedy="writes it again"):
            try:
                tables = db.sql(f"SELECT * FROM {source}")
            except duckdb.IOException as error:
                if _NO_FILES not in str(error):
                    raise
                yield db, None
                return
            types, schema = [str(type_) for type_ in tables.types], tables.limit(0).to_arrow_table().schema
            names = names_in_files(db, pattern, tables.columns)
            all_columns = ", ".join(map(numbered, range(len(names))))
            db.execute(
                f"CREATE VIEW results AS SELECT {all_columns}, {_PARTITION} AS partition, "
                f"file_row_number AS position FROM {source} AS files({all_columns})"
            )
            fields = (field.with_name(name) for field, name in zip(schema, names, strict=True))
            yield db, Columns(names, types, ColumnGroups.of(fields))

    def _pattern(self, pipeline: str, partition: str | None) -> str:
        """Return the pattern of the tables that users read: those of the partitions, if there are any."""
        if partition is not None:
            return self.uri(*results_parts(pipeline, partition))
        folders = self._storage.names(pipeline, "results")
        if not any(name.startswith(PARTITION_FOLDER) for name in folders):
            return self.uri(*results_parts(pipeline, ""))
        return f"{self.uri(pipeline, 'results')}/{PARTITION_FOLDER}*/{results_parts(pipeline, '')[-1]}"

    @contextmanager
    def reading(self, *folder: str, remedy: str = "says what to do") -> Iterator[None]:
        """Raise an error that names the files in a folder of a pipeline if one of them cannot be read.

        Args:
            folder: The path of the folder under the root.
            remedy: What the next run does.
        """
        try:
            yield
        except (duckdb.Error, ValueError) as error:
            raise StorageError(
                f"a file in {self._storage.uri(*folder)} cannot be read: {error}. The next run of the pipeline "
                f"{remedy}"
            ) from None

    @contextmanager
    def database(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Open a database in memory that can read the files of the root."""
        with duckdb.connect(":memory:", config=_CONFIG) as db:
            if not self._storage.is_local:
                db.register_filesystem(open_file_system(self._settings.root, self._settings.storage_options)[0])
            yield db

    def uri(self, *parts: str) -> str:
        """Return the location of a file as DuckDB takes it: as a pattern that only this file matches."""
        return glob.escape(self._storage.uri(*parts))


def _by_cause(pipeline: str, messages: Sequence[tuple[Any, ...]]) -> Failures:
    """Group rows with the same result type, error type and message by their cause.

    Args:
        pipeline: The pipeline.
        messages: Result type, error type, message, number of rows, some of their keys, where the first of them is,
            and the number of all rows, of further messages, too. The most frequent message first.
    """
    causes: dict[tuple[str, str, str], Failure] = {}
    for kind, error, message, rows, keys, *_ in messages:
        cause = causes.setdefault(
            (kind, error, without_varying(message)), Failure(pipeline, kind, error, message, 0, ())
        )
        cause.rows += rows
        cause.keys = (*cause.keys, *keys)[:_SAMPLES]
        cause.is_varied |= cause.message != message
    shown = sorted(causes.values(), key=lambda cause: -cause.rows)[:_MOST_FAILURES]
    total = int(messages[0][-1]) if messages else 0
    return Failures(tuple(shown), total - sum(cause.rows for cause in shown))


def _distinct(db: duckdb.DuckDBPyConnection, types: Mapping[str, str]) -> Iterator[tuple[str, int]]:
    """Yield columns of the view `results` and about how many values they have, if they can be counted.

    Args:
        db: A database with the view `results`.
        types: The types of these columns in DuckDB.
    """
    plain = [name for name, kind in types.items() if kind in _PLAIN]
    if plain:
        counted = ", ".join(f"approx_count_distinct({name})" for name in plain)
        yield from zip(plain, db.execute(f"SELECT {counted} FROM results").fetchone() or (), strict=True)
    for name in (name for name, kind in types.items() if kind in _LISTS):
        values = f"SELECT unnest({name}) AS value FROM results"
        ((number,),) = db.execute(f"SELECT approx_count_distinct(value) FROM ({values})").fetchall()
        yield name, number


def _distribution(db: duckdb.DuckDBPyConnection, column: str, *, is_list: bool) -> Distribution:
    """Return the most frequent values of a column of the view `results`."""
    # Making the values of lists distinct is dear, and many rows have the same list.
    values_of = f"list_distinct({column})" if is_list else column
    db.execute(
        f"CREATE OR REPLACE TEMP TABLE found AS SELECT {values_of} AS value, number "
        f"FROM (SELECT {column}, count(*) AS number FROM results GROUP BY 1)"
    )
    counted = db.execute(
        "SELECT CAST(value AS VARCHAR), sum(number), count(*) OVER () "
        f"FROM (SELECT {'unnest(value)' if is_list else 'value'} AS value, number FROM found) "
        "WHERE value IS NOT NULL GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT ?",
        [_MOST_VALUES],
    ).fetchall()
    has_value = "len(value) > 0" if is_list else "value IS NOT NULL"
    ((rows,),) = db.execute(f"SELECT coalesce(sum(number), 0) FROM found WHERE {has_value}").fetchall()
    values = tuple((value, number) for value, number, _ in counted)
    more = counted[0][2] - len(values) if counted else 0
    if more and not is_list:  # the line of the others takes the place of one
        values, more = values[:-1], more + 1
    return Distribution(values, rows, is_list, more)


def _rows(
    db: duckdb.DuckDBPyConnection,
    pipeline: str,
    columns: Columns,
    condition: str,
    values: Sequence[object],
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
    groups = columns.groups
    listed = [groups.key, "result_type", "response_text", *groups.typed, *groups.carried, "cost_usd", "attempts"]
    names = columns.names if whole else listed
    selected = ", ".join(["partition", "position", columns.key, *map(columns.value, names)])
    found = db.execute(
        f"SELECT {selected} FROM results WHERE {condition} LIMIT ?", [*values, MOST_ROWS]
    ).fetchall()
    return [
        Row(
            pipeline,
            partition,
            position,
            key,
            dict(zip(names, row, strict=True)),
            groups.key,
            tuple(groups.typed),
            tuple(groups.carried),
        )
        for partition, position, key, *row in found
    ]


def _marks(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))
