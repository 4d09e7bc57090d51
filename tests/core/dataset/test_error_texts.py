"""What a dataset is refused for comes with advice that applies to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch_assets.core.dataset.dataset import Dataset
from batch_assets.core.errors import DatasetError

from ..support import make_pipeline


def _refusal(folder: Path, path: str, **more: Any) -> str:
    with pytest.raises(DatasetError) as caught:
        for _ in Dataset(make_pipeline(folder, {"path": path, **more})).rows(["row_number"]):
            pass
    return str(caught.value)


@pytest.mark.parametrize(
    ("content", "options", "advice", "absent"),
    [
        (b'a,b\n1,"x\\"y"\n', {}, '{escape: "\\\\"}; if quotes are ordinary', None),
        (b'a,b\n1,"x\\""y"\n', {"escape": "\\"}, "{quote: none}", "escapes quotes"),
        (b"a;b\n1,5;2\n", {}, "name it in dataset.csv.delimiter", "quotes"),
        (b"a,b\n1,x, y\n", {}, "the delimiter in it and no quotes around it?", None),
        (b"a,b\n1,x, y\n", {"quote": "none"}, "the delimiter in it?", "quotes"),
        (b"a,b\n1\n", {}, "1 fields where the header has 2: '1'", "delimiter"),
        (b"a,a\n1,2\n", {}, "the header names 'a' twice: every column needs its own name, or name the columns in "
         "dataset.csv.names", None),
    ],
)  # fmt: skip
def test_csv(tmp_path: Path, content: bytes, options: dict[str, Any], advice: str, absent: str | None) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    text = _refusal(tmp_path, "a.csv", csv=options or None)
    assert advice in text
    assert absent is None or absent not in text.split("a.csv, line")[-1]


def test_parquet_has_no_header(tmp_path: Path) -> None:
    for name, column in {"a": "x", "b": "y"}.items():
        pq.write_table(pa.table({column: [1]}), tmp_path / f"{name}.parquet")
    assert "has other columns than" in (text := _refusal(tmp_path, "*.parquet"))
    assert "header" not in text.split("a.parquet")[-1]
    pq.write_table(pa.table([pa.array([1]), pa.array([2])], names=["a", "a"]), tmp_path / "a.parquet")
    assert "a.parquet: the schema names 'a' twice" in _refusal(tmp_path, "a.parquet")


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("nothing://bucket/a.csv", "nothing://bucket/a.csv cannot be opened: Protocol not known"),
        ("zip://a.csv::gone.zip", "zip://a.csv::gone.zip cannot be opened: "),
    ],
)
def test_a_url_that_cannot_be_opened(tmp_path: Path, path: str, problem: str) -> None:
    assert problem in _refusal(tmp_path, path)


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.csv").write_text("a\n1\n")

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("fsspec.implementations.local.LocalFileSystem.open", refuse)
    assert "a.csv cannot be read: Permission denied" in _refusal(tmp_path, "a.csv")
