"""Delete rows from the table of a sink."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import sqlalchemy as sa

from batch_assets.core.io.database import MYSQL
from batch_assets.core.sink import mysql
from batch_assets.core.sink.table import Column, existing_columns, folded
from batch_assets.core.sink.target import Target
from batch_assets.core.sink.types import LossError, as_kind, statement_type
from batch_assets.core.store.key_texts import meant_by


def erase_rows(
    target: Target,
    key: str,
    keys: Sequence[str],
    custom_ids: Mapping[str, str],
    types: Sequence[pa.DataType],
) -> int:
    """Delete the rows of some keys in one transaction, and return how many. See `erase_from_sink`."""
    with target.transaction() as connection, target.explained(key):
        table = _table(connection, target)
        if table is None:
            return 0
        columns = {folded(column.name, connection.dialect.name): column for column in table.columns}
        names = (folded(name, connection.dialect.name) for name in (key, "shared_with", "custom_id"))
        row_key, shared_with, custom_id = (columns.get(name) for name in names)
        if shared_with is not None:
            named = _as_text_in(connection, shared_with, keys)
            connection.execute(sa.update(table).where(named).values({shared_with.name: None}))
        if custom_id is not None and custom_ids:
            is_text = _existing(connection, target, "custom_id", pa.string()).kind == "text"
            for old, new in custom_ids.items():
                is_old = (
                    _is_text(connection, custom_id, old) if is_text else _as_text_in(connection, custom_id, [old])
                )
                connection.execute(sa.update(table).where(is_old).values({custom_id.name: new}))
        if row_key is None:
            return 0
        is_named = [values for type_ in types for values in _named(connection, target, key, keys, type_)]
        is_erased = sa.or_(_as_text_in(connection, row_key, keys), *is_named)
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("PRAGMA secure_delete = ON")  # otherwise the file keeps what is deleted
        count = connection.execute(sa.select(sa.func.count()).select_from(table).where(is_erased)).scalar_one()
        connection.execute(sa.delete(table).where(is_erased))
        return int(count)


def _named(
    connection: sa.Connection, target: Target, key: str, keys: Sequence[str], type_: pa.DataType
) -> Iterator[sa.ColumnElement[bool]]:
    """Yield a condition that the row key is one of some values; none if the table holds no values of the type."""
    dialect = connection.dialect.name
    column = _existing(connection, target, key, type_)
    try:
        found = [value for text in keys if (value := meant_by(text, type_)) is not None]
        values = pa.chunked_array(found, found[0].type) if found else None
        if values is not None:
            held = as_kind(values, column.kind, dialect, column.scale).to_pylist()
            if column.kind == "text":
                yield _as_text_in(connection, sa.column(column.name), held)
            else:
                yield sa.column(column.name, statement_type(column.kind)).in_(held)
    except (LossError, KeyError, pa.ArrowException):
        return


def _existing(connection: sa.Connection, target: Target, name: str, type_: pa.DataType) -> Column:
    """Return a column of the table as a place for values of a type."""
    table = sa.Table(target.short, sa.MetaData(), schema=target.schema)
    return existing_columns(connection, table, pa.schema([(name, type_)]))[folded(name, connection.dialect.name)]


def _is_text(connection: sa.Connection, column: sa.ColumnElement[Any], text: str) -> sa.ColumnElement[bool]:
    """Make a condition, for which an index can be used, that a column of texts is exactly a text."""
    if connection.dialect.name in MYSQL:
        return sa.and_(column == text, _as_text_in(connection, column, [text]))
    return column == text


def _as_text_in(
    connection: sa.Connection, column: sa.ColumnElement[Any], texts: Sequence[str]
) -> sa.ColumnElement[bool]:
    """Make a condition that a column, as text, is exactly one of the texts."""
    if connection.dialect.name in MYSQL:  # which counts texts as equal that differ in case
        return mysql.exact(column).in_([text.encode() for text in texts])
    return sa.cast(column, sa.Text).in_(texts)


def _table(connection: sa.Connection, target: Target) -> sa.TableClause | None:
    """Return the table with its columns; `None` if it does not exist."""
    inspector = sa.inspect(connection)
    if not inspector.has_table(target.short, target.schema):
        return None
    if connection.dialect.name == "duckdb":
        table = connection.dialect.identifier_preparer.format_table(sa.table(target.short, schema=target.schema))
        names = [row[0] for row in connection.exec_driver_sql(f"DESCRIBE {table}")]
    else:
        names = [column["name"] for column in inspector.get_columns(target.short, target.schema)]
    return sa.table(target.short, *map(sa.column, names), schema=target.schema)
