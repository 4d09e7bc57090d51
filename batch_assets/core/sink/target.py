"""The database and table that a pipeline's sink names: transactions on it, and readable errors."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from batch_assets.core.errors import BatchAssetsError, SinkError
from batch_assets.core.io.database import (
    MYSQL,
    driver_hint,
    error_text,
    file_of,
    in_project,
    parse_url,
    with_every_character,
)
from batch_assets.core.pipeline.blocks import SinkConfig
from batch_assets.core.pipeline.pipeline import Pipeline

ANOTHER_TABLE = "name a new table in sink.table, which is then created with the right columns"
# What the user can do, by the text of the driver's error.
_REMEDIES = [
    (
        r"ON CONFLICT|conflict target|no unique key",
        "give the table a primary key of exactly {keys}, or " + ANOTHER_TABLE,
    ),
    (
        r"permission denied|read-?only|not authorized|command denied|access denied .* to database",
        "give the user of the URL the permission to create and write the table",
    ),
    (r"could not set lock|database is locked", "close the database file in the other program that has it open"),
    (
        r"lost connection|gone away|closed the connection|terminating connection",
        "check that the database runs, and write the results again",
    ),
    (r"lock wait timeout|deadlock", "end the other transaction that has the table locked, or write again later"),
    (
        r"data too long",
        "give the column a type for longer values. In MySQL a key has at most 768 characters, or 512 next to a "
        "partition",
    ),
    (r"has no transactions", "convert the table: ALTER TABLE … ENGINE = InnoDB"),
    (r"max_allowed_packet", "raise max_allowed_packet of the server: a row is larger"),
    (r"schema .*(does not exist|not exist|not found)|unknown database", "create the schema first: CREATE SCHEMA"),
]

# MySQL shows values in some of its errors.
_VALUES = re.compile(r"(Duplicate entry|value:?) '.*?' for (?=key|column)", re.DOTALL)


class Target:
    """The database and table of a pipeline's sink.

    Args:
        pipeline: The pipeline.
        sink: The `sink` of its pipeline file.

    Attributes:
        field: The field of the pipeline file, for errors.
        name: The name of the table, with its schema if it has one.
        schema: The schema; `None` if the name has none.
        short: The name of the table without the schema.
        url: The URL of the database.

    Raises:
        SinkError: When the environment variable of the URL is not set or does not hold a URL.
    """

    def __init__(self, pipeline: Pipeline, sink: SinkConfig) -> None:
        self.field = f"{pipeline.source}: sink"
        self.name = sink.table or pipeline.name
        schema, _, self.short = self.name.rpartition(".")
        self.schema = schema or None
        text = sink.url or os.environ.get(sink.url_env or "")
        if not text:
            raise SinkError(f"{self.field}.url_env: the environment variable {sink.url_env} is not set")
        try:
            self.url = in_project(parse_url(text), pipeline.project)
        except ValueError as error:
            raise SinkError(f"{self.field}: the environment variable {sink.url_env} holds {error}") from None

    @property
    def is_file(self) -> bool:
        """Whether the database is a local file. DuckDB lets only one process open such a file."""
        return file_of(self.url) is not None

    @property
    def nothing(self) -> str:
        """What a refused write changed, for errors. MySQL commits a new table or column at once."""
        return "No row" if self.url.get_backend_name() in MYSQL else "Nothing"

    @property
    def lease(self) -> str:
        """The name of the lease for writing. A database file has one writer, a server has one for each table."""
        url = self.url
        file = file_of(url)
        if file is not None:
            return f"sink:{Path(file).name}:{_digest(os.path.realpath(file))}"
        return f"sink:{self.name}:{_digest(url.get_backend_name(), url.host, url.port, url.database, self.name)}"

    @contextmanager
    def transaction(self) -> Iterator[sa.Connection]:
        """Open a connection with a transaction, committed at the end of the block and rolled back if it raises.

        Raises:
            SinkError: When the database cannot be reached, or refuses the commit.
        """
        engine = self._engine()
        try:
            connection = engine.connect()
        except Exception as error:
            raise self._unreachable(error) from None
        try:
            try:
                transaction = connection.begin()
            except Exception as error:
                raise self._unreachable(error) from None
            try:
                yield connection
            except BaseException:
                with contextlib.suppress(Exception):  # a lost connection: the error of the block says why
                    transaction.rollback()
                raise
            with self.explained():
                transaction.commit()
        finally:
            with contextlib.suppress(Exception):
                connection.close()

    @contextmanager
    def explained(self, keys: str = "the row key") -> Iterator[None]:
        """Turn any exception of the driver into a SinkError that shows neither the URL nor values.

        Args:
            keys: The names of the columns that identify a row, for the text.

        Raises:
            SinkError: In place of any exception that this project did not raise itself.
        """
        try:
            yield
        except BatchAssetsError:
            raise
        except Exception as error:  # drivers also raise ValueError, OverflowError and their own classes
            text = error_text(error, self.url, lines=1).rstrip(".")
            text = _VALUES.sub(r"\1 '…' for ", text)
            remedy = _remedy(text, ANOTHER_TABLE).format(keys=keys)
            raise SinkError(
                f"{self.field}: the database refuses the table {self.name}: {text}. {self.nothing} was changed in "
                f"it. To fix this, {remedy}"
            ) from None

    def _engine(self) -> sa.Engine:
        file = file_of(self.url)
        if file is not None and not Path(file).parent.is_dir():
            raise SinkError(f"{self.field}: there is no folder {Path(file).parent} for the database: create it")
        if self.url.get_backend_name() in MYSQL and not self.url.database:
            raise SinkError(f"{self.field}: the URL names no database: end it with /name")
        try:
            engine = sa.create_engine(with_every_character(self.url), poolclass=sa.NullPool)
        except (sa.exc.NoSuchModuleError, ImportError):
            raise SinkError(
                f"{self.field}: the driver for {self.url.drivername}:// is not installed: {driver_hint(self.url)}"
            ) from None
        except Exception as error:
            raise self._unreachable(error) from None
        if engine.dialect.name == "sqlite":
            # Its driver starts a transaction only before rows, so new tables and columns would stay after a
            # failure. https://docs.sqlalchemy.org/en/20/dialects/sqlite.html#pysqlite-serializable
            sa.event.listen(engine, "connect", _stop_implicit_transactions)
            sa.event.listen(engine, "begin", _begin)
        elif engine.dialect.name in MYSQL:
            sa.event.listen(engine, "connect", _be_strict)
        return engine

    def _unreachable(self, error: Exception) -> SinkError:
        text = error_text(error, self.url, lines=1).rstrip(".")
        remedy = _remedy(text, "check that the URL is right, and that the database runs and accepts this machine")
        return SinkError(f"{self.field}: the database cannot be reached: {text}. To fix this, {remedy}")


def _remedy(text: str, default: str) -> str:
    return next((remedy for pattern, remedy in _REMEDIES if re.search(pattern, text, re.IGNORECASE)), default)


def _stop_implicit_transactions(connection: object, _: object) -> None:
    connection.isolation_level = None  # type: ignore[attr-defined]


def _be_strict(connection: Any, _: object) -> None:
    """Let a session of MySQL refuse values that do not fit, store the key 0 as it is, and take times as UTC."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SET SESSION sql_mode = CONCAT(@@SESSION.sql_mode, ',STRICT_ALL_TABLES,NO_AUTO_VALUE_ON_ZERO'),"
            " SESSION time_zone = '+00:00'"
        )


def _begin(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _digest(*parts: object) -> str:
    return hashlib.blake2b(repr(parts).encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
