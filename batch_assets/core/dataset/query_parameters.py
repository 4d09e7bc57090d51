"""Bind a partition to a query: `:partition`, `:partition_start` and `:partition_end` become bound parameters."""

from __future__ import annotations

import re
from datetime import datetime

import sqlalchemy as sa

from batch_assets.core.pipeline.partitions import Partitions
from batch_assets.core.pipeline.query_parameters import PARAMETERS, QUERY_TOKENS, parameters_in


def with_partition(query: str, partitions: Partitions, key: str, database: str) -> sa.TextClause:
    """Return the query with a partition's values bound to its parameters.

    SQLite has no time types and compares text, so its bounds are text such as `2026-01-31` or
    `2026-01-31 13:00:00`. PostgreSQL gets text with the UTC offset, which it converts to the type of the other
    operand. Other databases get timestamps. A bound without an offset is wall clock time in the partitions'
    time zone.

    Args:
        query: The SQL text.
        partitions: The partitions of the pipeline.
        key: The partition key.
        database: SQLAlchemy's name of the database.

    Raises:
        ValueError: When there is no partition with that key.
    """
    names = sorted(parameters_in(query))
    values: dict[str, object] = {"partition": key}
    if partitions.is_time:
        window = partitions.window(key)
        values["partition_start"] = _bound(window.start, database)
        values["partition_end"] = _bound(window.end, database)
    # Text is bound without a type, because some drivers would cast it to VARCHAR.
    bound = [
        sa.bindparam(name, values[name], type_=sa.types.NullType() if isinstance(values[name], str) else None)
        for name in names
    ]
    return sa.text(QUERY_TOKENS.sub(_escaped, query)).bindparams(*bound)


def _escaped(match: re.Match[str]) -> str:
    """A token of the query, escaped for SQLAlchemy, which treats every `:name` as a parameter."""
    if match["name"] not in PARAMETERS:
        return match[0].replace(":", "\\:")
    # In parentheses because SQLAlchemy does not recognize a parameter before a `::` cast.
    return f"({match[0]})" if match.string.startswith(":", match.end()) else match[0]


def _bound(moment: datetime, database: str) -> object:
    if database == "postgresql":
        return moment.isoformat(" ")
    wall = moment.replace(tzinfo=None)
    if database == "sqlite":
        return wall.isoformat(" ").removesuffix(" 00:00:00")
    return wall
