"""Files in other encodings than the expected one are recognized or refused with file, line and remedy."""

from __future__ import annotations

import codecs
import random
from pathlib import Path
from typing import Any

import pytest

from batch_assets.core.dataset import csv_guard
from batch_assets.core.dataset.dataset import Dataset
from batch_assets.core.dataset.wide_encodings import wide_encoding
from batch_assets.core.errors import DatasetError

from ..support import make_pipeline, read

# Code points of scripts, with those that are frequent several times.
SCRIPTS = {
    "Chinese": [*range(0x4E00, 0x9FA5, 7), *[0x4E00] * 60, 0x3002, 0xFF0C, 0x3000],
    "Japanese": [*range(0x3041, 0x3093), *range(0x30A1, 0x30F6), *range(0x4E00, 0x9000, 97), 0x3001, 0x3002],
    "Korean": [*range(0xAC00, 0xD7A3, 11)],
    "Arabic": [*range(0x627, 0x63A), *range(0x641, 0x64A)],
    "Hebrew": [*range(0x5D0, 0x5EA)],
    "Thai": [*range(0xE01, 0xE3A)],
    "Hindi": [*range(0x905, 0x939)],
    "Russian": [*range(0x430, 0x44F)],
    "emoji": [*range(0x1F600, 0x1F640)],
}
ROWS = {
    "words": lambda word: f"{word(2)},{word(4)}",
    "prose without spaces": lambda word: f"7,{word(300)}",
    "objects": lambda word: f'{{"id":1,"text":"{word(30)}"}}',
}
WIDE = ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"]


@pytest.mark.parametrize("encoding", WIDE)
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("script", SCRIPTS)
def test_wide_text_without_a_byte_order_mark_is_recognized(script: str, rows: str, encoding: str) -> None:
    draw = random.Random(script)

    def word(length: int) -> str:
        return "".join(map(chr, draw.choices(SCRIPTS[script], k=length)))

    text = "\n".join(ROWS[rows](word) for _ in range(12)) + "\n"
    assert wide_encoding(text.encode(encoding)[:4096]) == encoding
    assert wide_encoding(text.encode()[:4096]) is None


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-32-be", "utf-16-be"])
def test_such_a_file_is_refused_with_its_encoding_and_read_if_it_is_named(tmp_path: Path, encoding: str) -> None:
    text = "名前,本文\n日本,一二三、東京\n大阪,四五六\n"
    (tmp_path / "a.csv").write_bytes(text.encode(encoding))
    (tmp_path / "a.jsonl").write_bytes('{"a":"日本"}\n'.encode(encoding))
    with pytest.raises(
        DatasetError, match=rf"a\.csv: .* line 1: the file is {encoding.upper()}; .*: {encoding}}}$"
    ):
        read(tmp_path, "a.csv")
    charset = {"utf-32-be": "UTF-32BE", "utf-16-be": "UTF-16BE"}.get(encoding, encoding.upper())
    with pytest.raises(
        DatasetError, match=rf"a\.jsonl, line 1: the file is {encoding.upper()}, .* iconv -f {charset} -t UTF-8$"
    ):
        read(tmp_path, "a.jsonl")
    for name in {encoding, encoding[:6]}:
        table = read(tmp_path, {"path": "a.csv", "csv": {"encoding": name}})
        assert table["本文"].to_pylist() == ["一二三、東京", "四五六"]


@pytest.mark.parametrize(
    ("content", "stated", "problem"),
    [
        ("ä,b\n".encode("utf-8-sig"), "cp1252", "begins with the byte order mark of UTF-8, but .* is cp1252; "
         "write utf-8, or leave it out"),
        ("a,b\n".encode("utf-16"), "latin-1", "begins with the byte order mark of UTF-16, but .* is iso8859-1; "
         "write utf-16"),
        ("a,b\n".encode("utf-32"), "utf-16", "begins with the byte order mark of UTF-32, but"),
        ("a,b\n1,2\n".encode("utf-32-be"), "utf-16", "is UTF-32-BE, but .* is utf-16; write utf-32-be"),
        ("a,b\n1,2\n".encode("utf-16-le"), "utf-32", "is UTF-16-LE, but"),
        (b"+/v8-id,b\n", "utf-8", "the file is UTF-7; name its encoding"),
        ("\ufeff编号,文\n".encode("gb18030"), "utf-8", "the file is GB18030; name its encoding"),
    ],
)  # fmt: skip
def test_an_encoding_that_contradicts_the_file_is_named(
    tmp_path: Path, content: bytes, stated: str, problem: str
) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(DatasetError, match=rf"a\.csv: .*line 1: the file {problem.removeprefix('the file ')}"):
        read(tmp_path, {"path": "a.csv", "csv": {"encoding": stated}})


@pytest.mark.parametrize("stated", ["cp1252", "latin-1", "cp1251", "mac_roman"])
def test_utf_8_is_not_read_as_another_encoding(tmp_path: Path, stated: str) -> None:
    (tmp_path / "a.csv").write_text("größe,text\n1,naïve Ärger\n", encoding="utf-8")
    with pytest.raises(DatasetError, match=r"a\.csv: line 1: the file is UTF-8, but dataset\.csv\.encoding is"):
        read(tmp_path, {"path": "a.csv", "csv": {"encoding": stated}})


@pytest.mark.parametrize("stated", ["cp1252", "latin-1", "iso8859-15", "cp1250"])
@pytest.mark.parametrize("word", ["Zoë", "Straße", "Über", "Été", "a “quote", "1 – 2", "Kraków", "šťáva"])
def test_one_word_proves_utf_8_if_it_is_none_in_a_latin_encoding(tmp_path: Path, stated: str, word: str) -> None:
    (tmp_path / "a.csv").write_text(f"id,text\n1,{word}\n2,plain\n", encoding="utf-8")
    with pytest.raises(DatasetError, match=r"a\.csv: line 1: the file is UTF-8, but dataset\.csv\.encoding is"):
        read(tmp_path, {"path": "a.csv", "csv": {"encoding": stated}})


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1252", "NESTLÉ®"), ("cp1252", "CAFÉ»"), ("cp1252", "AMANHÃ…"), ("latin-1", "naïve"), ("cp1252", "«à"),
        ("cp1252", "größe € naïve Ärger"), ("latin-1", "é"), ("cp1251", "русский текст и ещё"),
        ("cp874", "ภาษาไทย เขียน"), ("koi8-r", "русский текст"), ("cp866", "русский ТЕКСТ арбуз"),
        ("cp1253", "ελληνικά"), ("cp437", "naïve É"),
        ("cp1252", "only ASCII"), ("cp1252", "one Â£ may be meant"),
    ],
)  # fmt: skip
def test_text_in_the_named_encoding_is_read(tmp_path: Path, encoding: str, text: str) -> None:
    (tmp_path / "a.csv").write_bytes(f"text\n{text}\n".encode(encoding))
    assert read(tmp_path, {"path": "a.csv", "csv": {"encoding": encoding}})["text"].to_pylist() == [text]


@pytest.mark.parametrize(
    ("encoding", "text", "example"),
    [
        ("shift_jis", "日本語テキスト", "shift_jis"), ("gb18030", "中文文本内容", "gb18030"),
        ("euc-kr", "한국어문장", "euc-kr"), ("cp1251", "русский текст", "cp1251"),
        ("cp1252", "5 € für Jörg", "cp1252"),
        ("latin-1", "grün, süß", "latin-1"),
    ],
)  # fmt: skip
def test_the_example_fits_the_script(tmp_path: Path, encoding: str, text: str, example: str) -> None:
    (tmp_path / "a.csv").write_bytes(f'id,text\n1,"{text}"\n'.encode(encoding))
    with pytest.raises(DatasetError) as caught:
        read(tmp_path, "a.csv")
    remedy = str(caught.value).split("name its encoding, ")[1]
    assert example in remedy
    assert ("cp1252" in remedy) == (example == "cp1252")


@pytest.mark.parametrize(
    ("encoding", "content"),
    [
        ("utf-16-be", "质量\n物流很快包装完整下次还会再来"),  # one null byte: the encoding is not certain
        ("utf-16-le", "质量\n物流很快包装完整下次还会再来"),
        ("utf-16-be", "编号,评论\n" + "0," + "大为上个国我以要他时来用们生到作地于出就分对成会" * 90 + "\n1,好"),
    ],
)
def test_utf_16_in_doubt_is_not_taken_for_latin_text(tmp_path: Path, encoding: str, content: str) -> None:
    (tmp_path / "a.csv").write_bytes(content.encode(encoding))
    with pytest.raises(DatasetError, match=r"name its encoding, dataset\.csv|utf-16-") as caught:
        read(tmp_path, "a.csv")
    assert "cp1252" not in str(caught.value) and "latin-1" not in str(caught.value)


def test_a_few_control_characters_are_no_utf_16(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(("id,text\n" + "1,Jörg\x1f\x1fist hier\n" * 9).encode("latin-1"))
    with pytest.raises(DatasetError, match=r"such as .*latin-1"):
        read(tmp_path, "a.csv")


MARK = "\ufeff"


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(
    ("more", "line"),
    [("id,text\n3,c\n", 4), ('"id","text"\n3,c\n', 4), ("3,c\n", 4)],
    ids=["header", "quoted header", "row"],
)
@pytest.mark.parametrize("block", [7, 1 << 20])
def test_a_file_that_was_appended_to_another_one_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: str, line: int, ending: str, block: int
) -> None:
    monkeypatch.setattr(csv_guard, "_BLOCK_BYTES", block)
    content = (MARK + "id,text\n1,ä\n2,b\n" + MARK + more).replace("\n", ending)
    (tmp_path / "a.csv").write_bytes(content.encode())
    with pytest.raises(
        DatasetError,
        match=rf"a\.csv, line {line}: this row begins with a byte order mark, as where a file was app",
    ):
        read(tmp_path, "a.csv")
    (rows,) = Dataset(make_pipeline(tmp_path, {"path": "a.csv", "bad_rows": "reject"})).rows(["id"])
    assert list(rows.rejects) == [2]
    assert rows.rejects[2][0] == "unreadable_row"


@pytest.mark.parametrize("options", [{}, {"csv": {"encoding": "utf-16"}}])
def test_a_byte_order_mark_within_a_field_is_text(tmp_path: Path, options: dict[str, Any]) -> None:
    text = f'id,text\n1,a{MARK}b\n2,"x\n{MARK}y"\n3,{MARK}z\n"{MARK}4",ä\n'
    (tmp_path / "a.csv").write_bytes(text.encode("utf-16" if options else "utf-8"))
    table = read(tmp_path, {"path": "a.csv", **options})
    assert table["text"].to_pylist() == [f"a{MARK}b", f"x\n{MARK}y", f"{MARK}z", "ä"]


def test_two_byte_order_marks_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(2 * codecs.BOM_UTF8 + b"id\n1\n")
    with pytest.raises(DatasetError, match=r"a\.csv, line 1: this row begins with a byte order mark"):
        read(tmp_path, "a.csv")


def test_line_ends_of_all_kinds_go_together(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b'id,text\r1,a\n2,b\r\n3,"c\rd"\r\r\n4,e')
    assert read(tmp_path, "a.csv")["text"].to_pylist() == ["a", "b", "c\rd", "e"]
    (tmp_path / "a.jsonl").write_bytes(b'{"t":"a"}\r\n{"t":"b"}\n\r\n{"t":"c"}')
    assert read(tmp_path, "a.jsonl")["t"].to_pylist() == ["a", "b", "c"]
