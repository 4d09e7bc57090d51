"""Objects with very many different keys: results carry them as JSON, and templates see the objects."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from batch_assets.core.dataset.dataset import Dataset
from batch_assets.core.io.parquet import LEAVES, unstorable

from ..support import make_pipeline, read

_ROWS = 4_000
SCORES: list[dict[str, Any]] = [{"id": i, "scores": {f"user_{i}": i}} for i in range(_ROWS)]


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_lines_whose_objects_have_keys_of_their_own_are_carried_as_json_in_linear_time(tmp_path: Path) -> None:
    _write(tmp_path / "rows.jsonl", SCORES)
    start = time.process_time()
    table = read(tmp_path, {"path": "rows.jsonl", "key": "id"})
    assert time.process_time() - start < 2  # 15 seconds with a struct of all keys
    assert table["scores"].to_pylist() == [f'{{"user_{i}":{i}}}' for i in range(_ROWS)]


@pytest.mark.parametrize("count", [LEAVES, LEAVES + 1])
def test_the_most_fields_of_a_nested_column(tmp_path: Path, count: int) -> None:
    value = {f"c{i}": 1 for i in range(count)}
    _write(tmp_path / "rows.jsonl", [{"id": 1, "v": value}])
    column = read(tmp_path, {"path": "rows.jsonl", "key": "id"})["v"]
    assert pa.types.is_struct(column.type) == (count == LEAVES)
    assert (unstorable(pa.array([value]).type) is None) == (count == LEAVES)
    assert column[0].as_py() == (value if count == LEAVES else json.dumps(value, separators=(",", ":")))


def test_files_whose_objects_have_too_many_fields_together_are_carried_as_json(tmp_path: Path) -> None:
    for file in range(3):
        rows = [{"id": file * 1000 + i, "scores": {f"user_{file}_{i}": i}} for i in range(500)]
        _write(tmp_path / f"rows_{file}.jsonl", rows)
    column = read(tmp_path, {"path": "rows_*.jsonl", "key": "id"})["scores"]
    assert column.to_pylist() == [f'{{"user_{file}_{i}":{i}}}' for file in range(3) for i in range(500)]


@pytest.mark.parametrize("make", [list, pd.DataFrame, lambda rows: pd.DataFrame(rows).to_dict("list")])
def test_objects_of_an_asset_are_carried_as_json_and_seen_as_objects(tmp_path: Path, make: Any) -> None:
    start = time.process_time()
    with Dataset(make_pipeline(tmp_path, {"asset": "rows", "key": "id"}), make(SCORES)) as dataset:
        slices = list(dataset.rows(["scores"]))
        assert [value for part in slices for value in part.values("scores")] == [row["scores"] for row in SCORES]
    assert time.process_time() - start < 2
    texts = [text for part in slices for text in part.table["scores"].to_pylist()]
    assert texts == [f'{{"user_{i}":{i}}}' for i in range(_ROWS)]
