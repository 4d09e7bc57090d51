"""Databases that a pipeline names by a SQLAlchemy URL, and texts about them that hide secrets."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import quote, quote_plus

import sqlalchemy as sa

from batch_assets.core.urls import SECRET_NAME, hidden

EXAMPLE = "postgresql+psycopg2://user:password@host/name"
MYSQL = ("mysql", "mariadb")
_MAX_TEXT = 500
# Databases that are a single file.
_FILES = ("sqlite", "duckdb")
# The package that installs the driver, by the first part of the URL.
_PACKAGES = {
    "bigquery": "sqlalchemy-bigquery",
    "duckdb": "'batch-assets[duckdb]'",
    "mariadb": "'batch-assets[mysql]'",
    "mssql": "pyodbc",
    "mysql": "'batch-assets[mysql]'",
    "postgresql": "'batch-assets[postgres]'",
    "redshift": "sqlalchemy-redshift",
    "snowflake": "snowflake-sqlalchemy",
}
# A part of a parameter that is a connection string itself, such as odbc_connect.
_SECRET_PART = re.compile(rf"\w*(?:{SECRET_NAME.pattern})\w*\s*=\s*(?P<value>[^;&\s]+)", re.IGNORECASE)


def parse_url(text: str) -> sa.URL:
    """Parse a SQLAlchemy URL.

    Raises:
        ValueError: When the text is not a URL, or an unescaped @ splits it in the wrong position. The message
            shows no part of the text. It completes the sentence "The environment variable holds …".
    """
    try:
        url = sa.make_url(text)
    except (sa.exc.ArgumentError, ValueError):  # ValueError for an invalid port
        raise ValueError(f"no SQLAlchemy URL, such as {EXAMPLE}") from None
    if url.host and "@" in url.host + (url.database or ""):  # part of the password, which errors would show
        raise ValueError("a URL with an @ in its user, password or database: write it as %40 there")
    return url


def as_text(url: sa.URL) -> str:
    """Format the URL without its password and its parameters, which may hold another secret."""
    return url.set(query={}).render_as_string(hide_password=True)


def as_text_with_parameters(url: sa.URL) -> str:
    """Format the URL without its password. Parameters, which may select a schema, are shown if none is secret."""
    return as_text(url) if holds_secret(url.set(password=None)) else url.render_as_string(hide_password=True)


def holds_secret(url: sa.URL) -> bool:
    """Whether the URL has a password or a parameter that looks like one."""
    parameters = [(name, value) for name, values in url.normalized_query.items() for value in values]
    return url.password is not None or any(
        SECRET_NAME.search(name) or _SECRET_PART.search(value) for name, value in parameters
    )


def file_of(url: sa.URL) -> str | None:
    """Return the path of the database file as the URL names it.

    Returns:
        The path, or `None` for a server, a database in memory, or a file that only the driver can locate.
    """
    if url.get_backend_name() not in _FILES or not url.database:
        return None
    if url.database.startswith(":") or re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", url.database):
        return None  # :memory:, MotherDuck's md:name, SQLite's file:name?mode=ro
    return url.database


def in_project(url: sa.URL, project: Path) -> sa.URL:
    """Resolve a relative database file against the project folder instead of the current folder."""
    file = file_of(url)
    return url if file is None else url.set(database=str(project / file))


def with_every_character(url: sa.URL) -> sa.URL:
    """Let a connection to MySQL transfer every character, whatever `charset` the URL has.

    With `charset=utf8` or `latin1` the server replaces characters by `?`, without an error.
    """
    if url.get_backend_name() in MYSQL and url.get_driver_name() in ("pymysql", "mysqldb"):
        return url.update_query_dict({"charset": "utf8mb4"})
    return url


def driver_hint(url: sa.URL) -> str:
    """Say what to install when the driver of a URL is missing."""
    name = url.get_backend_name()
    if name in MYSQL and url.drivername != f"{name}+pymysql":
        return f"begin the URL with {name}+pymysql://, and pip install {_PACKAGES[name]}"
    return f"pip install {_PACKAGES[name]}" if name in _PACKAGES else "install the package that brings one"


def error_text(error: BaseException, url: sa.URL, *, lines: int | None = None) -> str:
    """Return the text of a database error without the secrets of the URL.

    The driver's text is preferred to SQLAlchemy's, which contains the statement.

    Args:
        error: The error, raised by SQLAlchemy or by the driver.
        url: The URL of the database. Its password and the values of its parameters are replaced by `***`.
        lines: Use only this many lines from the start, because later ones may show values of rows; `None` for all.
    """
    original = getattr(error, "orig", None) or error
    match original.args:
        case (int() as code, str() as problem) if not isinstance(original, OSError):  # the drivers of MySQL
            all_lines = f"{problem.strip()} (error {code})".splitlines()
        case _:
            all_lines = str(original).strip().splitlines()
    text = " ".join(" ".join(all_lines[:lines]).split()) or type(error).__name__
    values = [value for values in url.normalized_query.values() for value in values]
    parts = [match["value"] for value in values for match in _SECRET_PART.finditer(value)]
    secrets = [url.password, *values, *parts]
    forms = (
        form
        for secret in map(str, filter(None, secrets))
        for form in (secret, quote(secret), quote(secret, safe=""), quote_plus(secret))
    )
    text = hidden(text, forms)
    return text if len(text) <= _MAX_TEXT else text[:_MAX_TEXT] + "…"
