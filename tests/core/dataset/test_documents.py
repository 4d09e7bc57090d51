"""A folder of documents as a dataset: one row per file, whose content is read only when it is needed."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import fsspec
import orjson
import pytest

from batch_assets.core.dataset import document_files
from batch_assets.core.dataset.dataset import Dataset
from batch_assets.core.errors import DatasetError
from tests.media import PDF

from ..support import World, make_pipeline, params, read

_SOURCE = {"type": "base64", "media_type": "{{ path | media_type }}", "data": "{{ path | file_base64 }}"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    docs = tmp_path / "docs"
    (docs / "b").mkdir(parents=True)
    (docs / ".git").mkdir()
    (docs / "z.pdf").write_bytes(PDF)
    (docs / "b" / "a.PDF").write_bytes(PDF + b"2")
    (docs / "note.txt").write_text("a note")
    (docs / ".hidden.pdf").write_bytes(PDF)
    (docs / ".git" / "x.pdf").write_bytes(PDF)
    return tmp_path


@pytest.mark.parametrize(
    ("files", "paths"),
    [
        ("docs", ["b/a.PDF", "note.txt", "z.pdf"]),
        ("docs/", ["b/a.PDF", "note.txt", "z.pdf"]),
        ("docs/*.pdf", ["z.pdf"]),
        ("docs/**/*.[pP][dD][fF]", ["b/a.PDF", "z.pdf"]),
        ("docs/*/*", ["b/a.PDF"]),
        ("docs/z.pdf", ["z.pdf"]),
    ],
)
def test_every_file_is_a_row_in_path_order(folder: Path, files: str, paths: list[str]) -> None:
    rows = read(folder, {"files": files}).to_pylist()
    assert [row["path"] for row in rows] == paths
    assert [row["name"] for row in rows] == [path.rsplit("/", 1)[-1] for path in paths]
    assert [row["bytes"] for row in rows] == [(folder / "docs" / path).read_bytes() for path in paths]


def test_files_of_any_fsspec_url_are_rows(tmp_path: Path) -> None:
    files = fsspec.filesystem("memory")
    files.pipe_file("/texts/x/a.pdf", PDF)
    try:
        expected = [{"path": "x/a.pdf", "name": "a.pdf", "bytes": PDF}]
        assert read(tmp_path, {"files": "memory://texts"}).to_pylist() == expected
        assert read(tmp_path, {"files": "memory://texts/*/*.pdf"}).to_pylist() == expected
    finally:
        files.rm("/texts", recursive=True)


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ("nothing", "dataset.files: there is no file or folder nothing; in the same folder: docs"),
        ("docs/*.png", r"dataset.files: there is no file docs/\*.png"),
    ],
)
def test_a_dataset_without_files_is_an_error(folder: Path, files: str, problem: str) -> None:
    with pytest.raises(DatasetError, match=problem):
        read(folder, {"files": files})


def test_an_error_names_the_document_that_cannot_be_read(folder: Path) -> None:
    dataset = Dataset(make_pipeline(folder, {"files": "docs"}, params=params("{{ bytes | base64 }}")))
    (folder / "docs" / "note.txt").unlink()
    with pytest.raises(DatasetError, match=r"dataset.files: .*/docs/note\.txt cannot be read: No such file"):
        list(dataset.rows(["path", "bytes"]))
    assert sum(len(rows.table) for rows in dataset.rows(["path"])) == 3  # without reading contents


def test_documents_get_results(world: World) -> None:
    docs = world.folder / "docs"
    (docs / "sub").mkdir(parents=True)
    (docs / "sub" / "a.pdf").write_bytes(PDF)
    (docs / "b.docx").write_bytes(b"other")
    content = [{"type": "document", "source": _SOURCE}, {"type": "text", "text": "What is in {{ name }}?"}]
    pipeline = world.pipeline(dataset={"files": "docs"}, params=params(content))
    table = world.run(pipeline)
    assert list(table["path"]) == ["b.docx", "sub/a.pdf"]
    assert list(table["name"]) == ["b.docx", "a.pdf"]
    assert "bytes" not in table.columns
    assert list(table["result_type"]) == ["rejected", "succeeded"]
    assert "no media type for 'b.docx', only for gif, jpeg, jpg, pdf, png" in table["error_message"][0]
    (batch,) = world.accepted()
    (request,) = orjson.loads(world.sent_body(batch["id"]))["requests"]
    source = request["params"]["messages"][0]["content"][0]["source"]
    assert source["media_type"] == "application/pdf"
    assert base64.b64decode(source["data"]) == PDF


def test_bytes_are_carried_when_the_pipeline_names_them(world: World) -> None:
    (world.folder / "docs").mkdir()
    (world.folder / "docs" / "a.txt").write_bytes(b"text")
    dataset = {"files": "docs", "columns": {"bytes": "content"}}
    table = world.run(world.pipeline(dataset=dataset, params=params("{{ bytes | base64 }}")))
    assert [bytes(value) for value in table["content"]] == [b"text"]
    assert "name" not in table.columns


def test_a_document_too_large_for_a_batch_is_rejected_without_being_read(world: World) -> None:
    (world.folder / "docs").mkdir()
    with (world.folder / "docs" / "a.pdf").open("wb") as file:
        file.truncate(257_000_000)  # a sparse file, which takes no space on disk
    (world.folder / "docs" / "b.pdf").write_bytes(PDF)
    table = world.run(world.pipeline(dataset={"files": "docs"}, params=params("{{ bytes | base64 }}")))
    assert list(table["result_type"]) == ["rejected", "succeeded"]
    assert table["error_type"][0] == "request_too_large"
    problem = "the file 'a.pdf' has 257,000,000 bytes; dataset.max_file_mb allows 256,000,000"
    assert problem in table["error_message"][0]


def test_a_file_name_that_is_not_unicode_rejects_its_row(world: World) -> None:
    docs = world.folder / "docs"
    docs.mkdir()
    try:
        Path(os.fsdecode(os.fsencode(docs) + b"/a\xff.txt")).write_text("x")
    except OSError:
        pytest.skip("this file system does not allow such names")
    (docs / "b.txt").write_text("y")
    table = world.run(world.pipeline(dataset={"files": "docs"}, params=params("{{ name }}")))
    assert list(table["result_type"]) == ["rejected", "succeeded"]
    assert table["error_type"][0] == "invalid_unicode"


def test_contents_are_read_in_slices_bounded_by_bytes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document_files, "_BYTES_AT_ONCE", 2 * len(PDF))
    for number in range(4):
        (folder / "docs" / f"y{number}.pdf").write_bytes(PDF)
    dataset = Dataset(make_pipeline(folder, {"files": "docs/*.pdf"}))
    assert [len(rows.table) for rows in dataset.rows(["path", "bytes"])] == [2, 2, 1]
    assert [len(rows.table) for rows in dataset.rows(["path"])] == [5]


_READING = """
import re, sys
from pathlib import Path
from batch_assets.core.pipeline.load import load_pipeline
from batch_assets.core.dataset.dataset import Dataset
message = {"role": "user", "content": "{{ path }}"}
params = {"model": "m", "max_tokens": 1, "messages": [message]}
pipeline = load_pipeline({"name": "p", "dataset": {"files": "docs"}, "params": params}, folder=Path(sys.argv[1]))
def peak() -> int:
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
dataset = Dataset(pipeline)
before = peak()
size = sum(len(row) for rows in dataset.rows(["bytes"]) for row in rows.table.column(0).to_pylist())
print(size, (peak() - before) // 1024)
"""


def test_memory_depends_on_a_slice_not_on_the_folder(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    for number in range(40):
        with (tmp_path / "docs" / f"{number}.bin").open("wb") as file:
            file.truncate(5_000_000)
    command: list[Any] = [sys.executable, "-c", _READING, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    size, growth = map(int, done.stdout.split())
    assert size == 200_000_000
    assert growth < 120
