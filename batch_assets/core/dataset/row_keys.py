"""Row keys name rows: every one of them there, no two alike. Checked with 8 bytes a row."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batch_assets.core.dataset.dataset import Dataset
from batch_assets.core.errors import DatasetError
from batch_assets.core.pipeline.dataset import ROW_NUMBER

_SHOWN = 5


class KeyCheck:
    """Watches the row keys go by."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self._hashes: list[NDArray[np.int64]] = []
        self._nulls: list[int] = []
        self._null_count = self._rows = 0

    def watch(self, keys: list[Any]) -> None:
        """Takes the next row keys."""
        self._hashes.append(np.fromiter(map(hash, keys), dtype=np.int64, count=len(keys)))
        if None in keys:
            nulls = [self._rows + position for position, key in enumerate(keys) if key is None]
            self._null_count += len(nulls)
            self._nulls += nulls[: _SHOWN - len(self._nulls)]
        self._rows += len(keys)

    def finish(self) -> None:
        """Raises a DatasetError that names the first null or duplicate row keys and how many there are."""
        if self._null_count:
            rows = ", ".join(map(str, self._nulls))
            self._fail(f"{self._null_count} rows have none; the first are the rows {rows} (counted from 0)")
        if self._dataset.key == ROW_NUMBER or not self._hashes:
            return
        hashes = np.concatenate(self._hashes)
        hashes.sort()
        suspects = np.unique(hashes[1:][hashes[1:] == hashes[:-1]])
        if len(suspects):
            self._look_closer(set(suspects.tolist()))

    def _look_closer(self, suspects: set[int]) -> None:
        """Equal hashes need not be equal keys: a second pass over the keys tells."""
        counts: Counter[Any] = Counter()
        for rows in self._dataset.rows([self._dataset.key]):
            counts.update(key for key in rows.table.column(0).to_pylist() if hash(key) in suspects)
        twins = [key for key, count in counts.items() if count > 1]
        if twins:
            shown = ", ".join(repr(key) for key in twins[:_SHOWN])
            more = " and so on" if len(twins) > _SHOWN else ""
            self._fail(f"{len(twins)} of its values name more than one row: {shown}{more}")

    def _fail(self, problem: str) -> None:
        raise DatasetError(
            f"{self._dataset.source}: dataset.key: the row key {self._dataset.key!r} must name every row "
            f"once, but {problem}. Mend the dataset, name another column, or leave dataset.key out to count rows."
        )
