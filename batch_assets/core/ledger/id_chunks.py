"""Ids for SQL statements, which take a limited number of values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

# Ids in one statement. SQLite limits the number of values, old versions to 999.
_AT_ONCE = 500


def id_chunks(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    """Yield the ids in order, at most as many at a time as one statement takes; nothing for no ids."""
    for start in range(0, len(ids), _AT_ONCE):
        yield ids[start : start + _AT_ONCE]
