"""The table for a copy of the results: create it, add missing columns, insert or update rows by their key."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import sqlalchemy as sa

from batch_assets.core.errors import SinkError
from batch_assets.core.io.database import MYSQL
from batch_assets.core.sink import mysql, types
from batch_assets.core.sink.target import ANOTHER_TABLE, Target

# Databases limit the number of values in one statement: https://sqlite.org/limits.html (32,766),
# https://www.postgresql.org/docs/current/limits.html (65,535).
_MOST_VALUES = 30_000
# Databases in which Name and name are two columns.
_CASE_SENSITIVE = ("postgresql",)
_Put = Callable[[pa.Table], None]


@dataclass(frozen=True)
class Column:
    """A column of the table.

    Attributes:
        name: The name in the database.
        kind: The kind of its values; see `types`.
        type: The type as the database names it; "" if it has none.
        scale: The number of decimal places, also of seconds; `None` if they are not limited.
    """

    name: str
    kind: str
    type: str
    scale: int | None


class SinkTable:
    """The table within one transaction. Created if it does not exist; missing columns are added.

    Args:
        connection: The connection, in a transaction.
        target: The database and the name of the table.
        schema: The schema of the rows that will be written.
        keys: The names of the columns that identify a row.
    """

    def __init__(self, connection: sa.Connection, target: Target, schema: pa.Schema, keys: Sequence[str]) -> None:
        self._target, self._schema = target, schema
        self._dialect = connection.dialect
        kind = connection.dialect.name
        wanted = sa.Table(
            target.short,
            sa.MetaData(),
            *(
                sa.Column(
                    field.name,
                    _new_type(connection, field, keys),
                    primary_key=field.name in keys,
                    autoincrement=False,
                )
                for field in schema
            ),
            schema=target.schema,
            mysql_engine="InnoDB",  # others cannot undo what they wrote
            mariadb_engine="InnoDB",
        )
        if kind == "postgresql":
            # In PostgreSQL, IF NOT EXISTS fails when two transactions create the table at once, for example of two
            # roots.
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtext(target.name))))
        elif kind in MYSQL:
            mysql.lock(connection, target)
        # MySQL asks for the permission to create a table even if it exists.
        if kind not in MYSQL or not sa.inspect(connection).has_table(target.short, target.schema):
            connection.execute(sa.schema.CreateTable(wanted, if_not_exists=True))
        existing = existing_columns(connection, wanted, schema)
        if kind in MYSQL:
            mysql.check_table(connection, target, keys)
        missing = [column for column in wanted.columns if folded(column.name, kind) not in existing]
        _add_columns(connection, wanted, missing)
        self._columns = [
            existing.get(folded(field.name, kind)) or Column(field.name, types.kind_of(field.type, kind), "", None)
            for field in schema
        ]
        table = sa.Table(
            target.short,
            sa.MetaData(),
            *(sa.Column(column.name, types.statement_type(column.kind)) for column in self._columns),
            schema=target.schema,
        )
        names = {field.name: column.name for field, column in zip(schema, self._columns, strict=True)}
        self._write = _writer(connection, target, table, [names[key] for key in keys])

    def put(self, rows: pa.Table) -> None:
        """Insert or update rows.

        Raises:
            SinkError: When an existing column would change one of the values.
        """
        columns = [
            self._fitting(values, field, column)
            for values, field, column in zip(rows.columns, self._schema, self._columns, strict=True)
        ]
        self._write(pa.table(columns, names=[column.name for column in self._columns]))

    def _fitting(self, values: pa.ChunkedArray, field: pa.Field, column: Column) -> pa.ChunkedArray:
        try:
            return types.as_kind(values, column.kind, self._dialect.name, column.scale)
        except types.LossError:
            result_type = types.new_type(field.type, self._dialect.name).compile(self._dialect)
            raise SinkError(
                f"{self._target.field}: the column {column.name!r} of the table {self._target.name} has the type "
                f"{column.type}, which would change values of results, whose type is {result_type}. "
                f"{self._target.nothing} was changed in the database. To fix this, {ANOTHER_TABLE}, or change the "
                "type of the column"
            ) from None


def _new_type(connection: sa.Connection, field: pa.Field, keys: Sequence[str]) -> sa.types.TypeEngine[Any]:
    type_ = types.new_type(field.type, connection.dialect.name)
    if connection.dialect.name in MYSQL and field.name in keys:
        return mysql.key_type(connection, type_, keys, field.name)
    return type_


def folded(name: str, dialect: str) -> str:
    """Return a column name in the form in which the database compares names."""
    return name if dialect in _CASE_SENSITIVE else name.lower()


def existing_columns(connection: sa.Connection, wanted: sa.Table, schema: pa.Schema) -> dict[str, Column]:
    """Return the columns of a table in the database, by their folded names.

    Args:
        connection: The connection.
        wanted: The name of the table.
        schema: The columns of the rows. A column without a type in SQLite keeps any value of theirs.
    """
    dialect = connection.dialect
    columns = []
    if dialect.name == "duckdb":
        table = dialect.identifier_preparer.format_table(wanted)
        for name, type_, *_ in connection.exec_driver_sql(f"DESCRIBE {table}"):
            columns.append(Column(name, types.kind_of_duckdb(type_), type_, types.scale_of_column(type_)))
    else:
        kinds = {folded(field.name, dialect.name): types.kind_of(field.type, dialect.name) for field in schema}
        for column in sa.inspect(connection).get_columns(wanted.name, wanted.schema):
            name, type_ = column["name"], column["type"]
            if isinstance(type_, sa.types.NullType):  # a column without a type in SQLite, which keeps any value
                columns.append(Column(name, kinds.get(folded(name, dialect.name), ""), "", None))
                continue
            kind = types.kind_of_column(type_, dialect.name, kinds.get(folded(name, dialect.name), ""))
            columns.append(Column(name, kind, _type_name(type_, dialect), types.scale_of_column(type_)))
    return {folded(column.name, dialect.name): column for column in columns}


def _type_name(type_: sa.types.TypeEngine[Any], dialect: sa.Dialect) -> str:
    try:
        return type_.compile(dialect)
    except sa.exc.CompileError:
        return str(type_)


def _add_columns(connection: sa.Connection, table: sa.Table, columns: Sequence[sa.Column[Any]]) -> None:
    quote = connection.dialect.identifier_preparer
    for column in columns:
        type_ = column.type.compile(connection.dialect)
        name = quote.quote_identifier(column.name)
        connection.exec_driver_sql(f"ALTER TABLE {quote.format_table(table)} ADD COLUMN {name} {type_}")


def _writer(connection: sa.Connection, target: Target, table: sa.Table, keys: Sequence[str]) -> _Put:
    at_once = max(1, _MOST_VALUES // len(table.columns))
    if connection.dialect.name == "duckdb":
        return _duckdb_writer(connection, table, keys)
    if connection.dialect.name in MYSQL:
        return mysql.writer(connection, target, table, keys, at_once)
    statement = _upsert(connection.dialect.name, table, keys)

    def put(rows: pa.Table) -> None:
        for start in range(0, len(rows), at_once):
            entries = rows.slice(start, at_once).to_pylist()
            if statement is None:
                matches = [sa.tuple_(*(entry[name] for name in keys)) for entry in entries]
                connection.execute(
                    sa.delete(table).where(sa.tuple_(*(table.c[name] for name in keys)).in_(matches))
                )
                connection.execute(sa.insert(table), entries)
            else:
                connection.execute(statement, entries)

    return put


def _upsert(dialect: str, table: sa.Table, keys: Sequence[str]) -> Any:
    """Make the dialect's upsert statement; `None` if it has none, and rows are deleted and inserted instead."""
    if dialect == "postgresql":
        from sqlalchemy.dialects.postgresql import insert
    elif dialect == "sqlite":
        from sqlalchemy.dialects.sqlite import insert  # type: ignore[assignment]
    else:
        return None
    statement = insert(table)
    changed = {column.name: statement.excluded[column.name] for column in table.columns if column.name not in keys}
    return statement.on_conflict_do_update(index_elements=list(keys), set_=changed)


def _duckdb_writer(connection: sa.Connection, table: sa.Table, keys: Sequence[str]) -> _Put:
    """Write with DuckDB's own reader of Arrow tables. Row by row, a thousand rows would take seconds."""
    driver: Any = connection.connection.driver_connection
    quote = connection.dialect.identifier_preparer
    names = [quote.quote_identifier(column.name) for column in table.columns]
    changed = [
        f"{quote.quote_identifier(c.name)} = excluded.{quote.quote_identifier(c.name)}"
        for c in table.columns
        if c.name not in keys
    ]
    key = ", ".join(map(quote.quote_identifier, keys))
    into, columns = quote.format_table(table), ", ".join(names)
    sql = (
        f"INSERT INTO {into} ({columns}) SELECT {columns} FROM batch_assets_rows "
        f"ON CONFLICT ({key}) DO UPDATE SET {', '.join(changed)}"
    )

    def put(rows: pa.Table) -> None:
        driver.register("batch_assets_rows", rows)
        connection.exec_driver_sql(sql)
        driver.unregister(
            "batch_assets_rows"
        )  # not in a `finally`: after an error it fails too and hides the error

    return put
