"""Check that every row has a row key and that no two are equal. Memory does not grow with the rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from batch_assets.core.dataset.dataset import Dataset
from batch_assets.core.dataset.repeated_hashes import RepeatedHashes
from batch_assets.core.errors import DatasetError, ErrorType
from batch_assets.core.pipeline.dataset import ROW_NUMBER
from batch_assets.core.text import beginning

_SHOWN = 5


class KeyCheck:
    """Checks the row keys of a dataset, slice by slice.

    Args:
        dataset: The dataset.
    """

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self._hashes = RepeatedHashes()
        self._nulls: list[int] = []
        self._null_count = self._rows = 0

    def watch(self, keys: list[Any], rejects: Mapping[int, tuple[str, str]]) -> None:
        """Take the next row keys into account.

        Args:
            keys: The row keys.
            rejects: The (error type, text) of rejected rows by position. A row that could not be read may have no
                key.
        """
        unreadable = {
            position for position, (error_type, _) in rejects.items() if error_type == ErrorType.UNREADABLE_ROW
        }
        nulls: list[int] = []
        if pa.types.is_floating(self._dataset.key_type):
            keys = [None if key != key else key for key in keys]  # NaN differs from itself, and is null
        if None in keys:
            nulls = [at for at, key in enumerate(keys) if key is None and at not in unreadable]
        self._null_count += len(nulls)
        self._nulls += [self._rows + position for position in nulls[: _SHOWN - len(self._nulls)]]
        self._rows += len(keys)
        if unreadable:
            keys = [key for key in keys if key is not None]
        if self._dataset.key != ROW_NUMBER:
            self._hashes.add(np.fromiter(map(hash, keys), dtype=np.int64, count=len(keys)))

    def finish(self) -> None:
        """Finish the check after the last row key.

        Raises:
            DatasetError: When row keys are null or not unique. Names the first ones and their number.
        """
        if self._null_count:
            rows = ", ".join(map(str, self._nulls))
            self._fail(f"{self._null_count} rows have none; the first are rows {rows} (counted from 0)")
        if self._dataset.key == ROW_NUMBER:
            return
        suspects = self._hashes.repeated()
        if suspects:
            self._find_duplicates(suspects)

    def _find_duplicates(self, suspects: set[int]) -> None:
        """Read the keys a second time, because keys with equal hashes may be different.

        Args:
            suspects: The hashes that occur more than once.
        """
        counts: Counter[Any] = Counter()
        for rows in self._dataset.rows([self._dataset.key]):
            counts.update(
                key for key in rows.table.column(0).to_pylist() if key is not None and hash(key) in suspects
            )
        duplicates = [key for key, count in counts.items() if count > 1]
        if duplicates:
            examples = ", ".join(beginning(repr(key)) for key in duplicates[:_SHOWN])
            more = " and so on" if len(duplicates) > _SHOWN else ""
            self._fail(f"{len(duplicates)} of its values name more than one row: {examples}{more}")

    def _fail(self, problem: str) -> None:
        raise DatasetError(
            f"{self._dataset.source}: dataset.key: the row key {self._dataset.key!r} must name every row once, "
            f"but {problem}. Fix the dataset, name another column, or leave out dataset.key to use row numbers."
        )
