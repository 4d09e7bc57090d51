"""The columns of results tables in DuckDB, whatever users name them."""

from __future__ import annotations

import glob
import re
from collections.abc import Sequence
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from batch_assets.core.answers.answers import REFUSED, TRUNCATED
from batch_assets.core.answers.result_columns import ColumnGroups
from batch_assets.core.answers.result_types import ResultType
from batch_assets.core.errors import ErrorType
from batch_assets.core.store.key_texts import meant_by

TEXT = "VARCHAR"
"""The type of texts in DuckDB."""
ONLY_FILES = "hive_partitioning = false"
"""The option that takes columns from files only: a folder above the root may have a name like `a=b`, too."""
_FLOAT = "FLOAT"
_NUMBER = re.compile(r"_\d+$")


@dataclass(frozen=True)
class Columns:
    """The columns of a pipeline's tables.

    Users name columns as they like, and DuckDB renames those whose names differ in case only. So questions name
    none of them: the view `results` calls them `c0`, `c1` and so on. Its other columns are `partition` and
    `position`.

    Attributes:
        names: The names in the files, in order.
        types: Their types in DuckDB.
        groups: The columns by where they come from.
    """

    names: list[str]
    types: list[str]
    groups: ColumnGroups

    def of(self, name: str) -> str:
        """The name of a column in the view."""
        return numbered(self.names.index(name))

    def value(self, name: str) -> str:
        """The values of a column for people, in SQL. Of a number of 4 bytes, no digits that are not its own."""
        column = self.of(name)
        is_short = self.types[self.names.index(name)] == _FLOAT
        return f"CAST(CAST({column} AS VARCHAR) AS DOUBLE)" if is_short else column

    @property
    def key(self) -> str:
        """The row key as text, in SQL."""
        return f"CAST({self.of(self.groups.key)} AS VARCHAR)"

    @property
    def is_unusable(self) -> str:
        """Whether a row has an answer that cannot be used, in SQL: what `ok_rows` says of it."""
        stopped = ", ".join(map(literal, (REFUSED, *TRUNCATED)))
        reasons = [
            f"{self.of('error_type')} = {literal(ErrorType.INVALID_OUTPUT)}",
            f"{self.of('stop_reason')} IN ({stopped})",
        ]
        if "is_ok" in self.groups.ours:  # tables of earlier versions have none
            reasons.append(f"NOT {self.of('is_ok')}")
        is_one = " OR ".join(f"coalesce({reason}, false)" for reason in reasons)
        return f"({self.of('result_type')} = {literal(ResultType.SUCCEEDED)} AND ({is_one}))"

    @property
    def typed(self) -> dict[str, str]:
        """The types of the typed columns."""
        return {name: self.types[self.names.index(name)] for name in self.groups.typed}

    @property
    def searched(self) -> list[str]:
        """The columns of the view with text of people: carried ones, and the answer."""
        texts = [name for name in self.groups.carried if self.types[self.names.index(name)] == TEXT]
        return [self.of(name) for name in (*texts, "response_text")]


def key_meant_by(db: duckdb.DuckDBPyConnection, columns: Columns, text: str) -> str | None:
    """Return a row key as the view prints it, by any text that names it; `None` if it is no key of this type.

    Args:
        db: A database with the view `results`.
        columns: The columns of the view.
        text: What a user wrote.
    """
    schema = db.sql(f"SELECT {columns.of(columns.groups.key)} AS key FROM results LIMIT 0").to_arrow_table().schema
    try:
        meant = meant_by(text, schema.field("key").type)
    except pa.ArrowNotImplementedError:
        return None
    if meant is None:
        return None
    keys = db.from_arrow(pa.table({"key": meant}))
    ((printed,),) = keys.project("CAST(key AS VARCHAR)").fetchall()
    return str(printed)


def names_in_files(db: duckdb.DuckDBPyConnection, pattern: str, names: Sequence[str]) -> list[str]:
    """Return names of columns as the files have them: DuckDB numbers those that differ in case only.

    Args:
        db: A database.
        pattern: The pattern of the files, as a literal.
        names: The names in DuckDB.
    """
    if not any(_NUMBER.search(name) for name in names):
        return list(names)
    ((last,),) = db.execute(f"SELECT max(file) FROM glob({pattern})").fetchall()
    file = literal(glob.escape(last))
    schema = db.execute(f"SELECT name, coalesce(num_children, 0) FROM parquet_schema({file})").fetchall()
    stored, inner = [], 0
    for name, children in schema[1:]:  # the first is the root; children follow their parent
        if not inner:
            stored.append(name)
        inner += children - bool(inner)
    given = dict(zip(db.sql(f"SELECT * FROM read_parquet({file}, {ONLY_FILES})").columns, stored, strict=True))
    found = [given.get(name, name) for name in names]
    return found if len(set(found)) == len(found) else list(names)


def numbered(position: int) -> str:
    """Return the name of a column in the view, by its position in the files."""
    return f"c{position}"


def literal(text: str) -> str:
    """Return a text as SQL has it."""
    return "'" + text.replace("'", "''") + "'"
