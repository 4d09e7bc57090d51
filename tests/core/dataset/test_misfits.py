"""A value that does not fit `dataset.types` is an error with file and line, or rejects its row."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch_assets.core.dataset import csv_guard, csv_reader
from batch_assets.core.dataset.dataset import Dataset
from batch_assets.core.errors import DatasetError

from ..support import make_pipeline

TYPES = {"n": "int64"}
Read = tuple[list[Any], dict[int, str]]


def _read(folder: Path, dataset: dict[str, Any], table: Any = None, column: str = "n") -> Read:
    """The values of a column, and the text of each reject by row."""
    values: list[Any] = []
    rejects: dict[int, str] = {}
    for rows in Dataset(make_pipeline(folder, dataset), table).rows([column]):
        for position, (error_type, text) in rows.rejects.items():
            assert error_type == "unreadable_row"
            rejects[len(values) + position] = text
        values += rows.values(column)
    return values, rejects


def _write(path: Path, values: list[str]) -> None:
    """A file with a column of texts. Line n + 2 of a CSV and line n + 1 of JSON Lines has the value n."""
    if path.name.endswith(".parquet"):
        pq.write_table(pa.table({"n": values, "x": values}), path)
        return
    if ".csv" in path.name:
        text = "n,x\n" + "".join(f"{value},{value}\n" for value in values)
    else:
        text = "".join(f'{{"n":"{value}","x":"{value}"}}\n' for value in values)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("a.csv", "line 4"), ("a.csv.gz", "line 4"), ("a.jsonl", "line 3"), ("a.ndjson.gz", "line 3"),
        ("a.parquet", r"row 2 \(from 0\)"),
    ],
)  # fmt: skip
def test_files(tmp_path: Path, name: str, place: str) -> None:
    _write(tmp_path / name, ["1", "2", "x", "4", "5.5"])
    problem = rf"{name}, {place}: column 'n' is not int64 throughout: it has 'x'"
    remedy = r"\. Correct the value, its type in dataset\.types, or set dataset\.bad_rows: reject$"
    with pytest.raises(DatasetError, match=f"asked/defs.yaml: dataset.path: .*{problem}{remedy}"):
        _read(tmp_path, {"path": name, "types": TYPES})
    values, rejects = _read(tmp_path, {"path": name, "types": TYPES, "bad_rows": "reject"})
    assert values == [1, 2, None, 4, None]
    assert sorted(rejects) == [2, 4]
    assert rejects[2].endswith("it has 'x'")
    assert rejects[4].endswith("it has '5.5'")


def test_a_folder_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    for name, values in {"a.parquet": ["1"], "b.parquet": ["2", "y"], "c.csv": ["z", "4"]}.items():
        _write(tmp_path / "d" / name, values)
    with pytest.raises(DatasetError, match=r"d/b\.parquet, row 1 \(from 0\): column 'n' is not int64"):
        _read(tmp_path, {"path": "d", "types": TYPES})
    numbers, rejects = _read(tmp_path, {"path": "d", "types": TYPES, "bad_rows": "reject"})
    assert numbers == [1, 2, None, None, 4]
    assert [text.split("/d/")[1].split(":")[0] for text in rejects.values()] == [
        "b.parquet, row 1 (from 0)",
        "c.csv, line 2",
    ]


@pytest.mark.parametrize(
    "table",
    [
        pd.DataFrame({"n": ["1", "x", "3"]}), pa.table({"n": ["1", "x", "3"]}), {"n": [1, 1.5, 3]},
        [{"n": "1"}, {"n": "x"}, {"n": "3"}],
    ],
)  # fmt: skip
def test_frames(tmp_path: Path, table: Any) -> None:
    dataset = {"asset": "raw", "types": TYPES}
    problem = (
        r"dataset\.asset: the asset raw, row 1 \(from 0\): column 'n' is not int64 throughout: it has ('x'|1\.5)"
    )
    with pytest.raises(DatasetError, match=problem):
        _read(tmp_path, dataset, table)
    values, rejects = _read(tmp_path, dataset | {"bad_rows": "reject"}, table)
    assert (values, list(rejects)) == ([1, None, 3], [1])


def test_queries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "w.db").touch()
    monkeypatch.setenv("WAREHOUSE_URL", f"sqlite:///{tmp_path}/w.db")
    dataset = {"sql": "select '1' as n union all select 'x'", "url_env": "WAREHOUSE_URL", "types": TYPES}
    with pytest.raises(DatasetError, match=r"dataset\.sql: the query, row 1 \(from 0\): column 'n' is not int64"):
        _read(tmp_path, dataset)
    assert _read(tmp_path, dataset | {"bad_rows": "reject"})[0] == [1, None]


@pytest.mark.parametrize(
    ("type_", "value"),
    [
        ("bool", "maybe"), ("date32", "2024-02-30"), ("timestamp[us]", "soon"), ("decimal(4, 2)", "123.456"),
        ("double", "1,5"), ("int8", "300"),
    ],
)  # fmt: skip
def test_every_type(tmp_path: Path, type_: str, value: str) -> None:
    _write(tmp_path / "a.jsonl", [value, value])
    values, rejects = _read(tmp_path, {"path": "a.jsonl", "types": {"n": type_}, "bad_rows": "reject"})
    assert (values, sorted(rejects)) == ([None, None], [0, 1])


def test_a_type_that_no_value_of_the_column_can_have_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"n": [[1], [2]]}), tmp_path / "a.parquet")
    with pytest.raises(DatasetError, match=r"a\.parquet, row 0 .*: column 'n' is .*int64"):
        _read(tmp_path, {"path": "a.parquet", "types": TYPES})


@pytest.mark.parametrize("rejects_rows", [False, True])
def test_lines_are_right_after_blank_lines_breaks_in_fields_and_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rejects_rows: bool
) -> None:
    monkeypatch.setattr(csv_guard, "_BLOCK_BYTES", 64)
    monkeypatch.setattr(csv_reader, "BLOCK_BYTES", 512)
    lines = ["# a title", "n,m,text"]
    bad: list[int] = []
    for number in range(300):
        is_bad = number % 7 == 3
        bad += [len(lines) + 1] if is_bad else []
        value = "?" if is_bad else str(number)
        other = "?" if is_bad or number % 11 == 5 else "1"
        bad += [len(lines) + 1] if other == "?" and not is_bad else []
        lines += [f'{value},{other},"two', 'lines"', ""] if number % 5 == 0 else [f"{value},{other},one"]
    (tmp_path / "a.csv").write_text("\n".join(lines) + "\n")
    dataset = {"path": "a.csv", "types": {"n": "int64", "m": "int64"}, "csv": {"skip": 1}}
    if not rejects_rows:
        with pytest.raises(DatasetError, match=rf"a\.csv, line {bad[0]}: "):
            _read(tmp_path, dataset)
        return
    numbers = []
    for rows in Dataset(make_pipeline(tmp_path, dataset | {"bad_rows": "reject"})).rows(["n", "m"]):
        numbers += [int(rows.rejects[at][1].split("line ")[1].split(":")[0]) for at in sorted(rows.rejects)]
    assert numbers == bad


def test_a_row_key_that_does_not_fit_rejects_its_row(tmp_path: Path) -> None:
    _write(tmp_path / "a.jsonl", ["1", "x"])
    dataset = {"path": "a.jsonl", "key": "n", "types": TYPES, "bad_rows": "reject"}
    assert _read(tmp_path, dataset)[0] == [1, None]


def test_documents_have_no_rows_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="bad_rows goes with path, sql and asset, not with files"):
        make_pipeline(tmp_path, {"files": "d", "bad_rows": "reject"})
