"""Make sure that a query only reads, by a mode of the database that refuses writes, and by a check of the text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import sqlalchemy as sa

from batch_assets.core.errors import DatasetError
from batch_assets.core.io.database import file_of

_MYSQL = ("mysql", "mariadb")
_DOLLAR_QUOTES = ("postgresql", "duckdb")
_BRACKETS = ("mssql", "sqlite")
# Databases that refuse to write in a transaction or connection that only reads.
_REFUSE_WRITES = ("postgresql", "sqlite", "duckdb", *_MYSQL)
_FIRST_WORDS = {"select", "with", "values", "table"}
# DuckDB's other statements that only read.
_FIRST_WORDS_OF_DUCKDB = {"from", "pivot", "unpivot", "describe", "summarize", "show"}
_REMEDY = "give one statement that only reads: SELECT, or WITH and SELECT"
# A statement that changes data, at the beginning of parentheses or after the tables of a WITH.
_CHANGES = re.compile(r"[()]\s*(insert|delete|merge|update)\s+[\w'\[]")
# DuckDB's functions that may write a log to a file of any name, also within a text that another function runs.
_GAP = r"(?:\s|/\*.*?\*/|--[^\n]*)*"
_SWITCHES = re.compile(rf"\b((?:en|dis)able_(?:logging|profiling))\"?{_GAP}\(", re.IGNORECASE | re.DOTALL)
# Its functions that run a text, which may be put together: with a quoted name, and without.
_QUOTED_RUNS = re.compile(rf"\"(query|json_execute_serialized_sql)\"{_GAP}\(", re.IGNORECASE | re.DOTALL)
_RUNS = re.compile(r"\b(query|json_execute_serialized_sql)\s*\(")
# Databases with these quotes and no others. Elsewhere, a backslash may escape a quote, and $$ may be one.
_STANDARD_QUOTES = ("postgresql", "sqlite", "duckdb", "mssql", "oracle")


def reading_engine(url: sa.URL) -> sa.Engine:
    """Create an engine whose connections cannot change the database, where the database has such a mode.

    Args:
        url: The URL of the database.
    """
    name = url.get_backend_name()
    options = {"read_only": True} if name == "duckdb" and file_of(url) is not None else {}
    engine = sa.create_engine(url, poolclass=sa.NullPool, connect_args=options)
    if name == "sqlite":
        sa.event.listen(engine, "connect", _query_only)
    elif name == "duckdb":
        sa.event.listen(engine, "connect", _locked)
    elif name in _MYSQL:
        sa.event.listen(engine, "connect", _read_only_session)
    return engine


@contextmanager
def reading(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Open a connection whose transaction is rolled back, and only reads if the database has such a mode."""
    with engine.connect() as connection:
        transaction = connection.begin()
        try:
            if engine.dialect.name == "postgresql":
                connection.exec_driver_sql("SET TRANSACTION READ ONLY")
            yield connection
        finally:
            with suppress(Exception):  # a lost connection: the error of the block says why
                transaction.rollback()


def _query_only(connection: Any, _record: Any) -> None:
    connection.execute("PRAGMA query_only=ON")


def _locked(connection: Any, _record: Any) -> None:
    """Lock the configuration: a function in a SELECT could otherwise log to a file of any name."""
    cursor = connection.cursor()
    # Another connection of this process to the database may have locked it.
    cursor.execute("SELECT current_setting('lock_configuration')")
    if not cursor.fetchone()[0]:
        cursor.execute("SET lock_configuration = true")
    cursor.close()


def _read_only_session(connection: Any, _record: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET SESSION TRANSACTION READ ONLY")


def check_reads(query: str, database: str) -> None:
    """Check that a query is one statement that reads.

    It is a second line of defense where the database refuses to write: some statements write files, or turn that
    mode off.

    Args:
        query: The text of the query.
        database: SQLAlchemy's name of the database.

    Raises:
        DatasetError: When it is not one, or when that is uncertain.
    """
    code = _code(query, database).strip().rstrip(";").rstrip()
    if database == "duckdb":
        _check_functions(query, code)
    if ";" in code:
        raise DatasetError(f"the query has several statements: {_REMEDY}")
    words = re.findall(r"[a-z_]+", code)
    first = words[0] if words else "nothing"
    allowed = _FIRST_WORDS | (_FIRST_WORDS_OF_DUCKDB if database == "duckdb" else set())
    if first not in (allowed if database in _REFUSE_WRITES else {"select", "with"}):
        raise DatasetError(f"the query begins with {first.upper()}: {_REMEDY}")
    if "into" in words and database != "duckdb":  # into a table or a file
        raise DatasetError(f"the query has INTO, which writes: {_REMEDY}")
    if (change := _CHANGES.search(code)) is not None:
        raise DatasetError(f"the query has {change[1].upper()}, which changes data: {_REMEDY}")


def _check_functions(query: str, code: str) -> None:
    """Refuse functions of DuckDB that write files. Older versions allow them with a locked configuration.

    Args:
        query: The text of the query.
        code: The text without comments and literals, in lower case.
    """
    if (switch := _SWITCHES.search(query)) is not None:
        raise DatasetError(f"the query has {switch[1]}, which may write files: leave it out")
    if (runs := _QUOTED_RUNS.search(query) or _RUNS.search(code)) is not None:
        raise DatasetError(f"the query has {runs[1]}(), which runs another text: write that text as the query")


def without_end(query: str, database: str) -> str:
    """Return a query that reads without the semicolon that may end it.

    Args:
        query: See `check_reads`, which accepts it.
        database: See `check_reads`.
    """
    tokens = re.compile(f"{_tokens(database).pattern}|(?P<end>;)", re.DOTALL)
    return tokens.sub(lambda match: "" if match.lastgroup == "end" else match[0], query)


def _code(query: str, database: str) -> str:
    """Return a query in lower case, without comments and with `''` for each literal and quoted name."""
    if database in _MYSQL and re.search(r"/\*M?!", query):
        raise DatasetError("the query has /*!, a comment that the database executes: write it without")
    if database not in (*_STANDARD_QUOTES, *_MYSQL) and (match := re.search(r"\\['\"`]|\$\$", query)) is not None:
        raise DatasetError(f"the query has {match[0]}, which databases read differently: write '' for a quote")
    return _tokens(database).sub(_blank, query).lower()


def _tokens(database: str) -> re.Pattern[str]:
    """Make the pattern of what is not code, with the quotes of a database."""
    escapes = database in _MYSQL
    text = r"'(?:[^'\\]|\\.|'')*'" if escapes else r"'[^']*'"
    name = r"\"(?:[^\"\\]|\\.|\"\")*\"" if escapes else r"\"[^\"]*\""
    kinds = [
        r"(?P<comment>--(?=\s|$)[^\n]*)" if escapes else r"(?P<comment>--[^\n]*)",
        r"(?P<block>/\*.*?\*/)",
        r"(?P<text>" + text + ")",
        r"(?P<name>" + name + r"|`[^`]*`)",
    ]
    if escapes:
        kinds.append(r"(?P<hash>\#[^\n]*)")
    if database in _DOLLAR_QUOTES:
        kinds.insert(0, r"(?P<escaped>(?<![\w$])[eE]'(?:[^'\\]|\\.|'')*')")
        kinds.append(r"(?P<dollar>(?<![\w$])\$(?P<tag>\w*)\$.*?\$(?P=tag)\$)")
    if database in _BRACKETS:
        kinds.append(r"(?P<bracket>\[[^\]]*\])")
    return re.compile("|".join(kinds), re.DOTALL)


def _blank(match: re.Match[str]) -> str:
    if match.lastgroup in ("comment", "hash"):
        return " "
    if match.lastgroup == "block":
        if "/*" in match[0][2:]:
            raise DatasetError(
                "the query has a comment in a comment, which databases read differently: leave it out"
            )
        return " "
    return "''"
