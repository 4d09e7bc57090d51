"""A dataset from the rows of a query, in any database that SQLAlchemy supports."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa

from batch_assets.core.dataset.carried_columns import as_carried
from batch_assets.core.dataset.column_kinds import Kinds
from batch_assets.core.dataset.duckdb_values import DuckdbValues
from batch_assets.core.dataset.misfits import row_locations, typed_rows
from batch_assets.core.dataset.mixed_columns import MixedColumn
from batch_assets.core.dataset.object_keys import ObjectKeys
from batch_assets.core.dataset.query_guard import check_reads, reading, reading_engine
from batch_assets.core.dataset.query_parameters import with_partition
from batch_assets.core.dataset.query_values import refuse_on_connect
from batch_assets.core.dataset.rows import OwnColumn, Rows, own_columns, python_values
from batch_assets.core.dataset.spool import Spool
from batch_assets.core.errors import DatasetError
from batch_assets.core.io.database import EXAMPLE, driver_hint, error_text, file_of, in_project, parse_url
from batch_assets.core.io.slices import SLICE_BYTES
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.pipeline.query_parameters import parameters_in
from batch_assets.core.remedies import NamePartition

# The size of rows is known only once they are fetched. The first fetch is small, and the next at most doubles.
_FIRST_FETCH, _ROWS_AT_ONCE = 32, 500
_BYTES_AT_ONCE = SLICE_BYTES // 2


class QueryRows:
    """`dataset: {sql: …, url_env: …}`: the rows of a query.

    The query only reads (`core/dataset/query_guard.py`). It runs once, and its rows stay on disk until the dataset
    is closed. So requests and the request index are built from the same rows. The database's lists and JSON values
    become text that holds their JSON.

    Args:
        pipeline: The pipeline.
        partition: The partition key for the query's parameters; "" without partitions.

    Raises:
        DatasetError: When the variable is not set, the driver is missing, the query does more than read, the
            database refuses it, or two columns have the same name. Never contains the URL or a part of it that may
            be secret.
    """

    field = "sql"
    columns: list[str] | None = None
    blank = False
    object_keys = ObjectKeys()  # it has none: nested values are text
    # Each value has the kind that it has by itself.
    kinds: Kinds = {}  # noqa: RUF012  never changed
    mixed_columns: list[MixedColumn] = []  # noqa: RUF012

    def __init__(self, pipeline: Pipeline, partition: str = "") -> None:
        config = pipeline.config.dataset
        self._config = config
        url = _url(config.url_env or "", pipeline.project)
        check_reads(pipeline.query, url.get_backend_name())
        self._spool = _run(_statement(pipeline, partition, url), pipeline.query, url, config.url_env or "")
        self.schema = self._spool.schema

    def rows(self, target: pa.Schema) -> Iterator[Rows]:
        """Yield the rows in the order of the query."""
        number = 0
        for batch, own, before in self._spool.batches(target.names):
            carried, carried_before = as_carried(batch, batch.schema, target, self._config.types)
            rows = typed_rows(carried, target, self._config, row_locations("the query", number))
            number += len(batch)
            rows.own = own_columns(own, own.schema, target)
            rows.carried_before = carried_before
            for name, texts in before.items():
                _add_before(rows, name, texts)
            yield rows

    def read_file(self, name: str) -> bytes:
        """Refuse: a query has no folder for files."""
        raise ValueError(
            f"{name!r}: the rows of a query cannot name files: file_base64 works with dataset.path and files"
        )

    def close(self) -> None:
        self._spool.close()


def _add_before(rows: Rows, name: str, texts: pa.Array) -> None:
    """Add to a column what templates saw until rendering 2.

    Args:
        rows: The rows.
        name: The column.
        texts: See `SpooledRows.before`.
    """
    carried = rows.table.column(name)
    if pa.types.is_string(carried.type):
        rows.carried_before[name] = OwnColumn(pc.coalesce(texts, carried), python_values)
    rows.before[name] = [
        value if text is None else text for text, value in zip(texts.to_pylist(), rows.values(name), strict=True)
    ]


def _url(variable: str, project: Path) -> sa.URL:
    text = os.environ.get(variable)
    if not text:
        raise DatasetError(
            f"the environment variable {variable} of dataset.url_env is not set: set it to the SQLAlchemy URL of "
            f"the database, such as {EXAMPLE}"
        )
    try:
        url = in_project(parse_url(text), project)
    except ValueError as error:
        raise DatasetError(f"the environment variable {variable} holds {error}") from None
    path = file_of(url)
    if path is not None and not Path(path).is_file():  # the driver would create an empty database
        raise DatasetError(f"the environment variable {variable} names a file that does not exist: {path}")
    return url


def _statement(pipeline: Pipeline, partition: str, url: sa.URL) -> str | sa.TextClause:
    """The query for the driver: unchanged if it has no partition parameters."""
    if pipeline.partitions is None or not parameters_in(pipeline.query):
        return pipeline.query
    if not partition:
        raise DatasetError("the query needs a partition", remedy=NamePartition())
    try:
        return with_partition(pipeline.query, pipeline.partitions, partition, url.get_backend_name())
    except ValueError as error:
        raise DatasetError(str(error)) from None


def _run(query: str | sa.TextClause, text: str, url: sa.URL, variable: str) -> Spool:
    try:
        engine = reading_engine(url)
    except (sa.exc.NoSuchModuleError, ImportError):
        raise DatasetError(
            f"the environment variable {variable} names a database {url.drivername}://, for which there is no "
            f"driver here: {driver_hint(url)}"
        ) from None
    except (sa.exc.SQLAlchemyError, TypeError, ValueError) as error:
        raise DatasetError(
            f"the environment variable {variable} cannot be used: {error_text(error, url)}"
        ) from None
    refuse_on_connect(engine)
    try:
        with _connected(engine, url, variable) as connection, reading(connection, text):
            return _fetched(connection, query)
    except sa.exc.SQLAlchemyError as error:
        raise DatasetError(f"the database of {variable} refused: {error_text(error, url)}") from None
    except (ValueError, OverflowError) as error:  # from the driver, for example for a date in the year 10000
        problem = f"the query returns a value that Python cannot represent: {error_text(error, url)}"
        raise DatasetError(f"{problem}; cast it to text in the query") from None
    finally:
        engine.dispose()


def _connected(engine: sa.Engine, url: sa.URL, variable: str) -> sa.Connection:
    try:
        return engine.connect()
    except sa.exc.SQLAlchemyError:
        raise
    except Exception as error:  # of the driver, for example for a parameter, a file or a package that is not there
        raise DatasetError(
            f"the environment variable {variable} cannot be used: {error_text(error, url)}"
        ) from None


def _fetched(connection: sa.Connection, query: str | sa.TextClause) -> Spool:
    streaming = connection.execution_options(stream_results=True)
    if isinstance(query, sa.TextClause):
        result = streaming.execute(query)
    else:
        result = streaming.execution_options(no_parameters=True).exec_driver_sql(query)
    if not result.returns_rows:
        raise DatasetError("the statement returns no rows: give a query")
    values = DuckdbValues(result) if connection.dialect.name == "duckdb" else None
    spool = _spooled(result, values)
    try:
        if values is not None:
            values.check(connection, query)
    except BaseException:
        spool.close()
        raise
    return spool


def _spooled(result: sa.CursorResult[Any], values: DuckdbValues | None) -> Spool:
    names = list(result.keys())
    _check_names(names)
    spool = Spool(names)
    try:
        at_once = _FIRST_FETCH
        while rows := result.fetchmany(at_once):
            if values is not None:
                values.watch(rows)
            spool.add(values.shortened(rows) if values is not None else rows)
            fitting = _BYTES_AT_ONCE * len(rows) // max(1, _size_of(rows))
            at_once = max(1, min(2 * at_once, _ROWS_AT_ONCE, fitting))
    except BaseException:
        spool.close()
        raise
    return spool


def _size_of(rows: Sequence[Sequence[Any]]) -> int:
    """Estimate the size of rows in bytes: that of their texts and bytes."""
    return sum(len(value) for row in rows for value in row if type(value) in (str, bytes))


def _check_names(names: list[str]) -> None:
    for position, name in enumerate(names, 1):
        if not name:
            raise DatasetError(f"column {position} of the query has no name: add `as name` after it")
        if names.count(name) > 1:
            raise DatasetError(
                f"the query has two columns {name!r}: give one of them another name, `as other_name`"
            )
