"""Slices are limited by rows and by bytes, whatever the length of the values and however a file is written."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch_assets.core.io.parquet import TableWriter, unstorable
from batch_assets.core.io.slices import (
    JOINED_BYTES,
    SLICE_BYTES,
    SLICE_ROWS,
    bounds_by_weight,
    cut,
    size_of,
    slices_of,
)

_KILOBYTE = 1000
_ALLOWED = SLICE_BYTES + 1_000_000


def repeated(rows: int, length: int) -> pa.Array:
    """Return equal values, which need the memory of one value."""
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array([b"x" * length]))


def written(columns: dict[str, pa.Array], **options: object) -> pq.ParquetFile:
    """A file whose columns are not read as dictionaries, though it stores them as such."""
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file, store_schema=False, **options)
    return pq.ParquetFile(file)


def within_limits(slices: Iterable[pa.RecordBatch | pa.Table]) -> int:
    """The number of rows, if no slice is too large."""
    total = 0
    for rows in slices:
        assert 0 < len(rows) <= SLICE_ROWS
        assert size_of(rows) <= _ALLOWED
        total += len(rows)
    return total


def struct_of(values: pa.Array) -> pa.Array:
    return pa.StructArray.from_arrays([values, pa.array(range(len(values)))], ["bytes", "n"])


def map_of(values: pa.Array) -> pa.Array:
    return pa.MapArray.from_arrays(list(range(len(values) + 1)), pa.array(["k"] * len(values)), values)


@pytest.mark.parametrize("nested", [struct_of, map_of])
def test_two_gigabytes_of_nested_values_in_a_row_group_are_read(nested: Callable[[pa.Array], pa.Array]) -> None:
    """Arrow cannot read nested values of over 2 GiB at once, and writes them."""
    rows = 2200
    file = written({"id": pa.array(range(rows)), "v": nested(repeated(rows, 1_000_000))})
    assert file.num_row_groups == 1
    assert within_limits(slices_of(file)) == rows


@pytest.mark.parametrize("groups", [1, 100])
@pytest.mark.parametrize("length", [0, 100, 20 * _KILOBYTE, 300 * _KILOBYTE])
def test_equal_and_different_values_are_read_in_order(length: int, groups: int) -> None:
    rows = 200
    texts = [f"{number}".ljust(length, "x") for number in range(rows)]
    columns = {"id": pa.array(range(rows)), "a": pa.array(texts), "b": repeated(rows, length)}
    file = written(columns, row_group_size=rows // groups, compression="zstd")
    slices = list(slices_of(file))
    assert within_limits(slices) == rows
    assert [number for part in slices for number in part["id"].to_pylist()] == list(range(rows))
    assert [text for part in slices for text in part["a"].to_pylist()] == texts
    assert len(slices) <= 2 + 2 * sum(map(size_of, slices)) // JOINED_BYTES


def test_long_rows_after_short_ones_do_not_fill_a_slice() -> None:
    texts = ["x"] * 5000 + ["y" * 2_000_000] * 40
    file = written({"a": pa.array(texts), "b": pa.array(range(len(texts)))}, use_dictionary=False)
    assert within_limits(slices_of(file)) == len(texts)
    assert [part["b"][0].as_py() for part in slices_of(file)][:2] == [0, 4096]


def test_short_rows_of_many_row_groups_come_in_few_slices() -> None:
    file = written({"a": pa.array([str(number) for number in range(10_000)])}, row_group_size=700)
    assert [len(part) for part in slices_of(file)] == [3500, 3500, 3000]


def test_rows_are_counted_without_any_column() -> None:
    file = written({"a": pa.array(range(5000))})
    assert sum(len(part) for part in slices_of(file, [])) == 5000


class _Watched(pq.ParquetFile):
    """Notes how many rows are decoded at once."""

    decoded: list[int]

    def iter_batches(self, batch_size: int, **options: Any) -> Any:
        self.decoded = [*getattr(self, "decoded", []), batch_size]
        return super().iter_batches(batch_size, **options)


def test_numbers_in_a_dictionary_are_decoded_as_many_at_a_time_as_others() -> None:
    """However often each of them occurs, a number takes no more than its few bytes."""
    numbers = pa.table({str(column): pa.array(range(SLICE_ROWS), pa.int64()) for column in range(20)})
    stored = io.BytesIO()
    pq.write_table(numbers, stored)
    file = _Watched(stored)

    assert [len(part) for part in slices_of(file)] == [SLICE_ROWS]
    assert file.decoded == [SLICE_ROWS]


def test_a_value_in_a_dictionary_counts_as_often_as_it_occurs() -> None:
    rows = pa.table({"a": repeated(1000, 100 * _KILOBYTE)})
    assert rows.nbytes < 200 * _KILOBYTE
    assert size_of(rows) > 100_000_000
    assert within_limits(cut(rows)) == 1000
    stored = io.BytesIO()
    pq.write_table(rows, stored)  # read as a dictionary
    assert within_limits(slices_of(pq.ParquetFile(stored))) == 1000


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ([], []),
        ([1] * 9, [(0, 4), (4, 8), (8, 9)]),
        ([3, 3, 3, 12, 30, 1], [(0, 3), (3, 4), (4, 5), (5, 6)]),
        ([0] * 5, [(0, 4), (4, 5)]),
    ],
)
def test_bounds_by_weight(weights: list[int], expected: list[tuple[int, int]]) -> None:
    assert bounds_by_weight(np.array(weights, np.int64), most_rows=4, most_bytes=10) == expected


def test_row_groups_are_limited_too(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pa.table({"a": ["x" * 300 * _KILOBYTE] * 200})
    with TableWriter(path, table.schema) as writer:
        writer.write(table)
    file = pq.ParquetFile(path)
    assert file.num_row_groups > 3
    groups = [file.read_row_group(number) for number in range(file.num_row_groups)]
    assert within_limits(groups) == 200


def nested_type(levels: int, wrap: Callable[[pa.DataType], pa.DataType]) -> pa.DataType:
    type_ = pa.int64()
    for _ in range(levels):
        type_ = wrap(type_)
    return type_


@pytest.mark.parametrize(
    ("most", "wrap"),
    [
        (98, lambda inner: pa.struct([("a", inner)])),
        (49, pa.list_),
        (49, lambda inner: pa.map_(pa.string(), inner)),
        (32, lambda inner: pa.list_(pa.struct([("a", inner)]))),
    ],
)
def test_the_deepest_type_that_can_be_stored_is_readable_with_default_options(
    most: int, wrap: Callable[[pa.DataType], pa.DataType]
) -> None:
    deepest = nested_type(most, wrap)
    assert unstorable(deepest) is None
    assert written({"v": pa.nulls(1, deepest)}).read()["v"].to_pylist() == [None]
    assert "nested too deeply" in (unstorable(nested_type(most + 1, wrap)) or "")
