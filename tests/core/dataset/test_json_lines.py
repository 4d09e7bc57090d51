"""Lines that are no JSON objects: each is refused with file and line, or rejected, with a remedy that fits it."""

from __future__ import annotations

import gzip
import random
import zipfile
from pathlib import Path
from typing import Any

import orjson
import pytest

from batch_assets.core.dataset.dataset import Dataset
from batch_assets.core.errors import DatasetError
from batch_assets.core.repeated_keys import RepeatedKeyError, check_keys

from ..support import make_pipeline, read


def _refusal(folder: Path, content: bytes, **more: Any) -> str:
    (folder / "a.jsonl").write_bytes(content)
    with pytest.raises(DatasetError) as caught:
        read(folder, {"path": "a.jsonl", **more})
    return str(caught.value).split("/a.jsonl", 1)[1]


def _rejects(folder: Path, content: bytes) -> dict[int, tuple[str, str]]:
    (folder / "a.jsonl").write_bytes(content)
    rejects: dict[int, tuple[str, str]] = {}
    for rows in Dataset(make_pipeline(folder, {"path": "a.jsonl", "bad_rows": "reject"})).rows(["row_number"]):
        rejects |= rows.rejects
    return rejects


TWICE = {
    "flat": ('{"a":1,"b":2,"a":3}', "a"),
    "equal values": ('{"a":1,"a":1}', "a"),
    "nested": ('{"m":{"k":1,"k":2}}', "k"),
    "in a list": ('{"m":[{"k":1},{"k":1,"k":null}]}', "k"),
    "deep": ('{"m":[[{"x":{"k":1,"y":2,"k":3}}]]}', "k"),
    "escaped": ('{"a":1,"\\u0061":2}', "a"),
    "spaces": ('{"a" : 1, "b": 2, "a"\t:\t3}', "a"),
    "colons in texts": ('{"t":"a: b, \\":c","u":":","t":"x"}', "t"),
    "an escaped quote in a key": ('{"a\\"":1,"a\\"":2}', 'a"'),
    "empty": ('{"":1,"":2}', ""),
    "not ASCII": ('{"ä":1,"ä":2}', "ä"),
    "after a long number": ('{"n":12345678901234567890123,"n":1.5}', "n"),
    "beside a lone surrogate": ('{"t":"\\ud800","k":1,"k":2}', "k"),
}


@pytest.mark.parametrize(("line", "key"), TWICE.values(), ids=TWICE)
def test_a_key_that_is_twice_in_an_object_is_named(tmp_path: Path, line: str, key: str) -> None:
    content = f'{{"a":0}}\n\n{line}\n{{"a":9}}\n'.encode()
    problem = f", line 3: the key {key!r} is twice in one object, of which only one value would be read: "
    assert _refusal(tmp_path, content).startswith(problem)
    rejects = _rejects(tmp_path, content)
    assert (list(rejects), rejects[1][0]) == ([1], "unreadable_row")
    assert problem in rejects[1][1]


def test_objects_without_a_key_twice_are_read(tmp_path: Path) -> None:
    lines = [
        {"a": {"k": 1}, "b": {"k": 1}, "k": [{"k": 1}, {"k": {"k": 2}}]},
        {"t": 'he wrote ": x" and " : y', "u": ":", "v": [':"', '":'], "w:": 1, '":': 2},
        {"a": None, "b": [], "c": {}, "d": [[{}]]},
    ]
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(orjson.dumps(line) for line in lines))
    slices = list(Dataset(make_pipeline(tmp_path, "a.jsonl")).rows(["row_number"]))
    assert sum(len(rows.table) for rows in slices) == 3
    assert not any(rows.rejects for rows in slices)


def test_keys_are_counted_rightly_whatever_the_texts_hold() -> None:
    draw = random.Random(8)
    words = ["a", ":", '":', '" :', "\\", '"', "\t:", "{", "}", ",", "k", "ä", "\u2028"]

    def value(depth: int) -> Any:
        kind = draw.randrange(6 if depth else 3)
        if kind < 3:
            return "".join(draw.choices(words, k=draw.randrange(6)))
        if kind < 5:
            return {"".join(draw.choices(words, k=3)): value(depth - 1) for _ in range(draw.randrange(4))}
        return [value(depth - 1) for _ in range(draw.randrange(3))]

    for _ in range(2000):
        made = {"a": value(3), "b": value(3)}
        text = orjson.dumps(made, option=orjson.OPT_INDENT_2 if draw.random() < 0.2 else None)
        check_keys(text, made)
        doubled = text[:-1].rstrip() + b',"b"' + draw.choice([b":", b" :", b"\t:"]) + b"1}"
        with pytest.raises(RepeatedKeyError):
            check_keys(doubled, orjson.loads(doubled))


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b'{"a":NaN}', "NaN is not JSON: write null where there is no number"),
        (b'{"a":[1,-Infinity]}', "-Infinity is not JSON: write null"),
        (b'{"a":1e999}', "the number 1e999 is too large for a double"),
        (b'{"a":' + b"9" * 5000 + b"}", "not valid JSON: a number has too many digits"),
        (b"{1:2}", "not valid JSON: Expecting property name enclosed in double quotes at column 2"),
        (b'{"a":"\x01"}', "not valid JSON: Invalid control character at column 7"),
        (b'{"a":1,}', "not valid JSON: "),
        (b'{"a":[1,]}', "not valid JSON: "),
        (
            b'{"a":1} // one',
            "more follows the first value; one object per line is expected, as jq -c . writes them",
        ),
        (b"# one", "not valid JSON: Expecting value at column 1"),
        (b'{"a":1}{"a":2}', "more follows the first value; one object per line"),
        (b'{"a":1}\r{"a":2}', "the lines end with carriage returns alone: convert them, for example with tr"),
        (b'{"a":1', "the line ends within the object: it is cut off, or the object has several lines; one object"),
        (b'{"a":"x', "the line ends within the object: "),
        (
            b'\xef\xbb\xbf{"a":1}',
            "a byte order mark before the object, as in files that were put together: remove",
        ),
        (b"[1]", "not a JSON object; one object per line is expected"),
        (b"7", "not a JSON object; "),
    ],
)
def test_a_line_that_is_no_object_is_named_with_a_remedy(tmp_path: Path, line: bytes, problem: str) -> None:
    content = b'{"a":0}\n' + line + b'\n{"a":9}\n'
    assert _refusal(tmp_path, content).startswith(f", line 2: {problem.split(' at column')[0]}")
    rejects = _rejects(tmp_path, content)
    assert (list(rejects), rejects[1][0]) == ([1], "unreadable_row")


@pytest.mark.parametrize("rejects", ["refuse", "reject"])
@pytest.mark.parametrize(
    ("content", "line", "remedy"),
    [
        (b'[\n  {"v": 1}\n]\n', 1, "a list begins here; one object per line is expected, as jq -c '.[]' writes"),
        (b'\n\n[{"v": 1},\n{"v": 2}]\n', 3, "a list begins here"),
        (b'\xef\xbb\xbf[{"v":1},{"v":2}]\n', 1, "a list begins here"),
        (b'{\n  "v": 1\n}\n', 1, "an object begins here that goes on in the next line; one object per line is "
         "expected, as jq -c . writes them"),
        (b'{\r\n  "v": 1\r\n}\r\n', 1, "an object begins here"),
    ],
)  # fmt: skip
def test_a_file_that_is_one_value_is_refused_as_a_whole(
    tmp_path: Path, content: bytes, line: int, remedy: str, rejects: str
) -> None:
    assert _refusal(tmp_path, content, bad_rows=rejects).startswith(f", line {line}: {remedy}")


def test_a_file_with_one_object_is_one_row(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"v": 1}')
    assert read(tmp_path, "a.json")["v"].to_pylist() == [1]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (gzip.compress(b'{"a":1}\n'), r"the content is compressed with gzip; let the name end in \.jsonl\.gz"),
        (b"PAR1....", "the content is Parquet; let the name end in .parquet"),
    ],
)
def test_content_that_is_no_text_is_recognized(tmp_path: Path, content: bytes, problem: str) -> None:
    (tmp_path / "a.jsonl").write_bytes(content)
    with pytest.raises(DatasetError, match=rf"a\.jsonl: {problem}"):
        read(tmp_path, "a.jsonl")


def test_an_archive_is_recognized(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.jsonl", "w") as archive:
        archive.writestr("b.jsonl", "{}")
    with pytest.raises(DatasetError, match=r"a\.jsonl: the content is a ZIP archive .*; unpack it"):
        read(tmp_path, "a.jsonl")
