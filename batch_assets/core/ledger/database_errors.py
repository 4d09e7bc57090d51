"""Errors of the ledger's database as sentences: where it is, what is wrong, and what to do."""

from __future__ import annotations

import sqlite3

import sqlalchemy as sa

from batch_assets.core.errors import BatchAssetsError, DamagedFileError, LedgerUnavailableError, SettingsError
from batch_assets.core.io.database import as_text, error_text
from batch_assets.core.remedies import GiveLedgerUrl

_LATER = "What was not committed did not happen; a later run continues"
# The primary result codes of SQLite. They are the low byte of its extended codes.
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_NOT_WRITABLE = (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_CANTOPEN)
_NOT_THERE = ("no such table", "no such column")
_OWN_FAULT_CODES = (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_MISUSE, sqlite3.SQLITE_RANGE)
# The codes of PostgreSQL.
READ_ONLY = "25006"
_NO_PRIVILEGE = "42501"
_NO_SCHEMA = "3F000"
_NO_TABLE = ("42P01", "42703")  # a table, a column
_OF_SYNTAX = "42"  # the class of the errors of a statement
# Errors of what this package wrote, whose traceback is needed.
_OWN_FAULTS = (sa.exc.IntegrityError, sa.exc.DataError)


def code_of(error: sa.exc.DBAPIError) -> str | None:
    """Return PostgreSQL's code of an error; `None` without one."""
    return getattr(error.orig, "pgcode", None)


def sqlite_code_of(error: sa.exc.DBAPIError) -> int:
    """Return SQLite's primary code of an error; 0 without one."""
    return int(getattr(error.orig, "sqlite_errorcode", 0)) & 0xFF


def explained(error: sa.exc.DBAPIError, url: sa.URL) -> BatchAssetsError | None:
    """Return an error that says where the ledger is, what is wrong, and what to do.

    Args:
        error: The error of the database.
        url: The URL of the ledger.

    Returns:
        `None` if a statement or the values in it are wrong: that is a fault of this package.
    """
    if isinstance(error, _OWN_FAULTS):
        return None
    return _of_sqlite(error, url) if url.get_backend_name() == "sqlite" else _of_server(error, url)


def _of_sqlite(error: sa.exc.DBAPIError, url: sa.URL) -> BatchAssetsError | None:
    code = sqlite_code_of(error)
    if code in _DAMAGED or str(error.orig).startswith(_NOT_THERE):
        return DamagedFileError(
            f"the ledger {url.database} is damaged: {error.orig}. It is best to move it away "
            "together with the files next to it that end in -wal and -shm: it is then rebuilt from the "
            "files under the root, which know more than a backup. Restore a backup only if they are "
            "lost too"
        )
    if not code or code in _OWN_FAULT_CODES:
        return None
    remedy = "Is its disk full, or not mounted?"
    if code in _NOT_WRITABLE:
        remedy = "Make it and its folder writable for the user that runs this."
    return LedgerUnavailableError(f"the ledger {url.database} cannot be used: {error.orig}. {remedy} {_LATER}")


def _of_server(error: sa.exc.DBAPIError, url: sa.URL) -> BatchAssetsError | None:
    name, code = as_text(url), code_of(error)
    problem = error_text(error, url, lines=1 if code in (_NO_PRIVILEGE, _NO_SCHEMA, *_NO_TABLE) else None)
    problem = problem.rstrip(".?")
    if code == READ_ONLY:
        return LedgerUnavailableError(
            f"the ledger {name} is read-only: {problem}. After a failover the server may be the standby now: then "
            f"set the ledger to the one that accepts writes. {_LATER} as soon as it does"
        )
    if code == _NO_PRIVILEGE:
        return LedgerUnavailableError(
            f"the ledger {name} refuses its user: {problem}. Grant the user of the URL all privileges on the "
            f"ledger's schema, tables and sequences, or use the user that created them. {_LATER}"
        )
    if code in _NO_TABLE:
        return DamagedFileError(
            f"the ledger {name} is damaged: {problem}. Restore the database from a backup. If there is none, "
            "remove the ledger's other tables too: it is then rebuilt from the files under the root"
        )
    if code == _NO_SCHEMA:
        return SettingsError(
            f"the ledger {name} has no schema to create its tables in: {problem}. Create the schema that the URL "
            "selects, or give the URL of another one",
            remedy=GiveLedgerUrl(),
        )
    if code is not None and code.startswith(_OF_SYNTAX):
        return None
    if code is None and isinstance(error, sa.exc.ProgrammingError):  # before anything was connected
        return SettingsError(
            f"the URL of the ledger {name} is not one for its driver: {problem}. Correct its parameters",
            remedy=GiveLedgerUrl(),
        )
    is_out_of_reach = error.connection_invalidated or code is None
    verb = "reached" if is_out_of_reach else "used"
    return LedgerUnavailableError(f"the ledger {name} cannot be {verb}: {problem}. {_LATER}")
