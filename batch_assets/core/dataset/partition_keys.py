"""The partition keys of a column: one for each of its values."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from batch_assets.core.dataset.dataset import Dataset
from batch_assets.core.dataset.partition_rows import partition_texts
from batch_assets.core.errors import DatasetError
from batch_assets.core.pipeline.partitions import key_problem

MAX_KEYS = 10_000
"""The most values a column may have to define partitions."""
_SHOWN = 3


@dataclass(frozen=True)
class PartitionKeys:
    """The partition keys of a column.

    Attributes:
        keys: The valid values, in the order in which they first occur.
        unusable: The problems of the first few values that cannot be keys.
    """

    keys: list[str]
    unusable: list[str]


def partition_keys_of(dataset: Dataset, column: str, *, seconds: float | None = None) -> PartitionKeys:
    """Read the distinct values of a column as a stream. Null and empty text are not keys.

    Args:
        dataset: The dataset.
        column: The column that defines the partitions.
        seconds: The time limit; `None` for no limit.

    Raises:
        DatasetError: When the column is missing, has more than MAX_KEYS values, or takes too long to read.
    """
    dataset.check_column(column, "columns", field="partitions.column")
    problems: dict[str, str | None] = {}  # by distinct value; None for a valid key
    end = time.monotonic() + seconds if seconds is not None else None
    for texts in _text_slices(dataset, column):
        for text in texts:
            if text and text not in problems:
                problems[text] = key_problem(text)
        if len(problems) > MAX_KEYS:
            raise DatasetError(
                f"{dataset.source}: partitions.column: {column!r} has more than {MAX_KEYS:,} values, too many for "
                "partitions: name a column with fewer"
            )
        if end is not None and time.monotonic() > end:
            raise DatasetError(
                f"{dataset.source}: partitions.column: the values of {column!r} could not be read within "
                f"{seconds:g} s: name the keys in `static`, or add them to Dagster by hand with `dynamic: true`"
            )
    unusable = [problem for problem in problems.values() if problem is not None]
    return PartitionKeys([text for text, problem in problems.items() if problem is None], unusable[:_SHOWN])


def _text_slices(dataset: Dataset, column: str) -> Iterator[Iterable[str | None]]:
    for rows in dataset.rows([column]):
        values: Any = rows.table.column(0)
        yield dict.fromkeys(partition_texts(values))
