"""Databases that a pipeline names by a SQLAlchemy URL: finding them, and errors that give no secret away."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import quote, quote_plus

import sqlalchemy as sa

EXAMPLE = "postgresql+psycopg2://user:password@host/name"
_SHOWN = 500
# Databases that are a file.
_FILES = ("sqlite", "duckdb")
# What brings the driver, by the first part of a URL.
_PACKAGES = {
    "bigquery": "sqlalchemy-bigquery",
    "duckdb": "'batch-assets[duckdb]'",
    "mssql": "pyodbc",
    "mysql": "pymysql",
    "postgresql": "'batch-assets[postgres]'",
    "redshift": "sqlalchemy-redshift",
    "snowflake": "snowflake-sqlalchemy",
}
_SECRET = re.compile(r"pass|pwd|secret|token|credential|(api|access|private|account)_?key", re.IGNORECASE)


def parse_url(text: str) -> sa.URL:
    """The URL in its parts.

    Errors:
        ValueError: it is none, or not as it was meant; the text holds nothing of it.
    """
    try:
        url = sa.make_url(text)
    except (sa.exc.ArgumentError, ValueError):  # the latter for a port that is none
        raise ValueError(f"no SQLAlchemy URL, such as {EXAMPLE}") from None
    if url.host and "@" in url.host + (url.database or ""):  # a piece of the password, which errors would show
        raise ValueError("a URL with an @ in its user, password or database: write it as %40 there")
    return url


def in_words(url: sa.URL) -> str:
    """The URL without what may be secret: its password, and its parameters, which may hold another."""
    return url.set(query={}).render_as_string(hide_password=True)


def holds_secret(url: sa.URL) -> bool:
    """Whether the URL has a password, or a parameter that looks like one."""
    values = [(name, value) for name, given in url.normalized_query.items() for value in given]
    return url.password is not None or any(
        _SECRET.search(name) or re.search(rf"({_SECRET.pattern})\w*\s*=", value, re.IGNORECASE)
        for name, value in values
    )


def file_of(url: sa.URL) -> str | None:
    """The file that the database is, as the URL names it; None for a server, one in memory, or one elsewhere."""
    if url.get_backend_name() not in _FILES or not url.database:
        return None
    if url.database.startswith(":") or re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", url.database):
        return None  # :memory:, md:name of MotherDuck, file:name?mode=ro of SQLite
    return url.database


def in_project(url: sa.URL, project: Path) -> sa.URL:
    """The URL with a relative file as one of the project: not where the process happens to be."""
    file = file_of(url)
    return url if file is None else url.set(database=str(project / file))


def driver_hint(url: sa.URL) -> str:
    """What to install for a URL whose driver is not here."""
    name = url.get_backend_name()
    return f"pip install {_PACKAGES[name]}" if name in _PACKAGES else "install the package that brings one"


def said(error: BaseException, url: sa.URL, *, lines: int | None = None) -> str:
    """What the database says, without what may be secret in its URL.

    SQLAlchemy's own text is left out where there is one of the driver: it holds the statement.

    Args:
        lines: only so many of the first; a driver's later ones may show values of rows.
    """
    whole = str(getattr(error, "orig", None) or error).strip().splitlines()
    text = " ".join(" ".join(whole[:lines]).split()) or type(error).__name__
    secrets = [url.password, *(value for values in url.normalized_query.values() for value in values)]
    for secret in sorted({str(secret) for secret in secrets if secret}, key=len, reverse=True):
        for form in (secret, quote(secret), quote(secret, safe=""), quote_plus(secret)):
            text = text.replace(form, "***")
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
