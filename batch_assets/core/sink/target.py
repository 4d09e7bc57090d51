"""The database and table that a pipeline's sink names: one transaction on it, and what its refusals mean."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

from batch_assets.core.errors import BatchAssetsError, SinkError
from batch_assets.core.io.database import driver_hint, file_of, in_project, parse_url, said
from batch_assets.core.pipeline.blocks import SinkConfig
from batch_assets.core.pipeline.pipeline import Pipeline

ANOTHER_TABLE = "name another table in sink.table, which is made as it has to be"
# What a driver says, and what helps.
_REMEDIES = [
    (
        r"ON CONFLICT|conflict target",
        "the table has no primary key of just {keys}: give it one, or " + ANOTHER_TABLE,
    ),
    (r"permission denied|read-?only|not authorized", "give the user of the URL the right to create and write it"),
    (r"could not set lock|database is locked", "another program has the file open: close it there"),
    (r"schema .*(does not exist|not exist|not found)|unknown database", "make the schema first: CREATE SCHEMA"),
]


class Target:
    """Where results go.

    Attributes:
        name: of the table, with its schema if it has one.
        where: the place in the pipeline file, for errors.

    Errors:
        SinkError: the URL's variable is not set or holds no URL.
    """

    def __init__(self, pipeline: Pipeline, sink: SinkConfig) -> None:
        self.where = f"{pipeline.source}: sink"
        self.name = sink.table or pipeline.name
        schema, _, self.short = self.name.rpartition(".")
        self.schema = schema or None
        text = sink.url or os.environ.get(sink.url_env or "")
        if not text:
            raise SinkError(f"{self.where}.url_env: the environment variable {sink.url_env} is not set")
        try:
            self.url = in_project(parse_url(text), pipeline.project)
        except ValueError as error:
            raise SinkError(f"{self.where}: the environment variable {sink.url_env} holds {error}") from None

    @property
    def is_file(self) -> bool:
        """Whether the database is a file here, which DuckDB lets one process open at a time."""
        return file_of(self.url) is not None

    @property
    def lease(self) -> str:
        """What one run at a time may hold: a database that is a file has one writer, others one for each table."""
        url = self.url
        file = file_of(url)
        if file is not None:
            return f"sink:{Path(file).name}:{_digest(os.path.realpath(file))}"
        return f"sink:{self.name}:{_digest(url.get_backend_name(), url.host, url.port, url.database, self.name)}"

    @contextmanager
    def transaction(self) -> Iterator[sa.Connection]:
        """A connection whose changes stand when the block ends, and none of them when it raises.

        Errors:
            SinkError: it cannot be reached, or refuses at the end.
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
                with contextlib.suppress(Exception):  # of a connection that is gone: what is raised says why
                    transaction.rollback()
                raise
            with self.explained():
                transaction.commit()
        finally:
            with contextlib.suppress(Exception):
                connection.close()

    @contextmanager
    def explained(self, keys: str = "the row key") -> Iterator[None]:
        """Makes a SinkError of whatever a driver raises, without the URL and the values in its texts.

        Args:
            keys: the columns that tell rows apart, for people.
        """
        try:
            yield
        except BatchAssetsError:
            raise
        except Exception as error:  # drivers raise of any kind: ValueError, OverflowError, their own
            text = said(error, self.url, lines=1).rstrip(".")
            remedy = _remedy(text, ANOTHER_TABLE).format(keys=keys)
            raise SinkError(
                f"{self.where}: the database refuses the table {self.name}: {text}. Nothing was changed in it. "
                f"To mend it: {remedy}"
            ) from None

    def _engine(self) -> sa.Engine:
        file = file_of(self.url)
        if file is not None and not Path(file).parent.is_dir():
            raise SinkError(f"{self.where}: there is no folder {Path(file).parent} for the database: make it")
        try:
            engine = sa.create_engine(self.url, poolclass=sa.NullPool)
        except (sa.exc.NoSuchModuleError, ImportError):
            raise SinkError(
                f"{self.where}: there is no driver for {self.url.drivername}:// here: {driver_hint(self.url)}"
            ) from None
        except Exception as error:
            raise self._unreachable(error) from None
        if engine.dialect.name == "sqlite":
            # Its driver begins a transaction before rows only: new tables and columns would stand after a failure.
            # https://docs.sqlalchemy.org/en/20/dialects/sqlite.html#pysqlite-serializable
            sa.event.listen(engine, "connect", _no_transactions_of_its_own)
            sa.event.listen(engine, "begin", _begin)
        return engine

    def _unreachable(self, error: Exception) -> SinkError:
        text = said(error, self.url, lines=1).rstrip(".")
        remedy = _remedy(text, "see that the URL is right and that the database runs and lets this machine in")
        return SinkError(f"{self.where}: the database cannot be reached: {text}. To mend it: {remedy}")


def _remedy(text: str, otherwise: str) -> str:
    return next((remedy for said_, remedy in _REMEDIES if re.search(said_, text, re.IGNORECASE)), otherwise)


def _no_transactions_of_its_own(connection: object, _: object) -> None:
    connection.isolation_level = None  # type: ignore[attr-defined]


def _begin(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _digest(*parts: object) -> str:
    return hashlib.blake2b(repr(parts).encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
