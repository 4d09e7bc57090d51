"""Bounds on what is read: a hostile or broken file ends with file and place, in seconds and in bounded memory."""

from __future__ import annotations

import gzip
import io
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from time import process_time

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch_assets.core.dataset import csv_opening, data_file, lines
from batch_assets.core.dataset.bounds import COLUMNS
from batch_assets.core.dataset.csv_checks import GuardOptions
from batch_assets.core.dataset.csv_dialect import Dialect
from batch_assets.core.dataset.csv_guard import CsvGuard
from batch_assets.core.dataset.data_file import DataFile
from batch_assets.core.dataset.dataset import Dataset
from batch_assets.core.errors import DatasetError

from ..support import make_pipeline, read

_MEGABYTE = b"x" * 1_000_000
# Opens the dataset, then prints the error and the peak of the memory in MB above that of the start.
_MEASURED = """
import resource, sys
from pathlib import Path
from batch_assets.core.dataset.data_file import DataFile
from batch_assets.core.dataset.dataset import Dataset
from batch_assets.core.errors import DatasetError
from batch_assets.core.pipeline.load import load_pipeline

fields = {
    "name": "asked",
    "dataset": {"path": sys.argv[2], "key": "k"},
    "params": {"model": "claude-haiku-5-5", "max_tokens": 9, "messages": [{"role": "user", "content": "{{ k }}"}]},
}
pipeline = load_pipeline(fields, folder=Path(sys.argv[1]), source="asked/defs.yaml")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    dataset = Dataset(pipeline)
    rows = sum(len(rows.table) for rows in dataset.rows(sys.argv[3:] or dataset.schema.names))
    print(f"{rows} rows")
except DatasetError as error:
    print(error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def _long_line(head: bytes, megabytes: int, tail: bytes, *, compressed: bool) -> Iterator[bytes]:
    pack = gzip.compress if compressed else bytes
    member = pack(_MEGABYTE)
    yield pack(head)
    for _ in range(megabytes):
        yield member
    yield pack(tail)


@pytest.mark.parametrize(
    ("name", "head", "megabytes", "tail", "line"),
    [
        ("a.csv.gz", b"k,v\n1,", 3000, b"\n", 2),
        ("b.csv.gz", b'k,v\n1,"', 3000, b'"\n', 2),
        ("a.jsonl.gz", b'{"k":1}\n{"k":"', 3000, b'"}\n', 2),
        ("c.csv", b'k,v\n1,"', 300, b'"\n', 2),
    ],
)
def test_a_line_without_end_is_refused_in_seconds_and_bounded_memory(
    tmp_path: Path, name: str, head: bytes, megabytes: int, tail: bytes, line: int
) -> None:
    with (tmp_path / name).open("wb") as file:
        file.writelines(_long_line(head, megabytes, tail, compressed=name.endswith("gz")))
    text, peak = _measured(tmp_path, name, "k")
    assert f"dataset.path: {tmp_path}/{name}, line {line}: the line is longer than 256 MB" in text
    assert peak < 600


def _measured(folder: Path, name: str, *columns: str) -> tuple[str, int]:
    """Read a file in a process of its own. Returns what it prints, and the peak of its memory in MB."""
    command = [sys.executable, "-c", _MEASURED, str(folder), name, *columns]
    text, peak = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=60
    ).stdout.splitlines()
    return text, int(peak)


def test_lines_with_keys_of_their_own_take_seconds_and_little_memory(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"k":1}\n' + "".join(f'{{"k{number}":1}}\n' for number in range(4000)))
    text, peak = _measured(tmp_path, "a.jsonl")
    assert text == "4001 rows"
    assert peak < 120


def test_the_line_with_one_column_too_many_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("".join(f'{{"k{number}":1}}\n' for number in range(COLUMNS + 2000)))
    with pytest.raises(DatasetError, match=r"a\.jsonl, line 10001: 10,001 columns; a dataset may have 10,000"):
        read(tmp_path, "a.jsonl")


def _seconds(rows: int) -> float:
    """Return the time to check a file in which every second line has a quote that swallows the next."""
    content = io.BytesIO(b"id,t\n" + b'1,"a\n2,b"\n' * rows)
    before = process_time()
    guard = CsvGuard(content, Dialect(b",", b'"', b""), GuardOptions(name="a.csv", encoding="utf-8", rejects=True))
    while guard.read(1 << 20):
        pass
    assert len(guard.rejected) == rows
    assert guard.rejected[2 * rows - 2][1].startswith(f"a.csv, line {2 * rows}: the quoted field that opens here")
    return process_time() - before


def test_the_time_for_broken_quotes_grows_with_the_file() -> None:
    assert _seconds(40_000) < 16 * _seconds(5_000)  # 8 times as many; with the square it was 30


def test_rows_of_many_columns_are_joined_and_keep_their_order(tmp_path: Path) -> None:
    names, values = ",".join(f"c{number}" for number in range(2000)), ",".join(["1"] * 1998)
    rows = "".join(f"{number},{'x' if number == 900 else 2},{values}\n" for number in range(1000))
    (tmp_path / "a.csv").write_text(f"{names}\n{rows}")
    table = read(tmp_path, "a.csv")
    assert table["c0"].to_pylist() == list(range(1000))
    assert table["c1"].to_pylist() == ["x" if number == 900 else "2" for number in range(1000)]


@pytest.mark.parametrize("name", ["a.csv.gz", "a.jsonl.gz"])
def test_a_file_that_unpacks_to_far_more_than_its_size_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(data_file, "FREE_BYTES", 5_000_000)
    text = b"x" * 1000
    row = text + b"\n" if ".csv" in name else b'{"k":"' + text + b'"}\n'
    content = row * (6_000_000 // len(row))
    (tmp_path / name).write_bytes(gzip.compress(content))
    with pytest.raises(
        DatasetError, match=rf"{name}: the file unpacks to more than 200 times its size, .* decompress"
    ):
        read(tmp_path, name)
    monkeypatch.setattr(data_file, "FREE_BYTES", 7_000_000)
    assert read(tmp_path, name).num_rows >= 6_000_000 // len(row) - 1


def _wide(folder: Path, name: str, count: int) -> str:
    names = [f"c{number}" for number in range(count)]
    path = folder / name
    if name.endswith(".csv"):
        path.write_text(",".join(names) + "\n" + ",".join("1" for _ in names) + "\n")
    elif name.endswith(".jsonl"):
        path.write_text("{" + ",".join(f'"{column}":1' for column in names) + "}\n")
    else:
        pq.write_table(pa.table([pa.array([1])] * count, names=names), path)
    return name


@pytest.mark.parametrize(
    ("name", "where"),
    [("a.csv", r"a\.csv, line 1"), ("a.jsonl", r"a\.jsonl, line 1"), ("a.parquet", r"a\.parquet")],
)
def test_too_many_columns_are_refused_and_the_most_are_read(tmp_path: Path, name: str, where: str) -> None:
    count = 100_000 if name != "a.parquet" else COLUMNS + 1
    with pytest.raises(DatasetError, match=rf"{where}: {count:,} columns; a dataset may have 10,000"):
        read(tmp_path, _wide(tmp_path, name, count))
    assert len(Dataset(make_pipeline(tmp_path, _wide(tmp_path, name, COLUMNS))).schema.names) == COLUMNS


def test_a_row_with_100000_fields_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a,b\n1,2\n" + ",".join(["1"] * 100_000) + "\n")
    with pytest.raises(DatasetError, match=r"a\.csv, line 3: 100000 fields where the header has 2"):
        read(tmp_path, "a.csv")


@pytest.mark.parametrize("bad_rows", ["refuse", "reject"])
@pytest.mark.parametrize(
    ("field", "count"), [("", "10000001"), ('"a"', "more than 10,000")], ids=["plain", "quoted"]
)
def test_a_row_of_10_million_fields_is_named_in_seconds(
    tmp_path: Path, field: str, count: str, bad_rows: str
) -> None:
    """It took a minute, because all fields were taken apart, and several times."""
    (tmp_path / "a.csv").write_text("a,b\n1,2\n" + f"{field}," * 10_000_000 + "\n3,4\n")
    before = process_time()
    if bad_rows == "refuse":
        with pytest.raises(DatasetError, match=rf"a\.csv, line 3: {count} fields where the header has 2"):
            read(tmp_path, "a.csv")
    else:
        rows = read(tmp_path, {"path": "a.csv", "bad_rows": bad_rows})
        assert rows["a"].to_pylist() == [1, None, 3]
    assert process_time() - before < 20


@pytest.mark.parametrize("quoted", ['"x\ny,z\nw"', '"x\r\n""y"",z\r\n",a'], ids=ascii)
@pytest.mark.parametrize("place", ["first", "last"])
def test_line_breaks_in_quotes_do_not_end_a_row_with_too_many_fields(
    tmp_path: Path, quoted: str, place: str
) -> None:
    """The lines in its quotes became rows."""
    commas = "," * (COLUMNS + 500)
    record = quoted + commas if place == "first" else commas + quoted
    (tmp_path / "a.csv").write_bytes(f"a,b\n1,2\n{record}\n5,6\n".encode())
    rows = read(tmp_path, {"path": "a.csv", "bad_rows": "reject"})
    assert rows["a"].to_pylist() == [1, None, 5]


def test_too_many_columns_of_an_asset_are_refused(tmp_path: Path) -> None:
    frame = pd.DataFrame([[1] * (COLUMNS + 1)], columns=[f"c{number}" for number in range(COLUMNS + 1)])
    with pytest.raises(
        DatasetError, match=r"dataset\.asset: the asset wide: 10,001 columns; a dataset may have 10,000"
    ):
        Dataset(make_pipeline(tmp_path, {"path": None, "asset": "wide"}), frame)


def test_a_long_line_before_the_header_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_opening, "LINE_BYTES", 100_000)
    (tmp_path / "a.csv").write_text("x" * 300_000 + "\nk\n1\n")
    with pytest.raises(DatasetError, match=r"a\.csv, line 1: the line is longer than"):
        read(tmp_path, {"path": "a.csv", "csv": {"skip": 1}})


def test_lines_are_split_alike_whatever_the_blocks(tmp_path: Path) -> None:
    content = b"\xef\xbb\xbfone\n\ntwo" + b"x" * 50 + b"\nthree"
    (tmp_path / "a").write_bytes(content)
    expected = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    for size in (3, 4, 7, 64):
        found: list[bytes] = []
        with (tmp_path / "a").open("rb") as file:
            for number, part in lines.line_blocks(file, DataFile(None, "a"), size):
                found += [b""] * (number - len(found) - 1)  # blank lines may be left out
                found += part
        assert found == expected


@pytest.mark.parametrize("blank", [b"\n", b" \t\r\n", b"\r\n\n "])
@pytest.mark.parametrize("count", [1, 9, 500])
def test_blank_lines_are_counted_and_not_split(tmp_path: Path, blank: bytes, count: int) -> None:
    content = blank * count + b"\n one" + (b"\n" + blank * count + b"two\nthree\n") * 3 + blank * count
    (tmp_path / "a").write_bytes(content)
    expected = [(number, line.strip()) for number, line in enumerate(content.split(b"\n"), 1) if line.strip()]
    for size in (1, 3, 64, 4096, 1 << 20):
        with (tmp_path / "a").open("rb") as file:
            blocks = list(lines.line_blocks(file, DataFile(None, "a"), size))
        found = [(number + at, line.strip()) for number, part in blocks for at, line in enumerate(part)]
        assert [line for line in found if line[1]] == expected
        if size == 64 and count == 500:  # next to none of 2,500 and more
            assert len(found) < 50


@pytest.mark.parametrize("depth", [500, 5_000, 100_000])
@pytest.mark.parametrize(("opens", "closes"), [("[", "]"), ('{"k":', "}")])
def test_a_line_nested_too_deep_is_named(tmp_path: Path, depth: int, opens: str, closes: str) -> None:
    inner = "1" if closes == "}" else ""
    (tmp_path / "a.jsonl").write_text('{"k":1}\n{"k":' + opens * depth + inner + closes * depth + "}\n")
    with pytest.raises(DatasetError, match=r"a\.jsonl, line 2: it is nested more than 200 levels deep"):
        read(tmp_path, "a.jsonl")


def test_brackets_in_text_are_not_levels(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"k":"' + "[{" * 500 + '"}\n')
    assert read(tmp_path, "a.jsonl")["k"].to_pylist() == ["[{" * 500]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-16"])
def test_json_lines_in_utf_16_are_recognized(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.jsonl").write_bytes('{"k":"x"}\n'.encode(encoding))
    with pytest.raises(DatasetError, match=rf"a\.jsonl, line 1: the file is {encoding.upper()}, but .* iconv -f"):
        read(tmp_path, "a.jsonl")


def test_the_checksums_of_parquet_pages_are_verified(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pa.table({"k": pa.array(range(1000), pa.int64())})
    pq.write_table(table, path, compression="none", use_dictionary=False, write_page_checksum=True)
    content = bytearray(path.read_bytes())
    position = content.index((500).to_bytes(8, "little"))
    content[position] ^= 1
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=r"a\.parquet: not a readable Parquet file: .*(CRC|checksum)"):
        read(tmp_path, "a.parquet")
