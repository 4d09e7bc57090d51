"""A ledger in a file of SQLite: to read and write, or only to read what another user writes."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine

from batch_assets.core.errors import LedgerUnavailableError, SettingsError
from batch_assets.core.io.file_errors import writing
from batch_assets.core.io.permissions import create_file, make_folders
from batch_assets.core.remedies import GiveLedgerUrl

BUSY_SECONDS = 30.0
"""How long a transaction waits for another process that writes."""
MORE_CONNECTIONS = 40
"""Every transfer and the thread that renews its lease may need a connection at the same time."""
_BUSY_PAUSE_SECONDS = 0.02
_touching = threading.Lock()


def open_sqlite(url: sa.URL, shared: bool) -> Engine:
    """Return the engine of a ledger. It creates the file, unless it is there and may only be read.

    Args:
        url: The URL.
        shared: The group can read and write a new file, not only its owner.

    Raises:
        SettingsError: When there is a folder in its place.
        StorageError: When the file cannot be created.
    """
    path = Path(url.database or "")
    if path.is_dir():
        raise SettingsError(
            f"the URL of the ledger names the folder {path}: give the path of a file in it",
            remedy=GiveLedgerUrl(),
        )
    if is_read_only(url):
        return _open_read_only(url, path)
    with writing(path):
        make_folders(path.parent, shared=shared)
        _touch(path, shared)
    options = {"timeout": BUSY_SECONDS, "check_same_thread": False}
    engine = sa.create_engine(url, connect_args=options, max_overflow=MORE_CONNECTIONS)

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the listener below begins transactions
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout={int(BUSY_SECONDS * 1000)}")
        _use_wal(cursor)
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        write = connection.get_execution_options().get("ledger_write", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine


def is_read_only(url: sa.URL) -> bool:
    """Whether a ledger is a file that this process may not write, or could not write the files beside it of.

    Args:
        url: The URL.
    """
    if url.get_backend_name() != "sqlite":
        return False
    path = Path(url.database or "")
    return path.is_file() and not (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK))


def _open_read_only(url: sa.URL, path: Path) -> Engine:
    """Return the engine of a ledger that is only read.

    Each transaction has its own connection, because how it has to be opened changes when a writer comes or goes.
    """

    def connect() -> sqlite3.Connection:
        # SQLite needs the files beside it, or it may take the file as it is: it is complete without a -wal.
        how = "mode=ro" if _wal(path).exists() else "mode=ro&immutable=1"
        opened = sqlite3.connect(
            f"file:{quote(str(path.absolute()))}?{how}",
            uri=True,
            timeout=BUSY_SECONDS,
            check_same_thread=False,
            isolation_level=None,
        )
        opened.execute("PRAGMA query_only=ON")
        return opened

    engine = sa.create_engine(url, creator=connect, poolclass=sa.pool.NullPool)

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN")

    return engine


@contextmanager
def unchanged(url: sa.URL) -> Iterator[None]:
    """Raise if a ledger that is only read, and has no -wal to keep it as it was, was written by another process.

    Args:
        url: The URL.

    Raises:
        LedgerUnavailableError: When what was read may not fit together.
    """
    path = Path(url.database or "")
    if _wal(path).exists():
        yield
        return
    before = _version(path)
    try:
        yield
    finally:
        if _wal(path).exists() or _version(path) != before:
            raise LedgerUnavailableError(f"the ledger {path} was being written while it was read: look again")


def _wal(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def _version(path: Path) -> tuple[int, int, int]:
    state = path.stat()
    return state.st_ino, state.st_mtime_ns, state.st_size


def _touch(path: Path, shared: bool) -> None:
    """Create the file if it does not exist. SQLite gives its permissions to the files -wal and -shm.

    An existing ledger is not opened: closing it would drop the locks that SQLite holds on it for another thread
    (sqlite.org/howtocorrupt.html, section 2.2).
    """
    with _touching:
        if not path.exists():
            with suppress(FileExistsError):  # another process was faster
                create_file(path, private=True, shared=shared)


def _use_wal(cursor: sqlite3.Cursor) -> None:
    """Set the journal mode, which the file keeps.

    SQLite ignores the busy timeout here and does not wait for other connections: without this loop, processes that
    open a new ledger at the same time would fail.
    """
    end = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                raise
        time.sleep(_BUSY_PAUSE_SECONDS)
