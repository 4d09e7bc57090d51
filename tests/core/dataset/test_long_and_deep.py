"""Datasets with long values come in small slices, and columns that results cannot hold become text."""

from __future__ import annotations

import json
import sqlite3
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch_assets.core.dataset.dataset import Dataset
from batch_assets.core.io.parquet import unstorable
from batch_assets.core.io.slices import SLICE_BYTES, size_of

from ..support import make_pipeline, params, read
from .test_own_values import contents

_LENGTH, _ROWS = 400_000, 120
_TEXT = "x" * _LENGTH


def in_parquet(folder: Path) -> tuple[dict[str, Any], Any]:
    table = pa.table({"id": range(_ROWS), "v": [_TEXT] * _ROWS})
    pq.write_table(table, folder / "rows.parquet")
    return {"path": "rows.parquet"}, None


def in_memory(folder: Path) -> tuple[dict[str, Any], Any]:
    return {"asset": "rows"}, pa.table({"id": range(_ROWS), "v": [_TEXT] * _ROWS})


def as_categories(folder: Path) -> tuple[dict[str, Any], Any]:
    frame = pd.DataFrame({"id": range(_ROWS), "v": pd.Categorical([_TEXT] * _ROWS)})
    frame.to_parquet(folder / "rows.parquet")
    return {"path": "rows.parquet"}, None


def in_a_database(folder: Path) -> tuple[dict[str, Any], Any]:
    with sqlite3.connect(folder / "rows.db") as database:
        database.execute("create table rows (id integer, v text)")
        database.executemany("insert into rows values (?, ?)", [(number, _TEXT) for number in range(_ROWS)])
    return {"sql": "select * from rows", "url_env": "ROWS_URL"}, None


@pytest.mark.parametrize("source", [in_parquet, in_memory, as_categories, in_a_database])
def test_slices_of_long_values_are_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: Any) -> None:
    monkeypatch.setenv("ROWS_URL", f"sqlite:///{tmp_path}/rows.db")
    dataset, table = source(tmp_path)
    rows = 0
    with Dataset(make_pipeline(tmp_path, dataset | {"key": "id"}), table) as opened:
        for part in opened.rows(["id", "v"]):
            assert size_of(part.table) <= SLICE_BYTES
            assert part.values("v") == [_TEXT] * len(part.table)
            assert part.stored_values("id") == list(range(rows, rows + len(part.table)))
            rows += len(part.table)
    assert rows == _ROWS


def nested(levels: int, kind: str) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value] if kind == "list" else {"a": value} if kind == "object" else [{"a": value}]
    return value


@pytest.mark.parametrize(("kind", "most"), [("list", 49), ("object", 98), ("objects in lists", 32)])
def test_json_nested_too_deeply_for_parquet_is_text(tmp_path: Path, kind: str, most: int) -> None:
    for levels in (most, most + 1):
        value = nested(levels, kind)
        (tmp_path / "rows.jsonl").write_text(json.dumps({"id": "a", "v": value}) + "\n")
        column = read(tmp_path, {"path": "rows.jsonl", "key": "id"})["v"]
        assert pa.types.is_nested(column.type) == (levels == most)
        assert unstorable(column.type) is None
        expected = value if levels == most else json.dumps(value, separators=(",", ":"))
        assert column.to_pylist() == [expected]


def test_a_parquet_column_nested_too_deeply_is_read(tmp_path: Path) -> None:
    value = nested(60, "list")
    type_ = pa.array([value]).type
    pq.write_table(pa.table({"id": ["a"], "v": pa.array([value], type_)}), tmp_path / "rows.parquet")
    assert read(tmp_path, {"path": "rows.parquet", "key": "id"})["v"].to_pylist() == [json.dumps(value)]
    pipeline = make_pipeline(tmp_path, {"path": "rows.parquet", "key": "id"}, params=params("{{ v | tojson }}"))
    assert contents(pipeline) == [json.dumps(value)]


_UNION = pa.UnionArray.from_sparse(pa.array([0, 1], pa.int8()), [pa.array([1, 2]), pa.array(["a", "b"])])


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        (pa.array([{}, None], pa.struct([])), ["{}", None]),
        (pa.array([[{}], []], pa.list_(pa.struct([]))), ["[{}]", "[]"]),
        (pa.array([(1, 2, 3_500_000_000), None], pa.month_day_nano_interval()), ["P1M2DT3.5S", None]),
        (pa.array([Decimal(1200), None], pa.decimal128(10, -2)), ["1200", None]),
        (_UNION, ["1", "b"]),
        (
            pa.array([{"d": Decimal("1.50"), "b": b"hi", "n": {}}, None]).cast(
                pa.struct([("d", pa.decimal128(5, 2)), ("b", pa.binary()), ("n", pa.struct([]))])
            ),
            ['{"d":1.50,"b":"aGk=","n":{}}', None],
        ),
    ],
    ids=str,
)
def test_types_that_parquet_does_not_have_are_text(tmp_path: Path, values: pa.Array, texts: list[Any]) -> None:
    pipeline = make_pipeline(tmp_path, {"asset": "rows", "key": "id"})
    with Dataset(pipeline, pa.table({"id": ["a", "b"], "v": values})) as dataset:
        assert unstorable(dataset.schema.field("v").type) is None
        (rows,) = dataset.rows(["id", "v"])
        assert rows.table["v"].to_pylist() == texts
        rows.values("v")
