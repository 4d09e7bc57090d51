"""Read rows of response files by row number, for a table that has them in a different order."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from batch_assets.core.store.responses import RESPONSE_SCHEMA, ResponseFiles

_OPEN_FILES = 16
# Rows are taken in stretches if these have this many rows on average, and are in at most so many row groups, which
# are all in memory meanwhile.
_STRETCH_ROWS, _STRETCHED_GROUPS = 16, 3


class ResponseReader:
    """Reads rows of response files by row number, with a few row groups cached in memory. A context manager.

    Args:
        files: The response files.
        cache_bytes: The size of decoded row groups to keep. Three usual ones fit: the answers of a slice may be in
            two groups of an old file, with new ones in a third.
    """

    def __init__(self, files: ResponseFiles, cache_bytes: int = 16 << 20) -> None:
        self._files, self._cache_bytes = files, cache_bytes
        self._open: dict[int, pq.ParquetFile] = {}
        self._groups = [
            (number, group) for number, rows in enumerate(files.group_rows) for group in range(len(rows))
        ]
        sizes = [size for rows in files.group_rows for size in rows]
        self._starts = np.cumsum([0, *sizes[:-1]], dtype=np.int64)
        self._row_bytes = np.append(files.row_bytes(), 0)
        self._cache: dict[int, pa.Table] = {}

    def __enter__(self) -> ResponseReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._open.values():
            file.close()

    @property
    def row_groups(self) -> int:
        """The number of row groups of all files."""
        return len(self._groups)

    def groups_of(self, row: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        """Return the row group of each row, counted over all files: int64, shape (n,), -1 for no row.

        Args:
            row: Any integer type, shape (n,): row numbers as in `ResponseFiles`, -1 for no row.
        """
        return np.where(row < 0, -1, np.searchsorted(self._starts, row, side="right") - 1)

    def sizes(self, row: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        """Estimate the size in memory of each row, without reading it: int64, shape (n,).

        Args:
            row: Any integer type, shape (n,): row numbers as in `ResponseFiles`, -1 for no row.
        """
        return self._row_bytes[self.groups_of(row)]

    def take(self, row: NDArray[np.int64]) -> pa.Table:
        """Read rows in the given order. The row number -1 gives a row of nulls.

        Args:
            row: int64, shape (n,): row numbers as in `ResponseFiles`, -1 for no row.
        """
        groups = self.groups_of(row)
        if (stretches := _stretches(row, groups)) is not None:
            parts = [self._stretch(groups[start], row[start], end - start) for start, end in stretches]
            return pa.concat_tables(parts).combine_chunks()
        tables, index = [one_null_row()], np.zeros(len(row), dtype=np.int64)
        offset = 1
        for number in np.unique(groups[groups >= 0]).tolist():
            mask = groups == number
            in_group = row[mask] - self._starts[number]
            tables.append(_rows_of(self._group(number), in_group))
            index[mask] = offset + np.arange(len(in_group))
            offset += len(in_group)
        if len(tables) > 1 and offset > len(row) and (np.diff(index) == 1).all():
            # The usual case: the rows are in order and none is missing.
            return pa.concat_tables(tables[1:]).combine_chunks()
        return pa.concat_tables(tables).take(pa.array(index))

    def _stretch(self, number: int, row: int, count: int) -> pa.Table:
        """Return consecutive rows of a row group, without copying them.

        Args:
            number: The number of the row group, -1 for rows of nulls.
            row: The row number of the first row.
            count: The number of rows.
        """
        if number < 0:
            return null_rows(count)
        return self._group(int(number)).slice(int(row - self._starts[number]), count)

    def iterate(self, row: NDArray[np.integer[Any]]) -> Iterator[tuple[int, pa.Table]]:
        """Yield (row number of the first row, rows) for each row group that has one of some rows.

        Args:
            row: The row numbers, sorted, -1 for no row; any integer type, shape (n,).
        """
        numbers = np.unique(self.groups_of(row))
        for number in numbers[numbers >= 0].tolist():
            yield int(self._starts[number]), self._read(number)

    def _read(self, number: int) -> pa.Table:
        file, group = self._groups[number]
        return self._files.read_group(file, self._file(file), group)

    def _file(self, number: int) -> pq.ParquetFile:
        """Return an open file. A process may not have open as many files at once as years of batches produce."""
        if number not in self._open:
            while len(self._open) >= _OPEN_FILES:
                self._open.pop(next(iter(self._open))).close()
            self._open[number] = self._files.open(number)
        return self._open[number]

    def _group(self, number: int) -> pa.Table:
        if number in self._cache:
            self._cache[number] = self._cache.pop(number)  # the most recently used comes last
            return self._cache[number]
        table = self._read(number)
        while self._cache and sum(t.nbytes for t in self._cache.values()) + table.nbytes > self._cache_bytes:
            del self._cache[next(iter(self._cache))]
        self._cache[number] = table
        return table


def _rows_of(group: pa.Table, rows: NDArray[np.int64]) -> pa.Table:
    """Return rows of a row group.

    They are copied, unless they are consecutive and more than half of the group. A view of fewer rows would keep
    the whole group in memory.
    """
    if 2 * len(rows) > len(group) and (np.diff(rows) == 1).all():
        return group.slice(rows[0], len(rows))
    return group.take(pa.array(rows))


def _stretches(row: NDArray[np.int64], groups: NDArray[np.int64]) -> list[tuple[int, int]] | None:
    """Return the (start, end) of stretches of rows that are consecutive in a row group.

    Args:
        row: The row numbers, -1 for no row; int64, shape (n,).
        groups: The row group of each row, -1 for no row; int64, shape (n,).

    Returns:
        `None` if the stretches are so short, or in so many row groups, that the rows are better copied one by one.
    """
    if len(np.unique(groups)) > _STRETCHED_GROUPS:
        return None
    is_next = (groups[1:] == groups[:-1]) & ((np.diff(row) == 1) | (row[1:] < 0))
    starts = np.flatnonzero(np.append(True, ~is_next)) if len(row) else np.empty(0, np.intp)
    if len(starts) * _STRETCH_ROWS > len(row) or len(row) == 0:
        return None
    return list(zip(starts.tolist(), [*starts[1:].tolist(), len(row)], strict=True))


def null_rows(count: int) -> pa.Table:
    """Return rows of nulls, for rows without a response."""
    columns = {field.name: pa.nulls(count, field.type) for field in RESPONSE_SCHEMA}
    return pa.table(columns, schema=RESPONSE_SCHEMA)


def one_null_row() -> pa.Table:
    """Return the row of nulls for a row without a response."""
    return null_rows(1)
