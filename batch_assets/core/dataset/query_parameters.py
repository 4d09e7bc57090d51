"""The partition in a query: `:partition`, `:partition_start` and `:partition_end`, bound and never pasted in."""

from __future__ import annotations

import re
from datetime import datetime

import sqlalchemy as sa

from batch_assets.core.pipeline.partitions import Partitions
from batch_assets.core.pipeline.query_parameters import PARAMETERS, QUERY_TOKENS, parameters_in


def with_partition(query: str, partitions: Partitions, key: str, database: str) -> sa.TextClause:
    """The query with a partition's values bound to its parameters.

    SQLite has no type for time and compares text: there the bounds are `2026-01-31` or `2026-01-31 13:00:00`.
    PostgreSQL is given text with the offset, which it takes as the type that the other side has. Other
    databases get timestamps. Without an offset, a bound is by the wall clock of the partitions' timezone.

    Args:
        database: SQLAlchemy's name of it.

    Errors:
        ValueError: the key is of no partition.
    """
    names = sorted(parameters_in(query))
    values: dict[str, object] = {"partition": key}
    if partitions.is_time:
        window = partitions.window(key)
        values["partition_start"] = _bound(window.start, database)
        values["partition_end"] = _bound(window.end, database)
    # Text has no type of its own here, or some drivers would cast it to VARCHAR.
    bound = [
        sa.bindparam(name, values[name], type_=sa.types.NullType() if isinstance(values[name], str) else None)
        for name in names
    ]
    return sa.text(QUERY_TOKENS.sub(_escaped, query)).bindparams(*bound)


def _escaped(match: re.Match[str]) -> str:
    """A token for SQLAlchemy, which would take every `:name` for a parameter."""
    if match["name"] not in PARAMETERS:
        return match[0].replace(":", "\\:")
    # SQLAlchemy sees no parameter where a cast follows.
    return f"({match[0]})" if match.string.startswith(":", match.end()) else match[0]


def _bound(moment: datetime, database: str) -> object:
    if database == "postgresql":
        return moment.isoformat(" ")
    wall = moment.replace(tzinfo=None)
    if database == "sqlite":
        return wall.isoformat(" ").removesuffix(" 00:00:00")
    return wall
