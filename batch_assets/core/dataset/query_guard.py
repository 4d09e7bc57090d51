"""Make sure that a query only reads, by a mode of the database that refuses writes, and by a check of the text."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import sqlalchemy as sa

from batch_assets.core.errors import DatasetError
from batch_assets.core.io.database import MYSQL, file_of, with_every_character

_DOLLAR_QUOTES = ("postgresql", "duckdb")
_BRACKETS = ("mssql", "sqlite")
# Databases that refuse to write in a transaction or connection that only reads.
_REFUSE_WRITES = ("postgresql", "sqlite", "duckdb", *MYSQL)
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
    engine = sa.create_engine(with_every_character(url), poolclass=sa.NullPool, connect_args=options)
    if name == "sqlite":
        sa.event.listen(engine, "connect", _query_only)
    elif name == "duckdb":
        sa.event.listen(engine, "connect", _locked)
    elif name in MYSQL:
        sa.event.listen(engine, "connect", _read_only_session)
    return engine


@contextmanager
def reading(connection: sa.Connection, query: str = "") -> Iterator[None]:
    """Begin a transaction that is rolled back, and only reads if the database has such a mode.

    Args:
        connection: A connection of `reading_engine`.
        query: The text of the query, which is checked again if the server reads quotes in another way than usual.

    Raises:
        DatasetError: When the query is not one statement that reads.
    """
    transaction = connection.begin()
    try:
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql("SET TRANSACTION READ ONLY")
        elif connection.dialect.name in MYSQL and "\\" in query:
            modes = connection.exec_driver_sql("SELECT @@SESSION.sql_mode").scalar_one()
            check_reads(query, connection.dialect.name, modes.split(","))
        yield
    except BaseException:
        if connection.dialect.driver == "pymysql":
            _abandon(connection)
        raise
    finally:
        with suppress(Exception):  # a lost connection: the error of the block says why
            transaction.rollback()


def _abandon(connection: sa.Connection) -> None:
    """Close a connection at once. PyMySQL would read all rows that are left first, which may take hours."""
    with suppress(Exception):
        result = getattr(connection.connection.driver_connection, "_result", None)
        if result is not None:
            result.unbuffered_active = False
        connection.invalidate()


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
        # The server cuts what group_concat returns, after 1,024 bytes by default, without an error.
        cursor.execute("SET SESSION group_concat_max_len = 4294967295")


def check_reads(query: str, database: str, modes: Collection[str] = ()) -> None:
    """Check that a query is one statement that reads.

    It is a second line of defense where the database refuses to write: some statements write files, or turn that
    mode off.

    Args:
        query: The text of the query.
        database: SQLAlchemy's name of the database.
        modes: The `sql_mode` of MySQL, which decides where a backslash escapes a quote.

    Raises:
        DatasetError: When it is not one, or when that is uncertain.
    """
    code = _code(query, database, modes).strip().rstrip(";").rstrip()
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


def _code(query: str, database: str, modes: Collection[str]) -> str:
    """Return a query in lower case, without comments and with `''` for each literal and quoted name."""
    if database in MYSQL and re.search(r"/\*M?!", query):
        raise DatasetError("the query has /*!, a comment that the database executes: write it without")
    if database not in (*_STANDARD_QUOTES, *MYSQL) and (match := re.search(r"\\['\"`]|\$\$", query)) is not None:
        raise DatasetError(f"the query has {match[0]}, which databases read differently: write '' for a quote")
    return _tokens(database, modes).sub(_blank, query).lower()


def _tokens(database: str, modes: Collection[str] = ()) -> re.Pattern[str]:
    """Make the pattern of what is not code, with the quotes of a database."""
    is_mysql = database in MYSQL
    escapes = is_mysql and "NO_BACKSLASH_ESCAPES" not in modes
    text = r"'(?:[^'\\]|\\.|'')*'" if escapes else r"'[^']*'"
    name = r"\"(?:[^\"\\]|\\.|\"\")*\"" if escapes and "ANSI_QUOTES" not in modes else r"\"[^\"]*\""
    kinds = [
        r"(?P<comment>--(?=[\x00-\x20\x7f]|$)[^\n]*)" if is_mysql else r"(?P<comment>--[^\n]*)",
        r"(?P<block>/\*.*?\*/)",
        r"(?P<text>" + text + ")",
        r"(?P<name>" + name + r"|`[^`]*`)",
    ]
    if is_mysql:
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
