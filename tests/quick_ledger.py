"""What SQLAlchemy compiles again for each ledger that is opened, although it is always the same: compiled once.

Importing this module changes this process. Nothing is left out, only remembered: a ledger compiles each of its
statements once, but a process of tests opens hundreds of ledgers. Their statements depend on the tables and on the
kind of database alone. Two engines use each other's statements if their dialects are equal.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.util import LRUCache

from batch_assets.core.ledger import connection

_STATEMENTS = 2000  # of all modules of tests; one ledger's cache holds 500
_open = connection._open


@cache
def _comparable(kind: type[sa.Dialect]) -> type[sa.Dialect]:
    """A dialect that is equal to all others of its kind."""

    class Comparable(kind):  # type: ignore[misc,valid-type]
        supports_statement_cache = True

        def __eq__(self, other: object) -> bool:
            return type(self) is type(other)

        def __hash__(self) -> int:
            return hash(type(self))

    return Comparable


@cache
def _statements(kind: type[sa.Dialect]) -> LRUCache[Any, Any]:
    return LRUCache(_STATEMENTS)


def _open_with_statements(url: str, shared: bool) -> sa.Engine:
    engine = _open(url, shared)
    kind = type(engine.dialect)
    engine.dialect.__class__ = _comparable(kind)
    engine._compiled_cache = _statements(kind)
    return engine


connection._open = _open_with_statements
