"""Datasets from a file, folder, glob or URL: several files are one table, and errors list what exists."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch_assets.core.dataset.changes import fingerprints
from batch_assets.core.dataset.dataset import Dataset
from batch_assets.core.dataset.partition_rows import filled
from batch_assets.core.errors import ConfigError, DatasetError

from ..support import World, make_pipeline, params, read


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three files with two columns each, in three formats, beside files that are not data."""
    data = tmp_path / "data"
    (data / "deeper").mkdir(parents=True)
    (data / "_logs").mkdir()
    (data / "b.csv").write_text("id,text\n3,c\n")
    (data / "a.jsonl").write_text('{"id":1,"text":"a"}\n{"id":2,"text":"b"}\n')
    pq.write_table(pa.table({"id": [4], "text": ["d"]}), data / "deeper" / "c.parquet")
    (data / "_logs" / "x.csv").write_text("no,data\n1,2\n")
    (data / ".hidden.csv").write_text("no,data\n1,2\n")
    (data / "README.md").write_text("notes")
    return tmp_path


def test_a_folder_means_every_data_file_under_it_in_path_order(folder: Path) -> None:
    assert read(folder, "data").to_pylist() == [
        {"row_number": number, "id": number + 1, "text": text} for number, text in enumerate("abcd")
    ]


def test_a_glob_means_the_files_it_matches(folder: Path) -> None:
    assert read(folder, "data/*.csv")["id"].to_pylist() == [3]
    assert read(folder, "data/[ab].*")["row_number"].to_pylist() == [0, 1, 2]


def test_the_project_s_folder_is_no_pattern(folder: Path) -> None:
    project = folder.rename(folder.with_name("of [1] *?"))
    assert read(project, "data/*.csv")["id"].to_pylist() == [3]
    assert read(project, {"files": "data/*.csv"})["path"].to_pylist() == ["b.csv"]
    by_key = fingerprints(make_pipeline(project, "data/{partition}.csv", partitions={"dynamic": True}))
    assert by_key.keys() == {"b"}
    assert read(project, filled("data/{partition}.csv", "b"))["id"].to_pylist() == [3]


def test_an_absolute_path_and_a_file_url_work(folder: Path) -> None:
    assert read(folder, str(folder / "data" / "b.csv"))["id"].to_pylist() == [3]
    assert read(folder, f"file://{folder}/data/b.csv")["id"].to_pylist() == [3]


def test_any_fsspec_url_works(tmp_path: Path) -> None:
    files = fsspec.filesystem("memory")
    files.pipe_file("/rows/a.csv", b"id,text\n1,x\n")
    files.pipe_file("/rows/b.jsonl", b'{"id":2,"text":"y"}\n')
    pq.write_table(pa.table({"id": [3], "text": ["z"]}), tmp_path / "c.parquet")
    files.put_file(str(tmp_path / "c.parquet"), "/rows/c.parquet")
    try:
        assert read(tmp_path, "memory://rows")["text"].to_pylist() == ["x", "y", "z"]
        assert read(tmp_path, "memory://rows/*.csv")["text"].to_pylist() == ["x"]
    finally:
        files.rm("/rows", recursive=True)


def _two_csv(folder: Path, first: str, second: str, **more: Any) -> pa.Table:
    (folder / "a.csv").write_text(first)
    (folder / "b.csv").write_text(second)
    return read(folder, {"path": "*.csv", **more})


def test_files_with_different_columns_become_one_table_with_nulls_if_the_pipeline_says_so(tmp_path: Path) -> None:
    table = _two_csv(tmp_path, "id,text\n1,x\n", "note,id\nn,2\n", missing_columns=None)
    assert table.to_pylist() == [
        {"row_number": 0, "id": 1, "text": "x", "note": None},
        {"row_number": 1, "id": 2, "text": None, "note": "n"},
    ]


def test_a_file_without_a_header_among_others_is_named_with_what_differs(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("1,x\n2,y\n")
    (tmp_path / "b.csv").write_text("id,text\n3,z\n")
    (tmp_path / "c.csv").write_text("text,id\nw,4\n")
    (tmp_path / "d.csv").write_text("")
    (tmp_path / "e.jsonl").write_text('{"id":5}\n')
    problem = (
        r"dataset.path: .*/a\.csv has other columns than .*/b\.csv: it lacks 'id', 'text' and has '1', 'x', which "
        r"the other lacks\. Is its first line a row .* dataset\.missing_columns: null"
    )
    with pytest.raises(DatasetError, match=problem):
        read(tmp_path, "*.*")
    assert read(tmp_path, "[b-e].*")["id"].to_pylist() == [3, 4, 5]


def test_a_parquet_file_that_lacks_a_column_is_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": [1], "text": ["x"]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"id": [2]}), tmp_path / "b.parquet")
    with pytest.raises(
        DatasetError, match=r"/b\.parquet has other columns than .*/a\.parquet: it lacks 'text'\. "
    ):
        read(tmp_path, "*.parquet")
    table = read(tmp_path, {"path": "*.parquet", "missing_columns": None})
    assert table["text"].to_pylist() == ["x", None]


@pytest.mark.parametrize(
    ("first", "second", "type_", "values"),
    [
        ("1", "x", pa.string(), ["1", "x"]),
        ("1.5", "x", pa.string(), ["1.5", "x"]),
        ("10.0", "x", pa.string(), ["10.0", "x"]),
        ("10", "2.5", pa.string(), ["10", "2.5"]),
        ("10.0", "2.5", pa.float64(), [10.0, 2.5]),
        ("007", "5", pa.string(), ["007", "5"]),
        ("true", "1", pa.string(), ["true", "1"]),
        ("2024-01-01", "7", pa.string(), ["2024-01-01", "7"]),
        # The values of one file are judged together with those of the others.
        ("1234567890123456789", "2.5", pa.string(), ["1234567890123456789", "2.5"]),
        ("10", "10.0", pa.string(), ["10", "10.0"]),
        ("", "5", pa.int64(), [None, 5]),
        ("2024-01-01", "2024-01-01T10:00:00", pa.string(), ["2024-01-01", "2024-01-01T10:00:00"]),
    ],
)
def test_a_type_is_decided_over_all_files(
    tmp_path: Path, first: str, second: str, type_: pa.DataType, values: list[object]
) -> None:
    column = _two_csv(tmp_path, f"k,v\n1,{first}\n", f"k,v\n2,{second}\n")["v"]
    assert (column.type, column.to_pylist()) == (type_, values)


def test_a_column_without_values_in_one_file_takes_its_type_from_the_others(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"v":null}\n')
    (tmp_path / "b.jsonl").write_text('{"v":[1]}\n')
    assert read(tmp_path, "*.jsonl")["v"].to_pylist() == [None, [1]]


def test_numbers_in_one_format_and_texts_in_another_become_text(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"v":5}\n')
    (tmp_path / "b.csv").write_text("v\nx\n")
    assert read(tmp_path, "*.*")["v"].to_pylist() == ["5", "x"]


@pytest.mark.parametrize(
    ("dataset", "problem"),
    [
        (
            {"path": "nope.csv"},
            r"asked/defs.yaml: dataset.path: .*nope.csv; in the same folder: a.csv, b.txt",
        ),
        ({"path": "no/where.csv"}, "where.csv, and no folder .*/no"),
        ({"path": "empty"}, "empty has no CSV, TSV, JSON Lines or Parquet file"),
        ({"path": "*.parquet"}, "has no CSV"),
        ({"path": "b.txt"}, "b.txt: the name must end in .csv, .tsv"),
        ({"path": "a.csv", "key": "nr"}, "dataset.key: a.csv has no column 'nr'; its columns: id, row_number"),
        ({"path": "a.csv", "key": "id", "columns": ["txt"]}, "dataset.columns: .*no column 'txt'"),
        ({"path": "a.csv", "key": "id", "columns": {"txt": "t"}}, "dataset.columns: .*no column 'txt'"),
        ({"path": "a.csv"}, "the dataset has a column 'row_number'"),
        (
            {"path": "c.csv", "key": "row_number"},
            r"no column 'row_number' \(leave out `key`: without it",
        ),
        ({"path": "c.csv", "key": "Id"}, r"no column 'Id' \(did you mean 'id'\?\); its columns: id"),
    ],
)
def test_an_error_names_what_is_missing_and_lists_what_exists(
    tmp_path: Path, dataset: dict[str, Any], problem: str
) -> None:
    (tmp_path / "a.csv").write_text("id,row_number\n1,2\n")
    (tmp_path / "c.csv").write_text("id\n1\n")
    (tmp_path / "b.txt").write_text("")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match=problem):
        read(tmp_path, dataset)


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.jsonl", b""), ("a.jsonl", b"\n \n\n"), ("a.csv", b""), ("a.csv", b"\xef\xbb\xbf"), ("a.tsv", b"\n")],
)
@pytest.mark.parametrize("columns", [["text", "note"], {"text": "review"}, None])
def test_an_empty_file_is_a_dataset_without_rows(world: World, name: str, content: bytes, columns: Any) -> None:
    (world.folder / name).write_bytes(content)
    dataset = {"path": name, "key": "id", "columns": columns, "types": {"n": "int64"}}
    pipeline = world.pipeline(dataset=dataset)
    schema = Dataset(pipeline).schema
    assert {"id", "text", "n"} <= set(schema.names)
    assert (schema.field("text").type, schema.field("n").type) == (pa.string(), pa.int64())
    table = world.run(pipeline)
    assert len(table) == 0
    assert "id" in table.columns
    assert not world.accepted()


def test_an_empty_file_needs_no_column_names(world: World) -> None:
    (world.folder / "rows.csv").write_bytes(b"")
    pipeline = world.pipeline(dataset="rows.csv", params=params("the same for all"))
    assert len(world.run(pipeline)) == 0
    assert not world.accepted()


def test_an_empty_file_beside_others_adds_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"")
    (tmp_path / "b.jsonl").write_bytes(b"\n")
    (tmp_path / "c.csv").write_text("v\n5\n")
    assert read(tmp_path, "[abc].*").to_pylist() == [{"row_number": 0, "v": 5}]
    (tmp_path / "c.csv").write_text("v\n")
    with pytest.raises(DatasetError, match="no column 'id'"):
        read(tmp_path, {"path": "[abc].*", "key": "id"})


def test_a_file_with_rows_but_no_columns_is_not_empty(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("{}\n")
    with pytest.raises(DatasetError, match="no column 'id'"):
        read(tmp_path, {"path": "a.jsonl", "key": "id"})


@pytest.mark.parametrize(("value", "type_"), [("[1]", "list"), ('{"n":1}', "struct")])
def test_a_row_key_column_of_lists_or_objects_is_refused(tmp_path: Path, value: str, type_: str) -> None:
    (tmp_path / "a.jsonl").write_text(f'{{"id":{value}}}\n')
    with pytest.raises(DatasetError, match=f"asked/defs.yaml: dataset.key: the column 'id' has the type {type_}"):
        read(tmp_path, {"path": "a.jsonl", "key": "id"})


def test_columns_come_in_the_requested_order(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a,b,c\n1,2,3\n")
    dataset = Dataset(make_pipeline(tmp_path, "a.csv"))
    (rows,) = dataset.rows(["c", "row_number", "a"])
    assert rows.table.to_pylist() == [{"c": 3, "row_number": 0, "a": 1}]
    assert rows.table.schema.names == ["c", "row_number", "a"]


def test_the_row_number_can_be_the_only_requested_column(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a\nx\ny\n")
    (tmp_path / "b.jsonl").write_text('{"a":1}\n')
    pq.write_table(pa.table({"a": ["z"]}), tmp_path / "c.parquet")
    assert read(tmp_path, "[abc].*", ["row_number"])["row_number"].to_pylist() == [0, 1, 2, 3]


def test_null_in_quotes_is_named_as_such(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing_columns: give one of 'refuse', not null in quotes"):
        make_pipeline(tmp_path, {"path": "a.csv", "missing_columns": "null"})


def test_a_control_character_in_json_has_one_place(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"a":"\x01"}\n')
    with pytest.raises(DatasetError, match=r"Invalid control character at column 7$"):
        read(tmp_path, "a.jsonl")
