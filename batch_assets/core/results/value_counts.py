"""Count the answers by the value of each column of enums or booleans, slice by slice as the table is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batch_assets.core.answers.output_schema import Classes
from batch_assets.core.io.json_text import dump

_ALL_NAMED = 12


@dataclass
class ValueCount:
    """How many rows have which value of a column.

    Attributes:
        by_value: Rows by value. A value is a text, as JSON prints it.
        rows: The number of rows that have a value.
        is_list: Whether a row may have several values: then it counts for each of them, once.
    """

    by_value: dict[str, int] = field(default_factory=dict)
    rows: int = 0
    is_list: bool = False


ValueCounts = dict[str, ValueCount]
"""By column."""


def no_values(classes: Mapping[str, Classes]) -> ValueCounts:
    """Return counts of 0: of every value, unless there are many of them.

    Args:
        classes: The columns, see `Answers`.
    """
    return {
        name: ValueCount(
            {value_text(value): 0 for value in column.values} if len(column.values) <= _ALL_NAMED else {},
            is_list=column.is_list,
        )
        for name, column in classes.items()
    }


def add_values(counted: ValueCounts, table: pa.Table) -> None:
    """Count the values of some rows. Null and an empty list count as no value.

    Args:
        counted: The counts. Changed in place.
        table: The rows.
    """
    for name, column in counted.items():
        values = table[name].combine_chunks()
        if column.is_list:
            values, rows = _once_a_row(values)
        else:
            rows = len(values) - values.null_count
        column.rows += rows
        for entry in values.value_counts().to_pylist():
            if entry["values"] is not None:
                text = value_text(entry["values"])
                column.by_value[text] = column.by_value.get(text, 0) + entry["counts"]


def _once_a_row(lists: pa.ListArray) -> tuple[pa.Array, int]:
    """Return the values of lists, each once for a list, and the number of lists that have a value.

    Args:
        lists: The lists, shape (n,).
    """
    parents, values = pc.list_parent_indices(lists), pc.list_flatten(lists)
    is_value = pc.is_valid(values)
    parents, values = parents.filter(is_value), values.filter(is_value)
    codes = values if pa.types.is_dictionary(values.type) else pc.dictionary_encode(values)
    pairs = np.stack([parents.to_numpy().astype(np.int64), codes.indices.to_numpy().astype(np.int64)])
    distinct = np.unique(pairs, axis=1)
    return codes.dictionary.take(pa.array(distinct[1])), len(np.unique(distinct[0]))


def value_text(value: Any) -> str:
    """Return a value of an enum or a boolean as text."""
    return value if isinstance(value, str) else dump(value)
