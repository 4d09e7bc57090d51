"""Quotes in CSV that do not mean what they look like: no row is lost or changed without a word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from batch_assets.core.dataset import csv_guard
from batch_assets.core.errors import ConfigError, DatasetError

from ..support import make_pipeline, read

NONE = r"dataset\.csv: \{quote: none\}"
ESCAPE = r'dataset\.csv: \{escape: "\\\\"\}'
_SINGLE_QUOTES = '1\t"Single quotes\n2\tno quotes\n3\tSingle quotes"\n4\tend\n'


def _read(folder: Path, name: str, content: str, **csv: Any) -> list[dict[str, Any]]:
    (folder / name).write_bytes(content.encode())
    rows: list[dict[str, Any]] = read(folder, {"path": name, "csv": csv} if csv else name).to_pylist()
    return [{key: value for key, value in row.items() if key != "row_number"} for row in rows]


@pytest.mark.parametrize("block_bytes", [1, 1 << 20])
@pytest.mark.parametrize(
    ("content", "line"),
    [
        ('k,v\n1,"20" wide"\n', 2),
        ('k,v\n0,x\n1,"a" ,b\n', 3),
        ('k,v\n1,"<html id=\\"html-div\\">"\n', 2),
        ('k,v\n1,"ends with \\""\n2,"x"\n', 3),  # "" is a quote, so the field goes on to the next line
        ('k,v\n1,"say ""hi"""\n\n2,"x\ny"z\n', 5),
        ('"k"a,v\n1,2\n', 1),
        ("k,v\n" + '1,"x"\n' * 50_000 + '2,"x"y\n', 50_002),
    ],
)
def test_text_after_a_closing_quote_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, line: int, block_bytes: int
) -> None:
    if len(content) < 1000:
        monkeypatch.setattr(csv_guard, "_BLOCK_BYTES", block_bytes)
    problem = rf"a\.csv, line {line}: text follows the closing quote of a field: .*"
    with pytest.raises(DatasetError, match=problem + NONE):
        _read(tmp_path, "a.csv", content)
    with pytest.raises(DatasetError, match=problem + ESCAPE):
        _read(tmp_path, "a.csv", content)


def test_the_remedies_of_text_after_a_closing_quote_help(tmp_path: Path) -> None:
    assert _read(tmp_path, "a.csv", 'k,v\n1,"20" wide"\n', quote="none") == [{"k": 1, "v": '"20" wide"'}]
    rows = _read(tmp_path, "a.csv", 'k,v\n1,"<html id=\\"html-div\\">"\n', escape="\\")
    assert rows == [{"k": 1, "v": '<html id="html-div">'}]


@pytest.mark.parametrize(
    "content", [_SINGLE_QUOTES, f"key\ttext\n{_SINGLE_QUOTES}", f"key\ttext\n0\tx\n{_SINGLE_QUOTES}"]
)
def test_a_quoted_field_that_swallows_rows_is_an_error(tmp_path: Path, content: str) -> None:
    header = {} if content.startswith("key") else {"header": ["key", "text"]}
    first = content.splitlines().index('1\t"Single quotes') + 1
    problem = (
        rf"a\.tsv, line {first}: the quoted field that opens here ends in line {first + 2}, and lines {first} "
        rf"to {first + 2} look like rows of their own\. .*{NONE}; .*dataset\.csv: \{{rows_in_quotes: true\}}"
    )
    with pytest.raises(DatasetError, match=problem):
        _read(tmp_path, "a.tsv", content, **header)
    rows = _read(tmp_path, "a.tsv", content, quote="none", **header)
    assert [row["text"] for row in rows][-4:] == ['"Single quotes', "no quotes", 'Single quotes"', "end"]
    rows = _read(tmp_path, "a.tsv", content, rows_in_quotes=True, **header)
    assert [row["text"] for row in rows][-2:] == ["Single quotes\n2\tno quotes\n3\tSingle quotes", "end"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.tsv", 'k\tv\n1\t"x\n2\ty"\n'),
        ("a.csv", 'k,v\n1,"x\n2,y\n3,z"\n'),
        ("a.csv", 'k,v,w\n1,"x",y\n2,"x,y\n3,z,w\n4,z",w\n'),
        ("a.csv", 'k,v\r\n1,"x\r\n2,y\r\n3,z"\r\n'),
        ("a.tsv", 'k\tv\r1\t"x\r2\ty\r3\tz"\r4\tw\r'),
        ("a.csv", 'k,v,w\r1,x,"a\r2,y,b\r3,z,c"\r4,w,d\r'),
        ("a.csv", 'a,b,c,d,e,f,g,h,i,v\n1,x,x,x,x,x,x,x,x,"abc\n2,y,y,y,y,y,y,y,y,def"\n'),
        ("a.csv", 'a,b,c,v\none,x,x,"abc\ntwo,y,y,def"\n'),
        ("a.csv", 'k,v\n1,"abc\n2,def"\n'),
        ("a.csv", 'k,v\nA-1,"abc\nB-20,def"\n'),
        ("a.csv", 'k,v\n2024-01-02 03:04,"abc\n2024-01-02 03:05,def"\n'),
        ("a.csv", 'k,v\n1,"a\n2,b\n3, c\n4,d\n5,e\n6,f\n7,q"\n8,w\n'),
        ("a.csv", 'k,v\n1,"a\n2,b\n\n3,c\n4,q"\n6,w\n'),
        ("a.csv", 'k,v\r\n1,"a\r\n2,b\r\n\r\n3,c"\r\n6,w\r\n'),
        ("a.csv", 'k,v,w\n1,x,"a\n2,y,b\n3,z,b,ar"\n4,w,v\n'),
        ("a.tsv", 'k\tv\n1\t"x\n\n2\ty"\n'),
    ],
)
def test_swallowed_rows_are_found_in_every_format(tmp_path: Path, name: str, content: str) -> None:
    with pytest.raises(DatasetError, match="look like rows of their own"):
        _read(tmp_path, name, content)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("a.csv", "Dear Sir,\nthank you, Bob\nYours, Eve"),
        ("a.csv", "12 Main St\nSpringfield,NY"),
        ("a.csv", "one\ntwo\nthree"),
        ("a.csv", "a,b,c\nd,e,f\ng,h,i"),
        ("a.csv", "Bob\n12 Main St\nSpringfield,NY"),
        ("a.csv", "Bob\n12, Main St"),
        ("a.csv", "The price is\n12,500 dollars"),
        ("a.csv", "Buy:\n1. tea, milk\n2. eggs, ham\n3. jam,butter"),
        ("a.csv", "Hello\n\nYes,no\n\nwell,ok"),
        ("a.csv", "def f(a):\n    return g(a, 1)\nf(2),f(3)"),
        ("a.csv", "1,2\n3,4"),
        ("a.csv", "x\n2,y\nthe end"),
        ("a.tsv", "no tab\nat all"),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_ordinary_text_of_several_lines_is_read(tmp_path: Path, name: str, value: str, end: str) -> None:
    tab, value = "\t" if name.endswith("tsv") else ",", value.replace("\n", end)
    rows = _read(tmp_path, name, f'k{tab}v{end}1{tab}"{value}"{end}2{tab}x{end}')
    assert rows == [{"k": 1, "v": value}, {"k": 2, "v": "x"}]


def test_a_single_column_has_no_rows_to_swallow(tmp_path: Path) -> None:
    assert _read(tmp_path, "a.csv", 'v\n"x\ny\nz"\n') == [{"v": "x\ny\nz"}]


def test_leading_lines_are_skipped_and_counted(tmp_path: Path) -> None:
    content = 'Report of "May\r\n\r\nk,v\r\n1,x\r\n'
    assert _read(tmp_path, "a.csv", content, skip=2) == [{"k": 1, "v": "x"}]
    assert _read(tmp_path, "a.csv", content, skip=3, header=["a", "b"]) == [{"a": 1, "b": "x"}]
    with pytest.raises(DatasetError, match=r"a\.csv, line 5: 1 fields where the header has 2: '2'"):
        _read(tmp_path, "a.csv", f"{content}2\n", skip=2)
    assert read(tmp_path, {"path": "a.csv", "csv": {"skip": 5}, "key": "text"}).num_rows == 0


@pytest.mark.parametrize("header", ["a,,", "a,b,b", '"a",,""'])
def test_a_header_with_empty_or_equal_names_can_be_renamed(tmp_path: Path, header: str) -> None:
    content = f"{header}\n1,2,3\n"
    with pytest.raises(DatasetError, match=r"the header names '.*' twice.*dataset\.csv\.names"):
        _read(tmp_path, "a.csv", content)
    assert _read(tmp_path, "a.csv", content, names=["x", "y", "z"]) == [{"x": 1, "y": 2, "z": 3}]
    assert _read(tmp_path, "a.csv", header, names=["x", "y", "z"]) == []
    with pytest.raises(
        DatasetError, match=r"a\.csv: dataset\.csv\.names has 2 names, but the header has 3 columns"
    ):
        _read(tmp_path, "a.csv", content, names=["x", "y"])


@pytest.mark.parametrize(
    "csv", [{"names": ["a", "a"]}, {"names": []}, {"skip": -1}, {"names": ["a"], "header": ["a"]}]
)
def test_csv_options_that_make_no_sense_are_refused(tmp_path: Path, csv: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"dataset\.csv"):
        make_pipeline(tmp_path, {"path": "a.csv", "csv": csv})


@pytest.mark.parametrize("first", ["sep=;\n", "SEP=;\r\n", '"sep=;"\n', "\ufeffsep=;\n"])
def test_a_first_line_that_names_the_delimiter_is_used(tmp_path: Path, first: str) -> None:
    assert _read(tmp_path, "a.csv", f"{first}k;v\n1;x,y\n") == [{"k": 1, "v": "x,y"}]
    assert _read(tmp_path, "a.csv", f"{first}k|v\n1|x;y\n", delimiter="|") == [{"k": 1, "v": "x;y"}]
    with pytest.raises(DatasetError, match="line 3: 1 fields"):
        _read(tmp_path, "a.csv", f"{first}k;v\n1\n")


@pytest.mark.parametrize("swallowed", ["", "x,y\n" * 700_000])
def test_an_unclosed_quote_in_the_header_is_an_error(tmp_path: Path, swallowed: str) -> None:
    with pytest.raises(DatasetError, match=r"a\.csv, line 1: the quote that opens here is never closed"):
        _read(tmp_path, "a.csv", f'k,"v\n{swallowed}')
    with pytest.raises(DatasetError, match=r"a\.csv, line \d+: the quote that opens here is never closed"):
        _read(tmp_path, "a.csv", f'k,v\n{swallowed}1,"v')
