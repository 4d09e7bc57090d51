"""CSV dialects, compressed files, and errors that name the line."""

from __future__ import annotations

import bz2
import gzip
import io
import random
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.csv
import pytest

from batch_assets.core.dataset import csv_guard, csv_reader
from batch_assets.core.dataset.csv_checks import GuardOptions
from batch_assets.core.dataset.csv_dialect import Dialect
from batch_assets.core.dataset.csv_escapes import LiteralEscapes
from batch_assets.core.dataset.csv_guard import CsvGuard
from batch_assets.core.dataset.wide_encodings import wide_encoding
from batch_assets.core.errors import DatasetError

from ..support import World, read


def _read(folder: Path, name: str, **csv: Any) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = read(folder, {"path": name, "csv": csv} if csv else name).to_pylist()
    return [{key: value for key, value in row.items() if key != "row_number"} for row in rows]


@pytest.mark.parametrize(
    ("content", "options", "rows"),
    [
        ("a;b\n1;x,y\n", {"delimiter": ";"}, [{"a": 1, "b": "x,y"}]),
        ("a\tb\n1\tx\n", {"delimiter": "\t"}, [{"a": 1, "b": "x"}]),
        ("a\tb\n1\tx\n", {"delimiter": "\\t"}, [{"a": 1, "b": "x"}]),
        ("a,b\n1,'x,''y'\n", {"quote": "'"}, [{"a": 1, "b": "x,'y"}]),
        ('a,b\n1,"x"\n2,"y\n', {"quote": "none"}, [{"a": 1, "b": '"x"'}, {"a": 2, "b": '"y'}]),
        ('a,b\n1,"x"\n', {"quote": None}, [{"a": 1, "b": '"x"'}]),
        ('a,b\n1,"x\\"\ny"\n2,u\\,v\n', {"escape": "\\"}, [{"a": 1, "b": 'x"\ny'}, {"a": 2, "b": "u,v"}]),
        (
            'a,b\n1,"C:\\new\\table \\"q\\" \\\\"\n2,C:\\x\\,y\n',
            {"escape": "\\"},
            [{"a": 1, "b": 'C:\\new\\table "q" \\'}, {"a": 2, "b": "C:\\x,y"}],
        ),
        ("sep=;\n1;x\n", {"header": ["n", "t"], "delimiter": ";"}, [{"n": 1, "t": "x"}]),
        ("sep=;\n1;x\n", {"header": ["n", "t"]}, [{"n": 1, "t": "x"}]),
        ("1,x\n2,y\n", {"header": ["n", "t"]}, [{"n": 1, "t": "x"}, {"n": 2, "t": "y"}]),
        ("1,x", {"header": ["n", "t"]}, [{"n": 1, "t": "x"}]),
        ("", {"header": ["n", "t"]}, []),
    ],
)
def test_csv_options_of_the_pipeline_are_used(
    tmp_path: Path, content: str, options: dict[str, Any], rows: list[dict[str, Any]]
) -> None:
    (tmp_path / "a.csv").write_text(content)
    assert _read(tmp_path, "a.csv", **options) == rows


ROWS = {
    "Latin": "id,text\n1,plain words\n2,more of them\n",
    "Gurmukhi": "id,text\n1,ਸਤਿ ਸ੍ਰੀ ਅਕਾਲ\n2,ਊਊਊਊਊਊਊਊ\n",
    "Devanagari": "क्रम,पाठ\n1,नमस्ते दुनिया\n2,धन्यवाद\n",
    "Chinese": "编号,文本\n甲,你好世界\n乙,谢谢你们\n",
}


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("script", ROWS)
def test_utf_16_without_a_byte_order_mark_is_recognized(script: str, encoding: str) -> None:
    assert wide_encoding(ROWS[script].encode(encoding)) == encoding


@pytest.mark.parametrize(
    "content",
    [
        b'id,text\r\n"a",one\r\n"b",two\r\n\0,"x\0y"\r\n',
        b'id,text\r\na,\x96\xed\xb0\x80\r\n"\0","\xff\0\xfe"\r\n',
        b"id\ttext\n1\tone\0\0two\n2\tx\n\0\t3\n",
        b'{"id": 1, "text": "a"}\n\0{"id": 2, "text": "\0"}\n',
    ],
)
@pytest.mark.parametrize("padding", [b"", b" "], ids=["even", "odd"])
def test_a_few_null_characters_do_not_make_utf_8_utf_16(content: bytes, padding: bytes) -> None:
    assert wide_encoding(padding + content) is None


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16", "utf-16-be", "shift_jis", "utf-8-sig"])
def test_other_encodings_give_the_same_text(
    tmp_path: Path, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_reader, "BLOCK_BYTES", 4096)  # many characters are split between two blocks
    words = ["naïve", "Ärger", "€ 5"] if encoding == "cp1252" else ["naïve", "Ärger"]
    words = ["日本語", "カナ"] if encoding == "shift_jis" else words
    texts = [f"{words[n % len(words)]} {n}" for n in range(3000)]
    content = "größe,text\n" if encoding != "shift_jis" else "größe,text\n".replace("ö", "o").replace("ß", "s")
    content += "".join(f"{n},{text}\n" for n, text in enumerate(texts))
    (tmp_path / "a.csv").write_bytes(content.encode(encoding))
    rows = _read(tmp_path, "a.csv", encoding=encoding)
    assert [row["text"] for row in rows] == texts
    assert next(iter(rows[0])) == content.split(",")[0]


@pytest.mark.parametrize(
    ("content", "options", "problem"),
    [
        (b"a,b\n1,2\n1,2,3\n", {}, "a.csv, line 3: 3 fields where the header has 2: '1,2,3'"),
        (b'a,b\r\n\r\n1,"x\r\ny"\r\n\r\n1\r\n', {}, "a.csv, line 6: 1 fields where the header has 2: '1'"),
        (b"a,b\r1,2\r3", {}, "a.csv, line 3: 1 fields"),
        (b"1,2\n1,2,3\n", {"header": ["x", "y"]}, "line 2: 3 fields where dataset.csv.header has 2"),
        (b"1,2\n", {"header": ["x"]}, "line 1: 2 fields where dataset.csv.header has 1"),
        (b"a;b\n1;'2;3\n4;5\n", {"delimiter": ";", "quote": "'"}, "line 2: the quote that opens here is never"),
        (b"a,b\n1,2\n" + b"x" * 500 + b"\n", {}, "line 3: 1 fields where the header has 2: 'x{79}…'"),
        (b'\xef\xbb\xbf"a",b\n1,2,3\n', {}, "line 2: 3 fields"),
        (b"a,b\n1,\\,\n1,\\\\,2\n", {"escape": "\\"}, "line 3: 3 fields"),
        (
            "a,b\n1,ä\n2,€\n".encode(),
            {"encoding": "ascii"},
            "line 2: not ascii, the encoding in dataset.csv.encoding: the",
        ),
        (b"a,b\n1,x\n2,\x81\n", {"encoding": "cp1252"}, "line 3: not cp1252, .*the bytes 81 after '2,'"),
        ("a,b\n1,x\n".encode("utf-16")[:-1], {"encoding": "utf-16"}, "line 2: not utf-16"),
        ("a,b\nä,x\n".encode("utf-16"), {}, r"line 1: the file is UTF-16; .*dataset.csv: \{encoding: utf-16\}"),
        ("a,b\nä,x\n".encode("utf-16-le"), {}, r"line 1: the file is UTF-16-LE; .*\{encoding: utf-16-le\}"),
        ("日,b\nä,x\n".encode("utf-16-be"), {}, r"line 1: the file is UTF-16-BE; .*\{encoding: utf-16-be\}"),
        ("a,b\n1,x".encode("utf-16"), {}, r"the header is not valid UTF-8: .*dataset.csv: \{encoding: utf-16\}"),
        (
            "ä,b\n1,x\n".encode("latin-1"),
            {},
            r"the header is not valid UTF-8: .*dataset.csv: \{encoding: latin-1\}$",
        ),
        (gzip.compress(b"a\n1\n", mtime=0), {}, r"a.csv: .* compressed with gzip; let the name end in \.csv\.gz"),
        (b"PK\x03\x04\x14\0\x06\0", {}, r"a.csv: the content is a ZIP archive or an Excel workbook \(\.xlsx\)"),
        (b"a,b\n1,2\n\n", {"skip": 100}, "a.csv: dataset.csv.skip is 100, but the file has only 3 lines"),
    ],
)
def test_an_error_names_the_file_and_line_that_does_not_fit(
    tmp_path: Path, content: bytes, options: dict[str, Any], problem: str
) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(DatasetError, match=r"asked/defs.yaml: dataset.path: .*" + problem):
        _read(tmp_path, "a.csv", **options)


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
@pytest.mark.parametrize("swallowed", ["", "x", "x\nz,y", "x" * 70_000, 'say ""x""', "x\n" * 40_000])
def test_an_unclosed_quote_is_an_error_and_swallows_no_rows(tmp_path: Path, swallowed: str, end: str) -> None:
    (tmp_path / "a.csv").write_bytes(f'a,b\n1,x\n2,"{swallowed}{end}'.encode())
    with pytest.raises(DatasetError, match=r"a\.csv, line 3: the quote that opens here is never closed"):
        _read(tmp_path, "a.csv")
    (tmp_path / "a.csv").write_bytes(f'a,b\n1,x\n2,"{swallowed}"{end}'.encode())
    assert _read(tmp_path, "a.csv")[-1] == {"a": 2, "b": swallowed.replace('""', '"')}


@pytest.mark.parametrize("content", ['a,b\n1,5"', 'a,b\n1,x" y\n', 'a,b\n1,"x\n"\n', "a,b\n1,x", 'a,b\n1,"x""\n"'])
def test_a_complete_last_row_is_accepted(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.csv").write_text(content)
    assert len(_read(tmp_path, "a.csv")) == 1


def test_an_error_names_the_line_of_a_bad_row_after_the_first_block(tmp_path: Path) -> None:
    rows = "".join(f'{n},"two\nlines, {"x" * 100}"\n' for n in range(10_000))
    assert len(rows) > csv_reader.BLOCK_BYTES
    (tmp_path / "a.csv").write_text(f"a,b\n{rows}1,2,3\n")
    with pytest.raises(DatasetError, match=r"a\.csv, line 20002: 3 fields"):
        _read(tmp_path, "a.csv")


@pytest.mark.parametrize("size", [1, 2, 3, 100])
@pytest.mark.parametrize(
    ("content", "literal"),
    [
        (rb"a\nb", rb"a\\nb"),
        (rb"\\n\"\,", rb"\\n\"\,"),
        (b"\\\\\\n\\\\\\", b"\\\\\\\\n\\\\\\\\"),
        (b"\\\n\\\r", b"\\\n\\\r"),
        (b"plain", b"plain"),
        (b"", b""),
    ],
)
def test_an_escape_before_ordinary_text_is_doubled_in_blocks_of_any_size(
    content: bytes, literal: bytes, size: int
) -> None:
    dialect = Dialect(b",", b'"', b"\\")
    assert LiteralEscapes(io.BytesIO(content), dialect).read() == literal
    file = LiteralEscapes(io.BytesIO(content), dialect)
    blocks = list(iter(lambda: file.read(size), b""))
    assert b"".join(blocks) == literal
    assert all(len(block) == size for block in blocks[:-1])


def _guarded(content: bytes, escape: bytes = b"", **options: Any) -> CsvGuard:
    return CsvGuard(io.BytesIO(content), Dialect(b",", b'"', escape), GuardOptions("a.csv", "utf-8", **options))


def _problem(content: bytes, escape: bytes = b"", *, is_exact: bool) -> str | None:
    try:
        guard = _guarded(content, escape, is_exact=is_exact, allows_rows_in_quotes=True)
        end = b"" if content.endswith(b"\n") else guard.dialect.last_break(content)
        assert guard.read() == content.lstrip(b"\r\n") + end
    except DatasetError as error:
        return str(error)
    return None


@pytest.mark.parametrize("block_bytes", [1, 7, 1 << 20])
def test_the_guard_splits_rows_like_arrow(monkeypatch: pytest.MonkeyPatch, block_bytes: int) -> None:
    """For random CSV, the exact guard finds a bad row if and only if Arrow refuses it or text follows a quote.

    The fast guard finds the same problems of quotes.
    """
    monkeypatch.setattr(csv_guard, "_BLOCK_BYTES", block_bytes)
    draw = random.Random(7)
    bad = 0
    for _ in range(1500):
        pieces = ["x", ",", '"', "\n", "\r\n", '"a"', '""', "y,z\n", "\\", '"p\nq",r\n']
        content = ("a,b\n" + "".join(draw.choices(pieces, k=draw.randint(1, 14)))).encode()
        escape = b"\\" if draw.random() < 0.3 else b""
        problem = _problem(content, escape, is_exact=True)
        if not escape:
            of_quotes = problem if problem and "fields where" not in problem else None
            fast = _problem(content, is_exact=False)
            assert fast == of_quotes if fast is None or of_quotes else fast, (content, fast, problem)
        try:
            table = pyarrow.csv.read_csv(
                io.BytesIO(content),
                read_options=pyarrow.csv.ReadOptions(use_threads=False),
                parse_options=pyarrow.csv.ParseOptions(
                    newlines_in_values=True, escape_char=escape.decode() or False
                ),
            )
        except pa.ArrowInvalid:
            assert problem, (content, escape)
            bad += 1
        else:
            assert table.num_columns == 2
            assert problem is None or "quote" in problem, (content, escape, problem)
    assert 150 < bad < 1350


def _compressed(content: bytes, ending: str) -> bytes:
    if ending == "zst":
        return bytes(pa.compress(content, "zstd", asbytes=True))
    return gzip.compress(content) if ending == "gz" else bz2.compress(content)


@pytest.mark.parametrize("ending", ["gz", "zst", "bz2"])
@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.ndjson", "A.JSON"])
def test_compressed_files_give_the_same_rows(tmp_path: Path, name: str, ending: str) -> None:
    delimiter = "\t" if "tsv" in name else ","
    rows = [{"n": n, "text": f"text {n * 7919}"} for n in range(3000)]
    if "sv" in name:
        content = f"n{delimiter}text\n" + "".join(f"{row['n']}{delimiter}{row['text']}\n" for row in rows)
    else:
        content = "".join(f'{{"n":{row["n"]},"text":"{row["text"]}"}}\n' for row in rows)
    compressed = _compressed(content.encode(), ending)
    ending = ending.upper() if name.isupper() else ending
    path = tmp_path / f"{name}.{ending}"
    path.write_bytes(compressed)
    assert _read(tmp_path, path.name) == rows
    for cut in (0, 3, len(compressed) // 2, len(compressed) - 1):
        path.write_bytes(compressed[:cut])
        with pytest.raises(DatasetError, match=rf"dataset.path: .*{path.name}: not a complete .*truncated"):
            _read(tmp_path, path.name)
    path.write_bytes(content.encode())
    with pytest.raises(DatasetError, match=f"{path.name}: not a complete"):
        _read(tmp_path, path.name)


def test_a_gzip_file_with_several_members_is_read_to_its_end(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b'{"n":1}\n') + gzip.compress(b'{"n":2}\n'))
    assert _read(tmp_path, "a.jsonl.gz") == [{"n": 1}, {"n": 2}]


@pytest.mark.parametrize("zeros", [1, 512, 10240, 1 << 20])
def test_a_gzip_file_may_be_padded_with_zero_bytes(tmp_path: Path, zeros: int) -> None:
    """As tape tools write it. Another member may follow."""
    content = gzip.compress(b'{"n":1}\n') + bytes(zeros)
    (tmp_path / "a.jsonl.gz").write_bytes(content)
    assert _read(tmp_path, "a.jsonl.gz") == [{"n": 1}]
    (tmp_path / "a.jsonl.gz").write_bytes(content + gzip.compress(b'{"n":2}\n') + bytes(3))
    assert _read(tmp_path, "a.jsonl.gz") == [{"n": 1}, {"n": 2}]


@pytest.mark.parametrize("zeros", [0, 512, 1 << 20])
def test_other_bytes_behind_a_gzip_file_are_named_with_their_place(tmp_path: Path, zeros: int) -> None:
    member = gzip.compress(b'{"n":1}\n' * 1000)
    (tmp_path / "a.jsonl.gz").write_bytes(member + bytes(zeros) + b"junk")
    with pytest.raises(DatasetError, match=rf"a\.jsonl\.gz: .*from byte {len(member) + zeros:,} on there is"):
        _read(tmp_path, "a.jsonl.gz")


def test_compression_encoding_and_options_work_together_on_any_file_system(tmp_path: Path) -> None:
    files = fsspec.filesystem("memory")
    files.pipe_file("/texts/a.csv.gz", gzip.compress("text;n\nnaïve;1\n".encode("latin-1")))
    try:
        rows = _read(tmp_path, "memory://texts", delimiter=";", encoding="latin-1")
        assert rows == [{"text": "naïve", "n": 1}]
    finally:
        files.rm("/texts", recursive=True)


def test_a_compressed_header_and_an_empty_compressed_file_have_no_rows(tmp_path: Path) -> None:
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"a,b"))
    assert read(tmp_path, "a.csv.gz").schema.names == ["a", "b"]
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress(b""))
    assert read(tmp_path, {"path": "b.csv.gz", "key": "text"}).num_rows == 0


def test_csv_options_without_any_csv_file_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"a":1}\n')
    with pytest.raises(DatasetError, match=r"dataset.path: a.jsonl has no CSV or TSV file"):
        _read(tmp_path, "a.jsonl", delimiter=";")
    (tmp_path / "b.csv").write_text("a;b\n2;x\n")
    assert [row["a"] for row in _read(tmp_path, "[ab].*", delimiter=";")] == [1, 2]


def test_a_compressed_parquet_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.parquet.gz").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"the name must end in .*\.parquet; all but .parquet also followed by"):
        _read(tmp_path, "a.parquet.gz")


def test_a_compressed_dataset_with_options_gets_results(world: World) -> None:
    content = "id;text\na;Straße\nb;naïve\n".encode("latin-1")
    (world.folder / "rows.csv.gz").write_bytes(gzip.compress(content))
    csv = {"delimiter": ";", "encoding": "latin-1"}
    table = world.run(world.pipeline(dataset={"path": "rows.csv.gz", "key": "id", "csv": csv}))
    assert list(table["result_type"]) == ["succeeded"] * 2
    assert list(table["text"]) == ["Straße", "naïve"]
