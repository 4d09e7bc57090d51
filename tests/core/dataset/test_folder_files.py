"""A folder of tables: a file in it that may hold rows is read or named, and never left out silently."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest

from batch_assets.core.dataset.dataset import Dataset
from batch_assets.core.errors import DatasetError

from ..support import make_pipeline, read


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "a.csv").write_text("id\n1\n")
    return folder


@pytest.mark.parametrize(
    "name",
    [
        "b.csv.zip", "b.xlsx", "b.txt", "b.csv.bak", "b.csv~", "b.csv.1", "part-00000", "b.csv.xz", "b.parquet.gz",
        "b.avro", "b.feather", "b.tar.gz", "b.xml", "b.CSV.OLD", "deeper/b.dat", "b.jsonl.part",
        "b.jsonlines", "b",
    ],
)  # fmt: skip
def test_a_file_that_may_hold_rows_is_named(data: Path, name: str) -> None:
    (data / name).parent.mkdir(exist_ok=True)
    (data / name).write_bytes(b"id\n2\n")
    with pytest.raises(
        DatasetError,
        match=rf"dataset.path: data has files whose names are not those of tables: '{name}'\. A table's name ends "
        r"in \.csv, .*\.parquet.* such as dataset\.path: data/\*\.csv$",
    ):
        read(data.parent, "data")
    assert read(data.parent, "data/*.csv")["id"].to_pylist() == [1]


@pytest.mark.parametrize(
    ("file", "content", "column"),
    [
        ("year=2024/b.csv", "id\n2\n", "year"),
        ("a/month=01/deep/b.csv", "id\n2\n", "month"),
        ("_day=7/b.csv", "id\n2\n", "_day"),
        ("my%20day=x%3Dy/b.jsonl", '{"id": 2}\n', "my day"),
        ("lang=/b.csv", "id\n2\n", "lang"),
    ],
)
def test_a_column_that_is_in_the_name_of_a_folder_is_named(
    data: Path, file: str, content: str, column: str
) -> None:
    (data / file).parent.mkdir(parents=True)
    (data / file).write_text(content)
    ending = file[file.rfind(".") :]
    problem = (
        rf"dataset\.path: data/ has a folder '\S+=\S*', whose name would be a column {column!r} .*"
        rf"such as dataset\.path: data/\*\*/\*\{ending}\. To have"
    )
    with pytest.raises(DatasetError, match=problem):
        read(data.parent, "data/")
    assert 2 in read(data.parent, f"data/**/*{ending}")["id"].to_pylist()
    assert read(data.parent, str(Path("data", file).parent))["id"].to_pylist() == [2]


def test_a_column_of_the_files_may_be_in_the_name_of_a_folder_too(data: Path) -> None:
    (data / "id=2").mkdir()
    (data / "id=2" / "b.csv").write_text("id\n2\n")
    (data / "_logs").mkdir()
    (data / "_logs" / "c=3").write_text("no table")
    assert read(data.parent, "data")["id"].to_pylist() == [1, 2]


def test_many_files_are_counted(data: Path) -> None:
    for number in range(9):
        (data / f"{number}.xlsx").write_bytes(b"x")
    with pytest.raises(DatasetError, match=r": '0\.xlsx', '1\.xlsx', .* and 4 more\. A table's"):
        read(data.parent, "data")


@pytest.mark.parametrize(
    "name",
    [
        "_SUCCESS", "_metadata", "_logs/x.txt", "_dlt_loads/x.gz", ".a.csv.crc", "a.csv.crc", "README",
        "README.md",
        "make.py",
        "defs.yaml",
        "run.log",
        "index.html",
        "v.mp4", "readme.txt", "LICENSE", "SHA256SUMS", "a.csv.sha256", "Thumbs.db", "photo.JPG",
        "scan.pdf", "notes.md", ".git/index",
    ],
)  # fmt: skip
def test_what_lies_beside_tables_is_left_out(data: Path, name: str) -> None:
    (data / name).parent.mkdir(exist_ok=True)
    (data / name).write_bytes(b"id\n2\n")
    assert read(data.parent, "data")["id"].to_pylist() == [1]


@pytest.mark.parametrize("other", ["b.csv", "b.jsonl"])
def test_metadata_that_looks_like_a_row_is_named(data: Path, other: str) -> None:
    (data / other).write_text("id\n2\n" if other.endswith("csv") else '{"id":2}\n')
    (data / "info.json").write_text('{"version": 3, "files": ["a.csv"]}')
    with pytest.raises(
        DatasetError,
        match=r"data/info\.json has no column that another file has: its columns are 'version', 'files'",
    ):
        read(data.parent, "data")
    assert read(data.parent, {"path": "data", "missing_columns": None})["id"].to_pylist() == [1, 2, None]


def test_an_empty_file_marks_something_and_holds_no_rows(data: Path) -> None:
    (data / "upload.done").touch()
    assert read(data.parent, "data")["id"].to_pylist() == [1]


def test_capitals_compressions_and_formats_go_together(data: Path) -> None:
    (data / "B.CSV").write_text("id\n2\n")
    (data / "c.Csv.GZ").write_bytes(gzip.compress(b"id\n3\n"))
    (data / "d.NDJSON").write_text('{"id":4}\n')
    assert sorted(read(data.parent, "data")["id"].to_pylist()) == [1, 2, 3, 4]


@pytest.mark.parametrize("name", ["a.csv.gz", "A.csv"])
def test_one_table_twice_is_named(data: Path, name: str) -> None:
    (data / name).write_bytes(gzip.compress(b"id\n1\n") if name.endswith("z") else b"id\n1\n")
    with pytest.raises(DatasetError, match=r"data has '\S+' and '\S+', which look like one table twice: remove"):
        read(data.parent, "data")
    assert read(data.parent, "data/a.csv")["id"].to_pylist() == [1]


@pytest.mark.parametrize(
    ("name", "kind"),
    [("_delta_log/00000000000000000000.json", "a Delta table"), ("metadata/v1.metadata.json", "an Iceberg table")],
)
def test_a_table_with_a_log_is_not_read_file_by_file(data: Path, name: str, kind: str) -> None:
    (data / name).parent.mkdir()
    (data / name).write_text('{"id":9}\n')
    with pytest.raises(DatasetError, match=f"data is {kind}: its files also hold deleted"):
        read(data.parent, "data")


def test_a_link_within_the_folder_is_followed(data: Path) -> None:
    (data / "..v1").mkdir()
    (data / "..v1" / "b.csv").write_text("id\n2\n")
    (data / "b.csv").symlink_to("..v1/b.csv")
    assert read(data.parent, "data")["id"].to_pylist() == [1, 2]
    assert read(data.parent, "data/*.csv")["id"].to_pylist() == [1, 2]


def test_a_link_to_a_file_that_is_read_anyway_is_left_out(data: Path) -> None:
    (data / "latest.csv").symlink_to("a.csv")
    (data / "newest.csv").symlink_to("latest.csv")
    assert read(data.parent, "data")["id"].to_pylist() == [1]
    assert read(data.parent, "data/latest.csv")["id"].to_pylist() == [1]


@pytest.mark.parametrize(
    ("table", "pattern"),
    [("b.csv", r"data/\*\.csv"), ("b.v2.csv.gz", r"data/\*\.csv\.gz"), ("b.x.jsonl", r"data/\*\.jsonl")],
)
def test_the_pattern_that_is_proposed_has_the_whole_ending(data: Path, table: str, pattern: str) -> None:
    (data / "a.csv").rename(data / table)
    (data / "old.bak").write_text("id\n2\n")
    with pytest.raises(DatasetError, match=f"such as dataset.path: {pattern}$"):
        read(data.parent, "data")


@pytest.mark.parametrize("kind", ["path", "files"])
@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ("nowhere.csv", "leads nowhere"),
        ("../out.csv", "a link out of the folder"),
        ("../other", "a link to a folder"),
    ],
)
def test_a_link_that_is_not_followed_is_named(data: Path, kind: str, target: str, problem: str) -> None:
    (data.parent / "out.csv").write_text("id\n2\n")
    (data.parent / "other").mkdir()
    (data / "b.csv").symlink_to(target)
    for path in ("data", "data/*.csv"):
        with pytest.raises(DatasetError, match=rf"data/b\.csv is .*{problem}.*: replace the link"):
            Dataset(make_pipeline(data.parent, {kind: path}))


def test_something_that_is_no_file_is_named(data: Path) -> None:
    os.mkfifo(data / "b.csv")
    with pytest.raises(DatasetError, match=r"data/b\.csv is not a regular file: remove it"):
        read(data.parent, "data")


def test_a_subfolder_that_may_not_be_listed_is_named(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("closed", "lost+found", ".closed"):
        (data / name).mkdir()
    may = os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode: not str(path).endswith(("closed", "+found")) and may(path, mode)
    )
    with pytest.raises(DatasetError, match=r"the folder .*data/closed cannot be listed: permission denied"):
        read(data.parent, "data")
    (data / "closed").rmdir()
    assert read(data.parent, "data")["id"].to_pylist() == [1]
