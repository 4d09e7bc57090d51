"""The table that takes results: made, or given the columns it lacks; rows inserted or updated by their key."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import sqlalchemy as sa

from batch_assets.core.errors import SinkError
from batch_assets.core.sink import types
from batch_assets.core.sink.target import ANOTHER_TABLE, Target

# A database takes so many values in one statement: https://sqlite.org/limits.html (32,766),
# https://www.postgresql.org/docs/current/limits.html (65,535).
_MOST_VALUES = 30_000
# Databases in which Name and name are two columns.
_CASE_COUNTS = ("postgresql",)
_Put = Callable[[pa.Table], None]


@dataclass(frozen=True)
class _Column:
    """A column that is there: its kind, its type as the database calls it, the digits of its decimals."""

    name: str
    kind: str
    type: str
    scale: int | None


class SinkTable:
    """The table in one transaction.

    Args:
        schema: of the rows that will come.
        keys: the columns that tell rows apart.
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
                    types.new_type(field.type, kind),
                    primary_key=field.name in keys,
                    autoincrement=False,
                )
                for field in schema
            ),
            schema=target.schema,
        )
        if kind == "postgresql":
            # IF NOT EXISTS fails there when two transactions make the table at once, of two roots for example.
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtext(target.name))))
        connection.execute(sa.schema.CreateTable(wanted, if_not_exists=True))
        present = _present(connection, wanted, schema)
        _add(connection, wanted, [column for column in wanted.columns if folded(column.name, kind) not in present])
        self._columns = [
            present.get(folded(field.name, kind)) or _Column(field.name, types.kind_of(field.type, kind), "", None)
            for field in schema
        ]
        table = sa.Table(
            target.short,
            sa.MetaData(),
            *(sa.Column(column.name, types.statement_type(column.kind)) for column in self._columns),
            schema=target.schema,
        )
        names = {field.name: column.name for field, column in zip(schema, self._columns, strict=True)}
        self._write = _writer(connection, table, [names[key] for key in keys])

    def put(self, rows: pa.Table) -> None:
        """Inserts or updates the rows.

        Errors:
            SinkError: a column that is there would change a value of them.
        """
        columns = [
            self._fitting(values, field, column)
            for values, field, column in zip(rows.columns, self._schema, self._columns, strict=True)
        ]
        self._write(pa.table(columns, names=[column.name for column in self._columns]))

    def _fitting(self, values: pa.ChunkedArray, field: pa.Field, column: _Column) -> pa.ChunkedArray:
        try:
            return types.as_kind(values, column.kind, self._dialect.name, column.scale)
        except types.LossError:
            own = types.new_type(field.type, self._dialect.name).compile(self._dialect)
            raise SinkError(
                f"{self._target.where}: the column {column.name!r} of the table {self._target.name} is "
                f"{column.type}, and values of results, which are {own}, would change in it. Nothing was changed "
                f"in the database. To mend it: {ANOTHER_TABLE}, or give the column that type"
            ) from None


def folded(name: str, dialect: str) -> str:
    """The name as the database compares it with others."""
    return name if dialect in _CASE_COUNTS else name.lower()


def _present(connection: sa.Connection, wanted: sa.Table, schema: pa.Schema) -> dict[str, _Column]:
    """The columns that are there, by their folded names."""
    dialect = connection.dialect
    found = []
    if dialect.name == "duckdb":
        table = dialect.identifier_preparer.format_table(wanted)
        for name, type_, *_ in connection.exec_driver_sql(f"DESCRIBE {table}"):
            found.append(_Column(name, types.kind_of_duckdb(type_), type_, types.scale_of_column(type_)))
    else:
        own = {folded(field.name, dialect.name): types.kind_of(field.type, dialect.name) for field in schema}
        for column in sa.inspect(connection).get_columns(wanted.name, wanted.schema):
            name, type_ = column["name"], column["type"]
            if isinstance(type_, sa.types.NullType):  # SQLite: it takes everything as it is
                found.append(_Column(name, own.get(folded(name, dialect.name), ""), "", None))
                continue
            kind = types.kind_of_column(type_, dialect.name)
            found.append(_Column(name, kind, _shown(type_, dialect), types.scale_of_column(type_)))
    return {folded(column.name, dialect.name): column for column in found}


def _shown(type_: sa.types.TypeEngine[Any], dialect: sa.Dialect) -> str:
    try:
        return type_.compile(dialect)
    except sa.exc.CompileError:
        return str(type_)


def _add(connection: sa.Connection, table: sa.Table, columns: Sequence[sa.Column[Any]]) -> None:
    quote = connection.dialect.identifier_preparer
    for column in columns:
        type_ = column.type.compile(connection.dialect)
        name = quote.quote_identifier(column.name)
        connection.exec_driver_sql(f"ALTER TABLE {quote.format_table(table)} ADD COLUMN {name} {type_}")


def _writer(connection: sa.Connection, table: sa.Table, keys: Sequence[str]) -> _Put:
    if connection.dialect.name == "duckdb":
        return _duckdb_writer(connection, table, keys)
    statement = _upsert(connection.dialect.name, table, keys)
    at_once = max(1, _MOST_VALUES // len(table.columns))

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
    """The dialect's own statement; None where rows are deleted and inserted anew."""
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
    """DuckDB reads Arrow tables as they are; row by row it takes seconds for a thousand."""
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
        driver.unregister("batch_assets_rows")  # after an error it fails as well, and would hide that one

    return put
