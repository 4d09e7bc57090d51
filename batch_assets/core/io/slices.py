"""Cut rows into slices by rows and by bytes, so that memory use does not depend on how long the values are.

Whatever handles rows slice by slice uses this module: `slices_of` for a Parquet file, `cut` for rows in memory,
and `bounds_by_weight` for rows whose size is only estimated.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Set
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

SLICE_ROWS = 4096
"""The most rows of a slice."""
SLICE_BYTES = 16 << 20
"""The most bytes of a slice, unless a single row is larger."""

# Rows are decoded some at a time, because their size is known only afterwards. With fewer than 128 it would take
# much longer.
_DECODED_ROWS, _DECODED_BYTES = 128, 256 << 10
# Values of all other physical types of Parquet have at most so many bytes in Arrow: decimals have the most.
_OF_ANY_SIZE, _FIXED_BYTES = ("BYTE_ARRAY", "FIXED_LEN_BYTE_ARRAY"), 16
JOINED_BYTES = 4 << 20
"""The most bytes of a slice that small batches are joined to: meanwhile they are in memory twice."""
Rows = TypeVar("Rows", pa.RecordBatch, pa.Table)


def cut(rows: Rows, most_rows: int = SLICE_ROWS, most_bytes: int = SLICE_BYTES) -> Iterator[Rows]:
    """Yield rows in memory in slices, without copying them.

    Args:
        rows: The rows.
        most_rows: The most rows of a slice.
        most_bytes: The most bytes of a slice, unless a single row is larger.
    """
    for start in range(0, len(rows), most_rows):
        yield from _halved(rows.slice(start, most_rows), most_bytes)


def _halved(rows: Rows, most_bytes: int) -> Iterator[Rows]:
    if len(rows) <= 1 or size_of(rows) <= most_bytes:
        yield rows
        return
    half = len(rows) // 2
    yield from _halved(rows.slice(0, half), most_bytes)
    yield from _halved(rows.slice(half), most_bytes)


def size_of(rows: pa.RecordBatch | pa.Table) -> int:
    """Return the size of rows in bytes. A value in a dictionary counts as often as it occurs."""
    size: int = rows.nbytes
    for column in rows.columns:
        if pa.types.is_dictionary(column.type):
            chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
            size += sum(map(_size_of_values, chunks))
    return size


def _size_of_values(column: pa.DictionaryArray) -> int:
    type_ = column.type.value_type
    if not (pa.types.is_string(type_) or pa.types.is_binary(type_) or pa.types.is_large_string(type_)):
        return 0
    return pc.sum(pc.binary_length(column.dictionary).take(column.indices)).as_py() or 0


def bounds_by_weight(
    weights: NDArray[np.integer[Any]], most_rows: int = SLICE_ROWS, most_bytes: int = SLICE_BYTES
) -> list[tuple[int, int]]:
    """Return the (start, end) of slices of rows that are not in memory yet.

    Args:
        weights: The size of each row in bytes; any integer type, shape (n,).
        most_rows: The most rows of a slice.
        most_bytes: The most bytes of a slice, unless a single row is larger.
    """
    ends = np.cumsum(weights, dtype=np.int64)
    bounds = []
    start, size = 0, 0
    while start < len(ends):
        fitting = int(np.searchsorted(ends, size + most_bytes, side="right"))
        end = max(start + 1, min(fitting, start + most_rows))
        bounds.append((start, end))
        start, size = end, int(ends[end - 1])
    return bounds


def slices_of(
    file: pq.ParquetFile,
    columns: Sequence[str] | None = None,
    most_rows: int = SLICE_ROWS,
    most_bytes: int = SLICE_BYTES,
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a Parquet file in slices, however its row groups are cut and encoded.

    Args:
        file: The file.
        columns: The columns to read; `None` for all.
        most_rows: The most rows of a slice.
        most_bytes: The most bytes of a slice, unless a single row is larger.
    """
    names = list(columns) if columns is not None else None
    return _joined(_decoded(file, names, most_rows, most_bytes), most_rows, most_bytes)


def _decoded(
    file: pq.ParquetFile, columns: list[str] | None, most_rows: int, most_bytes: int
) -> Iterator[pa.RecordBatch]:
    dictionaries = {field.name for field in file.schema_arrow if pa.types.is_dictionary(field.type)}
    # One row group at a time: otherwise Arrow would read the bytes of all of them at once.
    for number in range(file.num_row_groups):
        group = file.metadata.row_group(number)
        at_once = _rows_at_once(group, columns, dictionaries, most_rows, most_bytes)
        yield from file.iter_batches(at_once, row_groups=[number], columns=columns, use_threads=False)


def _rows_at_once(
    group: pq.RowGroupMetaData, columns: list[str] | None, dictionaries: Set[str], most_rows: int, most_bytes: int
) -> int:
    """The number of rows of a row group that can be decoded at once.

    The footer has the encoded size. A dictionary stores equal values once, so decoded they may be much larger,
    except in columns that Arrow reads as dictionaries.
    """
    encoded = most_decoded = 0
    for chunk in map(group.column, range(group.num_columns)):
        path = chunk.path_in_schema
        if columns is not None and not _is_of(path, columns):
            continue
        encoded += chunk.total_uncompressed_size
        repeats = chunk.num_values if chunk.has_dictionary_page and path not in dictionaries else 1
        if chunk.physical_type not in _OF_ANY_SIZE:
            most_decoded += max(chunk.total_uncompressed_size, repeats * _FIXED_BYTES)
            continue
        most_decoded += repeats * chunk.total_uncompressed_size
    if most_decoded <= most_bytes:
        return most_rows
    usual = encoded // max(1, group.num_rows)
    return int(max(1, min(_DECODED_ROWS, _DECODED_BYTES // max(1, usual))))


def _is_of(path: str, columns: list[str]) -> bool:
    """Whether a leaf of the file's schema belongs to one of the columns. A name may contain dots."""
    return path in columns or any(path.startswith(f"{name}.") for name in columns)


def _joined(batches: Iterable[pa.RecordBatch], most_rows: int, most_bytes: int) -> Iterator[pa.RecordBatch]:
    """Join small batches to slices of nearly the size that is allowed."""
    pending: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        bytes_ = size_of(batch)
        if pending and (rows + len(batch) > most_rows or size + bytes_ > min(most_bytes, JOINED_BYTES)):
            slice_ = pa.concat_batches(pending) if len(pending) > 1 else pending[0]
            pending, rows, size = [], 0, 0  # first: the caller need not have both in memory
            yield slice_
            del slice_
        if len(batch) >= most_rows or bytes_ > most_bytes or not batch.num_columns:
            yield from cut(batch, most_rows, most_bytes)
            continue
        pending.append(batch)
        rows, size = rows + len(batch), size + bytes_
    if pending:
        yield pa.concat_batches(pending) if len(pending) > 1 else pending[0]
