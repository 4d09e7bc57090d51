"""Put rows of results into the table of a sink."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa

from batch_assets.core.answers.result_columns import PARTITION
from batch_assets.core.errors import SinkError
from batch_assets.core.io.database import MYSQL
from batch_assets.core.sink import mysql
from batch_assets.core.sink.table import SinkTable, folded
from batch_assets.core.sink.target import Target


def check_names(target: Target, dialect: sa.Dialect, names: list[str]) -> None:
    """Check that a database can have a table and columns of these names.

    Args:
        target: The table.
        dialect: The kind of database.
        names: The names of the columns.

    Raises:
        SinkError: When it cannot. Names the column.
    """
    by_folded_name: dict[str, str] = {}
    most = dialect.max_identifier_length if dialect.name == "postgresql" else None
    is_mysql = dialect.name in MYSQL
    if is_mysql and (problem := mysql.problem_of_name(target.short)) is not None:
        raise SinkError(f"{target.field}.table: the name {target.short!r} {problem}: choose another name")
    remedy = "give it another name in `dataset.columns`, written as a map, or in the output schema"
    if most is not None and len(target.short.encode()) > most:
        raise SinkError(
            f"{target.field}.table: {dialect.name} allows names of at most {most} bytes, and {target.short!r} is "
            "longer: choose a shorter name"
        )
    for name in names:
        problem = None
        if not name or "\x00" in name:
            problem = "has a name that a database cannot have"
        elif (same := by_folded_name.setdefault(folded(name, dialect.name), name)) is not name:
            problem = f"and {same!r} have the same name for {dialect.name}"
        elif most is not None and len(name.encode("utf-8", "replace")) > most:
            problem = f"has a name longer than the {most} bytes that {dialect.name} allows"
        elif is_mysql:
            problem = mysql.problem_of_name(name)
        if problem is not None:
            raise SinkError(f"{target.field}: the column {name!r} {problem}: {remedy}")


def put_rows(
    target: Target, schema: pa.Schema, keys: list[str], partition: str, batches: Iterator[pa.RecordBatch]
) -> int:
    """Insert or update rows in one transaction, and return how many.

    Args:
        target: The table.
        schema: The columns of the rows.
        keys: The names of the key columns.
        partition: The partition key; "" without partitions.
        batches: The rows.

    Raises:
        SinkError: When the database cannot be reached or refuses. Nothing was changed.
    """
    if partition:
        keys = [PARTITION, *keys]
        schema = schema.insert(0, pa.field(PARTITION, pa.string()))
    key_names = ", ".join(keys)
    count = 0
    with target.transaction() as connection:
        check_names(target, connection.dialect, schema.names)
        with target.explained(key_names):
            table = SinkTable(connection, target, schema, keys)
        for batch in batches:
            rows = pa.Table.from_batches([batch])
            if rows.column(keys[-1]).null_count:  # lines that could not be read have no key
                rows = rows.filter(pc.is_valid(rows.column(keys[-1])))
            if partition:
                rows = rows.add_column(0, PARTITION, pa.array([partition] * len(rows), pa.string()))
            with target.explained(key_names):
                table.put(rows)
            count += len(rows)
    return count
