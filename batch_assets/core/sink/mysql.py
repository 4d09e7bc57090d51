"""MySQL and MariaDB as a sink: types that hold every value, and rows by exact keys.

By default they count keys as equal that differ in case or in blanks at the end, and store whole seconds. Their
usual text has up to 64 KB.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from batch_assets.core.errors import SinkError
from batch_assets.core.sink.target import ANOTHER_TABLE, Target
from batch_assets.core.text import count

_MOST_NAME_CHARACTERS = 64
# https://dev.mysql.com/doc/refman/8.4/en/precision-math-decimal-characteristics.html
MOST_DIGITS, MOST_DECIMAL_PLACES = 65, 30
# A key has up to 3,072 bytes, of which a character may need four. The first part of two is the partition.
_KEY_CHARACTERS = ((768,), (255, 512))
_KEY_BYTES = ((3072,), (1020, 2048))
# Text is equal only if every byte is: in MariaDB, in MySQL, and in old versions except for blanks at the end.
_EXACT = ("utf8mb4_nopad_bin", "utf8mb4_0900_bin", "utf8mb4_bin")
# Another process may write a large table.
_LOCK_SECONDS = 900
_WITHOUT_TRANSACTIONS = sa.text(
    "SELECT t.engine FROM information_schema.tables t JOIN information_schema.engines e ON e.engine = t.engine "
    "WHERE e.transactions = 'NO' AND t.table_schema = COALESCE(:schema, DATABASE()) AND t.table_name = :name"
)
_BLOBS = (mysql.TINYBLOB, mysql.MEDIUMBLOB, mysql.LONGBLOB, sa.LargeBinary, sa.VARBINARY)


def problem_of_name(name: str) -> str | None:
    """Say why the database cannot have a table or a column of a name; `None` if it can."""
    if len(name) > _MOST_NAME_CHARACTERS:
        return f"is longer than the {_MOST_NAME_CHARACTERS} characters that MySQL allows in a name"
    if name.endswith(" "):
        return "ends with a blank, which MySQL does not allow in a name"
    if "`" in name:
        return "has a backtick, with which it cannot be read back from MySQL"
    if any(character > "\uffff" for character in name):
        return "has an emoji or another character that MySQL does not allow in a name"
    return None


def lock(connection: sa.Connection, target: Target) -> None:
    """Wait for other writers of the table. The lock ends with the connection.

    Raises:
        SinkError: When another one writes for too long.
    """
    schema = target.schema or sa.func.coalesce(sa.func.database(), "")
    name = sa.func.md5(sa.func.concat("batch_assets:", schema, ".", target.short))
    if connection.execute(sa.select(sa.func.get_lock(name, _LOCK_SECONDS))).scalar() == 0:
        raise SinkError(
            f"{target.field}: another process has been writing the table {target.name} for "
            f"{_LOCK_SECONDS // 60} minutes: write the results again later"
        )


def key_type(
    connection: sa.Connection, type_: sa.types.TypeEngine[Any], keys: Sequence[str], name: str
) -> sa.types.TypeEngine[Any]:
    """Return the type of a new column that is a part of the key: text and bytes need a length there.

    Args:
        connection: The connection.
        type_: The type of the column if it were no key.
        keys: The names of the columns that are the key: the row key, or the partition and the row key.
        name: The name of the column.
    """
    position = keys.index(name)
    if isinstance(type_, mysql.LONGTEXT):
        known = sa.text("SELECT collation_name FROM information_schema.collations WHERE collation_name IN :names")
        existing = (
            connection.execute(known.bindparams(sa.bindparam("names", _EXACT, expanding=True))).scalars().all()
        )
        collation = next(name for name in _EXACT if name in existing)
        return mysql.VARCHAR(_KEY_CHARACTERS[len(keys) - 1][position], charset="utf8mb4", collation=collation)
    if isinstance(type_, mysql.LONGBLOB):
        return sa.VARBINARY(_KEY_BYTES[len(keys) - 1][position])
    return type_


def kind_of_column(type_: sa.types.TypeEngine[Any], wanted: str) -> str | None:
    """Return the kind of an existing column where it differs from other databases; `None` elsewhere.

    Args:
        type_: The type of the column.
        wanted: The kind of the column of results.
    """
    if isinstance(type_, mysql.TINYINT) and type_.display_width == 1:
        return "boolean" if wanted == "boolean" else "integer"
    if isinstance(type_, mysql.ENUM | mysql.SET):  # regardless of case and order, and numbers count as positions
        return str(type_)
    if isinstance(type_, sa.Float):
        if type_.scale is not None:  # rounds
            return str(type_)
        return "real" if isinstance(type_, mysql.FLOAT) else "double"
    return "binary" if isinstance(type_, _BLOBS) else None


def exact(column: sa.ColumnElement[Any]) -> sa.ColumnElement[bytes]:
    """Make an expression for the text of a column as UTF-8, which is equal only if every byte is."""
    return sa.cast(sa.cast(column, sa.Text), sa.LargeBinary)


def check_table(connection: sa.Connection, target: Target, keys: Sequence[str]) -> None:
    """Check that a table can have only one row for each key, and can undo what was written.

    Args:
        connection: The connection.
        target: The database and the name of the table.
        keys: The names of the key's columns.

    Raises:
        ValueError: When it cannot.
    """
    inspector = sa.inspect(connection)
    primary = inspector.get_pk_constraint(target.short, target.schema)["constrained_columns"]
    indexes = inspector.get_indexes(target.short, target.schema)
    unique = [set(map(str, index["column_names"])) for index in indexes if index["unique"]]
    if {name.lower() for name in keys} not in [{name.lower() for name in names} for names in (primary, *unique)]:
        raise ValueError("it has no unique key of these columns")
    engine = connection.execute(_WITHOUT_TRANSACTIONS, {"schema": target.schema, "name": target.short}).scalar()
    if engine is not None:
        raise ValueError(f"its engine {engine} has no transactions")


def writer(
    connection: sa.Connection, target: Target, table: sa.Table, keys: Sequence[str], at_once: int
) -> Callable[[pa.Table], None]:
    """Make a function that inserts or updates rows.

    Args:
        connection: The connection.
        target: The database and the name of the table.
        table: The table, with the columns that are written.
        keys: The names of the key's columns in the database.
        at_once: The number of rows in one statement.
    """
    insert = mysql.insert(table)
    # For MariaDB, SQLAlchemy writes a % in the name of `inserted` as %%%%.
    is_mariadb = connection.dialect.is_mariadb  # type: ignore[attr-defined]
    given = sa.func.values if is_mariadb else lambda column: insert.inserted[column.name]
    changed = {column.name: given(column) for column in table.columns if column.name not in keys}
    statement = insert.on_duplicate_key_update(changed)
    # With several rows, PyMySQL does not replace the %% after them by %.
    one_by_one = any("%" in column.name for column in table.columns)

    def put(rows: pa.Table) -> None:
        for start in range(0, len(rows), at_once):
            entries = rows.slice(start, at_once).to_pylist()
            for part in entries if one_by_one else [entries]:
                connection.execute(statement, part)
            _check_keys(
                connection, target, table, [tuple(entry[name] for name in keys) for entry in entries], keys
            )

    return put


def _check_keys(
    connection: sa.Connection, target: Target, table: sa.Table, written: list[tuple[Any, ...]], keys: Sequence[str]
) -> None:
    """Check that the table has a row for every key as it was written, and not for another that counts as equal."""
    columns = [table.c[name] for name in keys]
    is_written = (
        sa.tuple_(*columns).in_(written) if len(keys) > 1 else columns[0].in_([values[0] for values in written])
    )
    held = {_comparable(row) for row in connection.execute(sa.select(*columns).where(is_written))}
    missing = sum(_comparable(values) not in held for values in written)
    if missing:
        raise SinkError(
            f"{target.field}: the table {target.name} counts {count(missing, 'row key')} as equal to others, or "
            "changes them: its column ignores case, accents, blanks at the end or digits. No row was changed in "
            f"it. To fix this, {ANOTHER_TABLE}, or give {', '.join(keys)} the collation utf8mb4_nopad_bin "
            "(MariaDB) or utf8mb4_0900_bin (MySQL)"
        )


def _comparable(values: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(value.replace(tzinfo=None) if isinstance(value, datetime) else value for value in values)
