"""Values that no reader of results could read become text, or their rows are rejected, before anything is sent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch_assets.core.dataset.dataset import Dataset
from batch_assets.core.dataset.rows import Rows
from batch_assets.core.errors import DatasetError
from batch_assets.core.io.parquet import unstorable

from ..support import make_pipeline

_INVALID = pa.ListArray.from_arrays([0, 1, 2], pa.array([b"a\xff", b"b"]).view(pa.string()))
_LOST = pa.timestamp("us", "Nowhere/Lost")
_INSTANT = 1_704_164_645_000_000


@pytest.mark.parametrize("source", ["asset", "path"])
def test_nested_text_that_is_not_unicode_rejects_its_row(tmp_path: Path, source: str) -> None:
    table = pa.table({"id": [1, 2], "v": _INVALID})
    pq.write_table(table, tmp_path / "rows.parquet")
    with Dataset(make_pipeline(tmp_path, {source: "rows.parquet", "key": "id"}), table) as dataset:
        (rows,) = dataset.rows(["id", "v"])
    rows.table.validate(full=True)
    assert rows.table["v"].to_pylist() == [None, ["b"]]
    assert [(row, error_type) for row, (error_type, _) in rows.rejects.items()] == [(0, "invalid_unicode")]
    assert "column 'v'" in rows.rejects[0][1]


@pytest.mark.parametrize(
    ("column", "text"),
    [
        (pa.array([_INSTANT], _LOST), "2024-01-02 03:04:05.000000+00:00"),
        (pa.array([[_INSTANT]], pa.list_(_LOST)), '["2024-01-02T03:04:05+00:00"]'),
    ],
    ids=["times", "lists of times"],
)
def test_times_of_an_unknown_zone_are_carried_as_text_in_utc(tmp_path: Path, column: pa.Array, text: str) -> None:
    with Dataset(make_pipeline(tmp_path, {"asset": "rows"}), pa.table({"v": column})) as dataset:
        (rows,) = dataset.rows(["v"])
        assert unstorable(rows.table["v"].type) is None
        (carried,) = rows.table["v"].to_pylist()
        assert carried.replace("Z", "+00:00") == text
        assert rows.values("v") == [None]
        assert "unknown time zone 'Nowhere/Lost'" in rows.rejects[0][1]


@pytest.mark.parametrize(
    ("column", "problem"),
    [
        (pa.array([1], _LOST), "the unknown time zone 'Nowhere/Lost'"),
        (pa.StructArray.from_arrays([[1], [2]], names=["a", "a"]), "objects with two fields of one name"),
        (pa.array([[("k", 1), ("k", 2)]], pa.map_(pa.string(), pa.int64())), "a map with one key twice"),
        (pa.array([10**15], pa.timestamp("ms")), "a value that Python cannot represent"),
    ],
    ids=["zone", "fields", "keys", "year"],
)
def test_a_value_that_python_cannot_represent_is_named_for_what_it_is(column: Any, problem: str) -> None:
    rows = Rows(pa.record_batch({"v": column}))
    assert rows.values("v") == [None]
    assert problem in rows.rejects[0][1]


def test_times_beyond_what_parquet_stores_are_refused_by_column(tmp_path: Path) -> None:
    table = pa.table({"v": pa.array([9 * 10**17], pa.timestamp("s"))})
    with pytest.raises(DatasetError, match=r"column 'v' has a type that cannot be read, .*out of bounds"):
        Dataset(make_pipeline(tmp_path, {"asset": "rows"}), table)
