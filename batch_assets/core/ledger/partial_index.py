"""An index of those rows of a table that meet a condition."""

from __future__ import annotations

from sqlalchemy import Index, text


def partial_index(name: str, *columns: str, where: str) -> Index:
    """Return an index of some rows. Only a statement that asks for no other rows is answered by it.

    Args:
        name: The name of the index.
        *columns: Its columns.
        where: The condition, in SQL.
    """
    condition = text(where)
    return Index(name, *columns, sqlite_where=condition, postgresql_where=condition)
