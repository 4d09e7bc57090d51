"""Ids and numbers for SQL statements, which take a limited number of values."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")

# Ids in one statement. SQLite limits the number of values: to 32,766, and versions before 3.32 to 999.
_AT_ONCE = 15_000 if sqlite3.sqlite_version_info >= (3, 32) else 500


def id_chunks(ids: Sequence[T]) -> Iterator[Sequence[T]]:
    """Yield the ids in order, at most as many at a time as one statement takes; nothing for no ids."""
    for start in range(0, len(ids), _AT_ONCE):
        yield ids[start : start + _AT_ONCE]
