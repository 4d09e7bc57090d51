"""Which columns of results are read, from tables of any version."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from batch_assets.core.answers.ok_rows import ok_rows
from batch_assets.core.answers.result_columns import PARTITION, TOOL_CALLS, ColumnGroups, given_way

_OK = "is_ok"
_OK_FROM = ("result_type", "error_type", "stop_reason")


class WantedColumns:
    """The columns that a reader asks for.

    Args:
        columns: `lean`, `all`, or the names of some; see `read_results`.
    """

    def __init__(self, columns: str | Sequence[str]) -> None:
        if isinstance(columns, str) and columns not in ("lean", "all"):
            columns = [columns]
        self._columns = columns

    @property
    def named(self) -> list[str]:
        """The names that the reader gave; empty for `lean` and `all`."""
        return [] if isinstance(self._columns, str) else list(self._columns)

    @property
    def is_none(self) -> bool:
        """Whether the reader named no column."""
        return len(self._columns) == 0

    @property
    def has_partition(self) -> bool:
        """Whether the column `partition` is wanted, of a pipeline with partitions."""
        return not self.named or PARTITION in self.named

    def of(self, schema: pa.Schema) -> ColumnsToRead:
        """Return which columns to read of a table with this schema.

        Raises:
            ValueError: When the table is not one of results.
        """
        groups = ColumnGroups.of(schema)
        names = list(schema.names)
        makes_ok = _OK not in names and not given_way([groups.key, *groups.carried, *groups.typed]) & {_OK}
        if makes_ok:
            names.insert(names.index("result_type") + 1, _OK)
        if self.named:
            wanted = [name for name in dict.fromkeys(self.named) if name in names]
        elif self._columns == "all":
            wanted = names
        else:
            wanted = _lean(groups, names)
        makes_ok = makes_ok and _OK in wanted
        needed = [*(name for name in wanted if name in schema.names), *(_OK_FROM if makes_ok else ())]
        return ColumnsToRead(list(dict.fromkeys(needed)), wanted, makes_ok)


@dataclass(frozen=True)
class ColumnsToRead:
    """The columns to read of one table.

    Attributes:
        stored: The columns of the file.
        wanted: The columns to return, in order.
        makes_ok: Whether the table is of a version without `is_ok`, so that it is made from the others.
    """

    stored: list[str]
    wanted: list[str]
    makes_ok: bool

    def select(self, table: pa.Table) -> pa.Table:
        """Return the wanted columns of a table that has the stored ones."""
        if self.makes_ok:
            columns: dict[str, Any] = {name: table[name].cast(pa.string()) for name in _OK_FROM}
            table = table.append_column(_OK, ok_rows(columns))
        return table.select(self.wanted)


def _lean(groups: ColumnGroups, names: Collection[str]) -> list[str]:
    answer = groups.typed or ["response_text"]
    calls = [TOOL_CALLS.name] if TOOL_CALLS.name in groups.ours else []
    has_ok = _OK in names and _OK not in (groups.key, *groups.carried, *groups.typed)
    return [groups.key, *groups.carried, *([_OK] if has_ok else []), *answer, *calls]
