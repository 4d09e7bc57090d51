"""A copy of the results in a table of a database, row by row by their key. The Parquet file comes first."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy as sa

from batch_assets.core.config import Pipeline
from batch_assets.core.config_blocks import SinkConfig
from batch_assets.core.errors import SinkError
from batch_assets.core.ledger import leases
from batch_assets.core.root import Root, results_parts
from batch_assets.core.table_metadata import ROW_KEY

_ROWS_AT_ONCE = 5000
# A database takes so many values in one statement: https://sqlite.org/limits.html (32,766),
# https://www.postgresql.org/docs/current/limits.html (65,535).
_MOST_VALUES = 30_000
PARTITION = "partition"
# Databases that are a file.
_FILES = ("sqlite", "duckdb")


@dataclass(frozen=True)
class SinkReport:
    """What was written.

    Attributes:
        table: its name, with its schema if it has one.
        rows: that were inserted or updated.
    """

    table: str
    rows: int


def write_sink(root: Root, pipeline: Pipeline, partition: str = "") -> SinkReport | None:
    """Inserts or updates every row of the results by its row key, all of them in one transaction.

    The table is made when it is not there, and columns that it lacks are added; columns of others stay. Rows that
    are in the dataset no more stay as well. Doing it again changes nothing.

    Returns:
        None for a pipeline without a sink.

    Errors:
        SinkError: the database cannot be reached or refuses, naming the table and what to do. Nothing was changed.
    """
    sink = pipeline.config.sink
    if sink is None:
        return None
    # One after the other: each takes the newest table of results, so an older one never comes last.
    with leases.hold(root.ledger, f"sink:{pipeline.name}:{partition}", wait=600.0) as lease:
        table = _Table(pipeline, sink, partition)
        with pq.ParquetFile(root.storage.open(*results_parts(pipeline.name, partition))) as file:
            schema = file.schema_arrow
            key = (schema.metadata or {})[ROW_KEY.encode()].decode()
            rows = table.write(schema, key, _checked(file.iter_batches(_ROWS_AT_ONCE), lease))
        return SinkReport(table.name, rows)


def _checked(batches: Iterator[pa.RecordBatch], lease: leases.Lease) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        lease.check()
        yield batch


class _Table:
    """The table, over one connection."""

    def __init__(self, pipeline: Pipeline, sink: SinkConfig, partition: str) -> None:
        self._where = f"{pipeline.source}: sink"
        self._partition = partition
        schema, _, name = (sink.table or pipeline.name).rpartition(".")
        self._schema, self._short = schema or None, name
        self.name = sink.table or pipeline.name
        self._url = self._find_url(sink, pipeline)

    def write(self, schema: pa.Schema, key: str, batches: Iterator[pa.RecordBatch]) -> int:
        """Inserts or updates the rows of every batch; how many."""
        keys = [PARTITION, key] if self._partition else [key]
        if self._partition:
            schema = schema.insert(0, pa.field(PARTITION, pa.string()))
        wanted = sa.Table(
            self._short,
            sa.MetaData(),
            *(
                sa.Column(field.name, _type(field), primary_key=field.name in keys, autoincrement=False)
                for field in schema
            ),
            schema=self._schema,
        )
        count = 0
        with self._connected() as connection:
            connection.execute(sa.schema.CreateTable(wanted, if_not_exists=True))
            self._add_missing(connection, wanted)
            put = _writer(connection, wanted, keys)
            for batch in batches:
                table = pa.Table.from_batches([batch])
                if self._partition:
                    partition = pa.array([self._partition] * len(batch), pa.string())
                    table = table.add_column(0, PARTITION, partition)
                put(_plain(table))
                count += len(batch)
        return count

    @contextmanager
    def _connected(self) -> Iterator[sa.Connection]:
        with self._explained():
            engine = sa.create_engine(self._url)
            try:
                with engine.begin() as connection:
                    yield connection
            finally:
                engine.dispose()

    def _add_missing(self, connection: sa.Connection, wanted: sa.Table) -> None:
        present = set(connection.execute(sa.select(sa.text("*")).select_from(wanted).limit(0)).keys())
        compiler = connection.dialect.identifier_preparer
        for column in wanted.columns:
            if column.name not in present:
                type_ = column.type.compile(connection.dialect)
                name = compiler.quote_identifier(column.name)
                connection.exec_driver_sql(
                    f"ALTER TABLE {compiler.format_table(wanted)} ADD COLUMN {name} {type_}"
                )

    def _find_url(self, sink: SinkConfig, pipeline: Pipeline) -> sa.URL:
        text = sink.url or os.environ.get(sink.url_env or "")
        if not text:
            raise SinkError(f"{self._where}.url_env: the environment variable {sink.url_env} is not set")
        try:
            url = sa.make_url(text)
        except (sa.exc.ArgumentError, ValueError):
            raise SinkError(
                f"{self._where}: that is not a SQLAlchemy URL, such as duckdb:///answers.duckdb"
            ) from None

        if url.get_backend_name() in _FILES and url.database and url.database != ":memory:":
            return url.set(database=str(pipeline.project / url.database))  # not where the process happens to be
        return url

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """What the database says, without the URL and the values that SQLAlchemy's own texts hold."""
        try:
            yield
        except (sa.exc.NoSuchModuleError, ImportError):
            raise SinkError(
                f"{self._where}: there is no driver for {self._url.drivername}:// here; install it "
                "(pip install 'batch-assets[duckdb]' or 'batch-assets[postgres]' for those two)"
            ) from None
        except sa.exc.SQLAlchemyError as error:
            # What follows the first line is a piece of the statement, with values of rows in it.
            said = (str(getattr(error, "orig", None) or "").strip() or type(error).__name__).splitlines()[0]
            if self._url.password:
                said = said.replace(str(self._url.password), "***")
            raise SinkError(
                f"{self._where}: the database refuses the table {self.name}: {said}. The results are complete in "
                "Parquet; mend it and materialize results again"
            ) from None


def _writer(connection: sa.Connection, table: sa.Table, keys: Sequence[str]) -> Callable[[pa.Table], None]:
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


def _duckdb_writer(connection: sa.Connection, table: sa.Table, keys: Sequence[str]) -> Callable[[pa.Table], None]:
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
        try:
            connection.exec_driver_sql(sql)
        finally:
            driver.unregister("batch_assets_rows")

    return put


def _type(field: pa.Field) -> sa.types.TypeEngine[Any]:
    """The database's type for a column; what has none of its own becomes text holding JSON."""
    type_ = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    if pa.types.is_boolean(type_):
        return sa.Boolean()
    if pa.types.is_integer(type_):
        return sa.BigInteger()
    if pa.types.is_floating(type_):
        return sa.Double()
    if pa.types.is_decimal(type_):
        return sa.Numeric(type_.precision, type_.scale)
    if pa.types.is_date(type_):
        return sa.Date()
    if pa.types.is_time(type_):
        return sa.Time()
    if pa.types.is_timestamp(type_):
        return sa.DateTime(timezone=type_.tz is not None)
    if pa.types.is_binary(type_) or pa.types.is_large_binary(type_):
        return sa.LargeBinary()
    return sa.Text()


def _plain(rows: pa.Table) -> pa.Table:
    """Rows whose values every driver takes: no dictionaries, and JSON for what is nested."""
    for position, field in enumerate(rows.schema):
        column = rows.column(position)
        if pa.types.is_dictionary(field.type):
            column = column.cast(field.type.value_type)
        elif pa.types.is_nested(field.type):
            texts = [
                None if value is None else orjson.dumps(value, default=str).decode()
                for value in column.to_pylist()
            ]
            column = pa.chunked_array([pa.array(texts, pa.string())])
        else:
            continue
        rows = rows.set_column(position, field.name, column)
    return rows
