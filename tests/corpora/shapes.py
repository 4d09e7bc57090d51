"""More shapes of public test corpora: parquet-testing, DuckDB, CleverCSV, csvkit, messytables, JSONTestSuite."""

from __future__ import annotations

import bz2
import gzip
import io
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from .cases import Case, Row, csv_options, refused

CSV = [
    # DuckDB
    Case("null-in-header.csv", b"a\x00,b\n1,2\n", [(1, 2)]),
    Case("blank-first.csv", b"\n\na,b\n1,2\n", [(1, 2)]),
    Case("returns-twice.csv", b"a,b\r\r\n1,2\r\r\n", [(1, 2)]),
    Case("break-in-header.csv", b'"a\nb",c\n1,2\n', [(1, 2)]),
    Case("escape-at-end.csv", b"a,b\n1,x\\", [(1, "x\\")], dataset=csv_options(escape="\\")),
    Case("quote-at-end.csv", b'a,b\n1,"x"', [(1, "x")]),
    Case("beyond-64-bits.csv", b"n\n9223372036854775808\n1\n", [("9223372036854775808",), ("1",)]),
    Case("infinities.csv", b"x\ninf\nnan\n1.5\n", [("inf",), ("nan",), ("1.5",)]),
    Case("padded.csv.gz", gzip.compress(b"a\n1\n") + bytes(10240), [(1,)]),
    Case("members.csv.gz", gzip.compress(b"a\n1\n") + gzip.compress(b"2\n"), [(1,), (2,)]),
    Case("members.csv.bz2", bz2.compress(b"a\n1\n") + bz2.compress(b"2\n"), [(1,), (2,)]),
    Case("break-in-return.csv", b'a,b\r1,"x\ny"\r', [(1, "x\ny")]),
    Case("no-header.csv", b"5.1,x\n4.9,y\n", [(5.1, "x"), (4.9, "y")], dataset=csv_options(header=["n", "t"])),
    refused("space-after-quote.csv", b'a,b\n1,"x" \n', r"space-after-quote\.csv, line 2: text follows"),
    refused(
        "space-before-quote.csv", b'a,b\n1, "x, y"\n', r"before-quote\.csv, line 2: 3 fields .*no quotes around"
    ),
    refused("ragged.csv", b"a,b,c\n1,2\n", r"ragged\.csv, line 2: 2 fields where the header has 3"),
    refused(
        "garbage.csv.gz", gzip.compress(b"a\n1\n") + b"garbage", r"garbage\.csv\.gz: not a complete gzip file"
    ),
    refused("cut.csv.gz", gzip.compress(b"a\n1\n" * 50)[:-6], r"cut\.csv\.gz: not a complete gzip file"),
    Case(
        "impossible-date.csv",
        b"d\n2024-02-28\n2024-02-30\n",
        refusal=r"impossible-date\.csv, line 3: column 'd' is not date32\[day\] throughout: it has '2024-02-30'",
        dataset={"types": {"d": "date32"}},
    ),
    # CleverCSV, csvkit and messytables
    Case("tildes.csv", b"a~b\n1~x,y\n", [(1, "x,y")], dataset=csv_options(delimiter="~")),
    Case("links.csv", b'u,n\n"http://x/?a=1,2",1\n', [("http://x/?a=1,2", 1)]),
    Case("json-in-a-cell.csv", b'a,j\n1,"{""k"": [1, 2]}"\n', [(1, '{"k": [1, 2]}')]),
    Case("backslashes.csv", b"a,b\n1,$\\alpha$\n", [(1, "$\\alpha$")]),
    Case("odd-spaces.csv", "a,b\n1,\u00a0x\u2028y\u0085\n".encode(), [(1, "\u00a0x\u2028y\u0085")]),
    Case("separators.csv", b"a,b\n1,x\x0by\x0c\x1cz\n", [(1, "x\x0by\x0c\x1cz")]),
    Case("capitals.csv", b"x\nTRUE\nFALSE\n", [("TRUE",), ("FALSE",)]),
    Case("signs.csv", b"a\n0001\n+5\n", [("0001",), ("+5",)]),
    refused("comment.csv", b"# made by x\na,b\n1,2\n", r"comment\.csv, line 2: 2 fields where the header has 1"),
    refused("one-quote.csv", b'a\n"\n', r"one-quote\.csv, line 2: the quote that opens here is never closed"),
    refused("page.csv", b"<!DOCTYPE html>\n<html></html>\n", r"page\.csv: the content is a web page"),
    refused(
        "other-separator.csv", b"sep=\x80\na;b\n1;x\n", r"other-separator\.csv: the header is not valid UTF-8"
    ),
    refused("lfs.csv", b"version https://git-lfs.github.com/spec/v1\n", r"lfs\.csv: .*a pointer of Git LFS"),
    refused("xz.csv", b"\xfd7zXZ\0\0\4", r"xz\.csv: the content is compressed with xz"),
    refused(
        "appended.csv", b"a\n\xef\xbb\xbfa\n1\n", r"appended\.csv, line 2: this row begins with a byte order mark"
    ),
    refused("wide-4.csv", "a,b\n1,x\n".encode("utf-32"), r"wide-4\.csv.*UTF-32; .*encoding: utf-32"),
    refused("chinese.csv", "名,文\n一,二三\n".encode("utf-16-le"), r"chinese\.csv.*UTF-16-LE"),
]

JSON = [
    Case("null-escape.jsonl", b'{"a":"\\u0000"}\n', [("\0",)]),
    Case("noncharacter.jsonl", b'{"a":"\\uFFFF"}\n', [("\uffff",)]),
    Case("delete.jsonl", b'{"a":"\x7f"}\n', [("\x7f",)]),
    Case("unicode-key.jsonl", '{"ключ":"значение"}\n'.encode(), [("значение",)]),
    Case("pair-key.jsonl", b'{"\\ud83d\\ude00":1}\n', [(1,)]),
    Case("tiny.jsonl", b'{"a":-0.' + b"0" * 77 + b"1}\n", [(-1e-78,)]),
    Case("large-exponent.jsonl", b'{"a":1E22}\n', [(1e22,)]),
    Case("mark-only.jsonl", b"\xef\xbb\xbf\n", []),
    *(
        refused(f"{name}.jsonl", b'{"a":1}\n' + line + b"\n", rf"{name}\.jsonl, line 2: {problem}")
        for name, line, problem in (
            ("twice", b'{"a":"b","a":"b"}', "the key 'a' is twice in one object"),
            ("twice-inside", b'{"a":[{"b":1,"b":2}]}', "the key 'b' is twice in one object"),
            ("overflow", b'{"a":-1e+9999}', r"the number -1e\+9999 is too large"),
            ("infinity", b'{"a":Infinity}', "Infinity is not JSON"),
            ("minus-infinity", b'{"a":-Infinity}', "-Infinity is not JSON"),
            ("not-a-number", b'{"a":NaN}', "NaN is not JSON"),
            ("minus-alone", b'{"a":-}', "not valid JSON"),
            ("leading-point", b'{"a":.5}', "not valid JSON"),
            ("double-comma", b'{"a":1,,"b":2}', "not valid JSON"),
            ("no-colon", b'{"a" 1}', "not valid JSON"),
            ("number-key", b"{1:2}", "not valid JSON: .* at column 2"),
            ("list-key", b"{[]:1}", "not valid JSON"),
            ("closed-twice", b'{"a":1}}', "more follows the first value"),
            ("form-feed", b'{\x0c"a":1}', "not valid JSON"),
            ("capital-true", b'{"a":True}', "not valid JSON"),
            ("short-escape", b'{"a":"\\u00A"}', "not valid JSON"),
            ("comment-inside", b'{/* x */"a":1}', "not valid JSON"),
            ("record-separator", b'\x1e{"a":1}', "not valid JSON"),
            ("underscore", b'{"a":1_000}', "not valid JSON"),
        )
    ),
    refused("pretty.json", b'{\n  "a": 1\n}\n', r"pretty\.json, line 1: an object begins here .* jq -c \. writes"),
    refused(
        "array.json", b'[{"a": 1}, {"a": 2}]\n', r"array\.json, line 1: a list begins here; .* jq -c '\.\[\]'"
    ),
]


def _parquet(name: str, columns: dict[str, Any], rows: list[Row], **options: Any) -> Case:
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file, **options)
    return Case(f"{name}.parquet", file.getvalue(), rows)


_MOMENT = datetime(2024, 1, 2, 3, 4, 5)
_MAPS = pa.map_(pa.string(), pa.map_(pa.string(), pa.int32()))
_STRUCT = pa.struct([("a", pa.string()), ("b", pa.struct([("c", pa.int8())]))])
_STATES: dict[str, Any] = {"a": ["x", None, "y"], "b": [[1, None], [], None]}

PARQUET = [
    _parquet("no-rows", {"a": pa.array([], pa.int64())}, []),
    _parquet("row-groups", {"a": [1, 2]}, [(1,), (2,)], row_group_size=1),
    _parquet(
        "int96", {"a": pa.array([_MOMENT], pa.timestamp("ns"))}, [(_MOMENT,)], use_deprecated_int96_timestamps=True
    ),
    _parquet(
        "zone",
        {"a": pa.array([_MOMENT], pa.timestamp("us", "Europe/Berlin"))},
        [(_MOMENT.replace(tzinfo=UTC),)],
    ),
    _parquet(
        "decimal",
        {"a": pa.array([Decimal("-12.50"), None], pa.decimal128(38, 2))},
        [(Decimal("-12.50"),), (None,)],
    ),
    _parquet("unsigned", {"a": pa.array([2**64 - 1], pa.uint64())}, [(2**64 - 1,)]),
    _parquet(
        "delta",
        {"a": [1, 2], "b": ["abc", "abe"]},
        [(1, "abc"), (2, "abe")],
        use_dictionary=False,
        column_encoding={"a": "DELTA_BINARY_PACKED", "b": "DELTA_BYTE_ARRAY"},
    ),
    _parquet("split", {"a": [1.5]}, [(1.5,)], use_dictionary=False, column_encoding={"a": "BYTE_STREAM_SPLIT"}),
    _parquet(
        "pages-2",
        _STATES,
        [("x", [1, None]), (None, []), ("y", None)],
        data_page_version="2.0",
        compression="brotli",
    ),
    _parquet("lz4", {"a": ["x"]}, [("x",)], compression="lz4"),
    _parquet(
        "maps", {"m": pa.array([[("k", [("a", 1)])], None, []], _MAPS)}, [({"k": {"a": 1}},), (None,), ({},)]
    ),
    _parquet("number-keys", {"m": pa.array([[(1, "x")]], pa.map_(pa.int32(), pa.string()))}, [({1: "x"},)]),
    _parquet("lists", {"l": [[[1, None], None, []], [], None]}, [([[1, None], None, []],), ([],), (None,)]),
    _parquet(
        "structs",
        {"s": pa.array([{"a": None, "b": {"c": 1}}, None], _STRUCT)},
        [({"a": None, "b": {"c": 1}},), (None,)],
    ),
    _parquet("names", {"a.b": [1], "a b": [2], "ü": [3]}, [(1, 2, 3)]),
    _parquet(
        "times",
        {"t": [time(1, 2, 3, 4)], "d": [timedelta(seconds=5)], "x": [date(1, 1, 1)]},
        [(time(1, 2, 3, 4), timedelta(seconds=5), date(1, 1, 1))],
    ),
    _parquet("bytes", {"b": [b"\0\xff"], "f": pa.array([b"ab"], pa.binary(2))}, [(b"\0\xff", b"ab")]),
    _parquet("categories", {"c": pa.array(["x", None, "x"]).dictionary_encode()}, [("x",), (None,), ("x",)]),
    _parquet("not-a-number", {"x": [float("nan"), -0.0, 2.5]}, [(None,), (-0.0,), (2.5,)]),
]
_WHOLE = PARQUET[0].content
PARQUET += [
    refused("cut.parquet", _WHOLE[:-10], r"cut\.parquet: not a readable Parquet file"),
    refused("encrypted.parquet", _WHOLE[:-4] + b"PARE", r"encrypted\.parquet: not a readable Parquet file"),
    refused("packed.parquet", gzip.compress(_WHOLE), r"packed\.parquet: .*: the content is compressed with gzip"),
    refused(
        "lfs.parquet", b"version https://git-lfs.github.com/spec/v1\n", r"lfs\.parquet: .* a pointer of Git LFS"
    ),
]

SHAPES = [*CSV, *JSON, *PARQUET]
