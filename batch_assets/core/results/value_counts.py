"""Count the answers by the value of each enum and boolean column, slice by slice while the table is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from batch_assets.core.io.json_text import dump

ValueCounts = dict[str, dict[str, int]]
"""Rows by value, by column. A value is a text, as JSON prints it."""
_ALL_NAMED = 12


def no_values(classes: Mapping[str, Sequence[Any]]) -> ValueCounts:
    """Return counts of 0: of every value, unless there are many of them.

    Args:
        classes: The columns, see `Answers`.
    """
    return {
        name: {value_text(value): 0 for value in values} if len(values) <= _ALL_NAMED else {}
        for name, values in classes.items()
    }


def add_values(counted: ValueCounts, table: pa.Table) -> None:
    """Count the values of some rows. Null counts as no value.

    Args:
        counted: The counts. Changed in place.
        table: The rows.
    """
    for name, by_value in counted.items():
        for entry in table[name].value_counts().to_pylist():
            if entry["values"] is not None:
                text = value_text(entry["values"])
                by_value[text] = by_value.get(text, 0) + entry["counts"]


def value_text(value: Any) -> str:
    """Return a value of an enum or a boolean as text."""
    return value if isinstance(value, str) else dump(value)
