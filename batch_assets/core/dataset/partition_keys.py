"""The partition keys that a column holds: a key for each value."""

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
"""As many values of a column may become partitions."""
_SHOWN = 3


@dataclass(frozen=True)
class PartitionKeys:
    """What a column holds.

    Attributes:
        keys: its values, in the order in which they first come up.
        unusable: for the first values that can be no key, why.
    """

    keys: list[str]
    unusable: list[str]


def partition_keys_of(dataset: Dataset, column: str, *, seconds: float | None = None) -> PartitionKeys:
    """Every value of a column once, read as a stream. Null and empty text are no partitions.

    Args:
        seconds: give up after so long.

    Errors:
        DatasetError: there is no such column, it has more than MAX_KEYS values, or it takes too long.
    """
    dataset.check_column(column, "columns", field="partitions.column")
    found: dict[str, str | None] = {}
    end = time.monotonic() + seconds if seconds is not None else None
    for texts in _text_slices(dataset, column):
        for text in texts:
            if text and text not in found:
                found[text] = key_problem(text)
        if len(found) > MAX_KEYS:
            raise DatasetError(
                f"{dataset.source}: partitions.column: {column!r} has more than {MAX_KEYS:,} values, too many for "
                "partitions: name a column with fewer"
            )
        if end is not None and time.monotonic() > end:
            raise DatasetError(
                f"{dataset.source}: partitions.column: the values of {column!r} could not be read within "
                f"{seconds:g} s: name the keys in `static`, or add them to Dagster by hand with `dynamic: true`"
            )
    unusable = [problem for problem in found.values() if problem is not None]
    return PartitionKeys([text for text, problem in found.items() if problem is None], unusable[:_SHOWN])


def _text_slices(dataset: Dataset, column: str) -> Iterator[Iterable[str | None]]:
    for rows in dataset.rows([column]):
        values: Any = rows.table.column(0)
        yield dict.fromkeys(partition_texts(values))
