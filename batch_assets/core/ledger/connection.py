"""The ledger's database: SQLite next to the data, or PostgreSQL in production.

SQLite has one writer at a time. PostgreSQL has one for each pipeline, or one for the whole root.
"""

from __future__ import annotations

import os
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any
from zlib import crc32

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine

from batch_assets.core.errors import LedgerUnavailableError, SettingsError
from batch_assets.core.io.database import as_text
from batch_assets.core.ledger import database_errors, migrations, tables
from batch_assets.core.ledger.clock import LedgerClock
from batch_assets.core.ledger.sqlite_file import (
    BUSY_SECONDS,
    MORE_CONNECTIONS,
    is_read_only,
    open_sqlite,
    unchanged,
)
from batch_assets.core.ledger.states import EntityKind
from batch_assets.core.remedies import GiveLedgerUrl
from batch_assets.core.text import duration

# Keys of PostgreSQL's advisory locks: arbitrary numbers, the same in all processes. A pipeline's has a second one.
_TABLES_LOCK, _ROOT_LOCK, _PIPELINE_LOCKS = 7263001, 7263002, 7263003
_EXAMPLE = "sqlite:////data/ledger.db"
_DATABASES = ("sqlite", "postgresql")
# A process that is frozen in the middle of a write loses its connection before those that wait for it give up.
_IDLE_SECONDS, _LOCK_SECONDS, _STATEMENT_SECONDS = 30.0, 60.0, 120.0
_TIMEOUTS = {
    "idle_in_transaction_session_timeout": _IDLE_SECONDS,
    "lock_timeout": _LOCK_SECONDS,
    "statement_timeout": _STATEMENT_SECONDS,
}
# A dead server or network is noticed within a minute.
_LIBPQ = {
    "connect_timeout": 10,
    "keepalives": 1,
    "keepalives_idle": 20,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}
_LOCKED = ("55P03", "57014")  # lock_timeout, statement_timeout


@cache
def process_name() -> str:
    """Return host and process id, which the history records with every transition."""
    return f"{socket.gethostname()}:{os.getpid()}"


@dataclass
class Transaction:
    """An open transaction with its own current time.

    Attributes:
        connection: The SQLAlchemy connection.
        now: Seconds since 1970 by the ledger's clock, which goes on evenly when the wall clock is set.
    """

    connection: Connection
    now: float

    def execute(self, statement: Any) -> sa.CursorResult[Any]:
        return self.connection.execute(statement)

    def texts(
        self, columns: Sequence[sa.ColumnElement[str]], *conditions: sa.ColumnElement[bool]
    ) -> list[list[str]]:
        """Return the values of text columns in the rows that meet some conditions, each column in the same order.

        Each column comes as one text: as rows, thousands take several times as long.

        Args:
            columns: Columns without null and without line breaks.
            conditions: Which rows.
        """
        joined = sa.select(*(sa.func.aggregate_strings(each, "\n") for each in columns)).where(*conditions)
        return [str(text).split("\n") if text is not None else [] for text in self.execute(joined).one()]

    def record(self, kind: EntityKind, entity: str, before: str | None, after: str, reason: str) -> int:
        """Append a transition to the history and return its number."""
        values = {
            "at": self.now,
            "process": process_name(),
            "kind": kind,
            "entity": entity,
            "from_state": before,
            "to_state": after,
            "reason": reason,
        }
        inserted = self.execute(sa.insert(tables.history).values(values))
        return int(inserted.inserted_primary_key[0])  # type: ignore[index]

    def last_seq(self) -> int:
        """Return the number of the newest transition, 0 before the first."""
        return int(self.execute(sa.select(sa.func.max(tables.history.c.seq))).scalar() or 0)


class Ledger:
    """A connection pool to the ledger. Creates missing tables, and upgrades those of an earlier version.

    Args:
        url: SQLAlchemy URL: sqlite:///… or postgresql+psycopg2://….
        fill: Called if the ledger is new. Returns a function that fills it in the transaction that creates the
            tables, or `None`. A process that is killed meanwhile leaves a ledger that is still new.
        shared: The group can read and write a new SQLite file, not only its owner.

    Raises:
        DamagedFileError: When SQLite's file is not a database or is incomplete. Every transaction raises it too.
        LedgerVersionError: When a later version of this package has changed the tables.
    """

    def __init__(
        self,
        url: str,
        fill: Callable[[], Callable[[Transaction], None] | None] | None = None,
        *,
        shared: bool = False,
    ) -> None:
        self._engine = _open(url, shared)
        self._is_sqlite = self._engine.dialect.name == "sqlite"
        self._is_read_only = is_read_only(self._engine.url)
        self._clock = LedgerClock()
        try:
            with self._begin(write=False) as connection:
                version = migrations.version_of(connection)
            if version != migrations.HEAD:
                self._bring_up_to_date(fill() if fill is not None and version is None else None)
        except BaseException:
            self.close()
            raise

    @staticmethod
    def tables_version(url: str, *, shared: bool = False) -> str | None:
        """Read the version of a ledger's tables; `None` if there are none. Changes nothing. See `Ledger`."""
        engine = _open(url, shared)
        try:
            with engine.connect() as connection:
                return migrations.version_of(connection)
        except sa.exc.DBAPIError as error:
            raise database_errors.explained(error, engine.url) or error from None
        finally:
            engine.dispose()

    def has_current_tables(self) -> bool:
        """Whether the tables are still of this version. A later version may have upgraded them since."""
        with self._begin(write=False) as connection:
            return migrations.version_of(connection) == migrations.HEAD

    def _bring_up_to_date(self, fill: Callable[[Transaction], None] | None) -> None:
        with self._begin(write=True) as connection:
            if not self._is_sqlite:
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_TABLES_LOCK)))
            version = migrations.version_of(connection)  # another process may have been faster
            if version is None:
                migrations.create(connection)
                connection.execute(sa.insert(tables.endpoint).values(id=1))
                if fill is not None:
                    fill(Transaction(connection, self._clock.record(connection, self._wall(connection), "").now))
            elif version != migrations.HEAD:
                self._lock_out_writers(connection, None, endpoint=True)
                if not self._is_sqlite:  # a large ledger may need longer than any other statement
                    connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
                migrations.upgrade(connection, version)

    def close(self) -> None:
        self._engine.dispose()

    def overwrite_free_space(self) -> bool:
        """Leave nothing of what was deleted in SQLite's files. On a server, that is its administrator's work.

        Returns:
            False if another process was reading meanwhile, so that old content may be left.
        """
        if not self._is_sqlite:
            return True
        with self._explained(), self._engine.connect() as pooled:
            cursor = pooled.connection.cursor()
            cursor.execute("PRAGMA secure_delete=ON")
            cursor.execute("VACUUM")
            is_busy, *_ = cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            cursor.close()
        return not is_busy

    @property
    def is_file(self) -> bool:
        """Whether the ledger is a file, and not on a server."""
        return self._is_sqlite

    @contextmanager
    def write(self, pipeline: str | None = None, *, endpoint: bool = False) -> Iterator[Transaction]:
        """Open a transaction without a certain other writer in between: all of it happens, or nothing.

        Args:
            pipeline: The pipeline whose rows are written. Other pipelines are written at the same time, so nothing
                may be decided by their rows. `None` locks out the writers of all pipelines.
            endpoint: What is written or decided concerns the files in doubt or the batches of all pipelines. It
                locks out other writers that set this.
        """
        with self._begin(write=True) as connection:
            self._lock_out_writers(connection, pipeline, endpoint=endpoint or pipeline is None)
            reading = self._clock.record(connection, self._wall(connection), pipeline or "")
            yield Transaction(connection, reading.now)

    @contextmanager
    def read(self) -> Iterator[Transaction]:
        """Open a transaction with a consistent view."""
        with self._begin(write=False) as connection:
            yield Transaction(connection, self._clock.read(connection, self._wall(connection)).now)

    def _lock_out_writers(self, connection: Connection, pipeline: str | None, *, endpoint: bool) -> None:
        """Lock out other writers. SQLite did so when the transaction began.

        The order is always the same: the root, the pipeline, the endpoint. A writer of the whole root comes after
        the writers that hold its lock or wait for it, and before those that come later.
        """
        if self._is_sqlite:
            return
        if pipeline is None:
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_ROOT_LOCK)))
        else:
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock_shared(_ROOT_LOCK)))
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_PIPELINE_LOCKS, _lock_key(pipeline))))
        if endpoint:
            connection.execute(sa.select(tables.endpoint.c.id).with_for_update())

    def _wall(self, connection: Connection) -> float:
        """Return the wall clock of the database. For SQLite that is the clock of this machine."""
        if self._is_sqlite:
            return time.time()
        return float(connection.execute(sa.text("select extract(epoch from clock_timestamp())")).scalar_one())

    @contextmanager
    def _begin(self, write: bool) -> Iterator[Connection]:
        kept = unchanged(self._engine.url) if self._is_read_only else nullcontext()
        with kept, self._explained(), self._engine.connect() as connection:
            connection = connection.execution_options(ledger_write=write)
            if not write and not self._is_sqlite:
                connection = connection.execution_options(isolation_level="REPEATABLE READ")
            with connection.begin():
                yield connection

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Raise an error that says what to do if the database is damaged, locked, refused or out of reach."""
        url = self._engine.url
        try:
            yield
        except sa.exc.DBAPIError as error:
            is_busy = database_errors.sqlite_code_of(error) == sqlite3.SQLITE_BUSY
            if is_busy or database_errors.code_of(error) in _LOCKED:
                raise LedgerUnavailableError(
                    f"the ledger {as_text(url)} is locked: another process has been in the middle of a write for "
                    f"{duration(BUSY_SECONDS if self._is_sqlite else _LOCK_SECONDS)}. A later run continues"
                ) from None
            if database_errors.code_of(error) == database_errors.READ_ONLY:
                self._engine.dispose()  # a connection may stay read-only when the server is not any more
            if (explained := database_errors.explained(error, url)) is not None:
                raise explained from None
            raise


def _lock_key(pipeline: str) -> int:
    """Return the number of a pipeline's lock, a signed integer of 32 bits. Two pipelines may share one."""
    return crc32(pipeline.encode()) - (1 << 31)


def parse_url(url: str) -> sa.URL:
    """Parse the URL of a ledger.

    Raises:
        SettingsError: When it is not a URL, or an SQLite URL without a file. The text does not repeat the URL,
            which may contain a password.
    """
    try:
        parsed = sa.make_url(url)
    except (sa.exc.ArgumentError, ValueError):  # ValueError: an invalid port
        raise SettingsError(
            f"the URL of the ledger is not a SQLAlchemy URL, such as {_EXAMPLE}", remedy=GiveLedgerUrl()
        ) from None
    if parsed.get_backend_name() == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise SettingsError(
            f"the URL of the ledger names no file: give its path, such as {_EXAMPLE}", remedy=GiveLedgerUrl()
        )
    return parsed


def _open(url: str, shared: bool) -> Engine:
    parsed = parse_url(url)
    if parsed.get_backend_name() not in _DATABASES:
        raise SettingsError(
            f"the URL of the ledger begins with {parsed.drivername}://, but a ledger is on SQLite or PostgreSQL. "
            f"Give a URL such as {_EXAMPLE} or postgresql+psycopg2://user@host/name",
            remedy=GiveLedgerUrl(),
        )
    try:
        return _engine(parsed, shared)
    except (sa.exc.NoSuchModuleError, ImportError) as error:
        missing = f" ({error.name} is not installed)" if isinstance(error, ImportError) and error.name else ""
        raise SettingsError(
            f"the URL of the ledger begins with {parsed.drivername}://, for which there is no driver here"
            f"{missing}. Give a URL such as {_EXAMPLE} or postgresql+psycopg2://user@host/name, "
            "or install the driver",
            remedy=GiveLedgerUrl(),
        ) from None


def _engine(parsed: sa.URL, shared: bool) -> Engine:
    if parsed.get_backend_name() == "sqlite":
        return open_sqlite(parsed, shared)
    return _open_postgresql(parsed)


def _open_postgresql(url: sa.URL) -> Engine:
    """Open a ledger on PostgreSQL so that no process, frozen or cut off, holds up the others without end.

    Parameters in the URL take precedence.
    """
    libpq = {name: value for name, value in _LIBPQ.items() if name not in url.query}
    arguments = libpq if url.get_driver_name().startswith("psycopg") else {}
    engine = sa.create_engine(
        url,
        isolation_level="READ COMMITTED",
        connect_args=arguments,
        pool_pre_ping=True,
        max_overflow=MORE_CONNECTIONS,
    )

    @event.listens_for(engine, "connect")
    def _limit(connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        for name, seconds in _TIMEOUTS.items():
            if name not in str(url.query.get("options", "")):
                cursor.execute(f"SET {name} = {int(seconds * 1000)}")
        cursor.close()
        connection.commit()

    return engine
