"""Small files of the shapes in public test corpora, each with its verdict: the rows, or what the refusal names.

The shapes are those of csvkit, messytables, CleverCSV, JSONTestSuite and parquet-testing. The content is our own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Row = tuple[Any, ...]


@dataclass(frozen=True)
class Case:
    """A file and its verdict.

    Attributes:
        name: The name of the file.
        content: Its content.
        rows: The values of each row in order; `None` if the file is refused.
        refusal: A pattern in the error.
        dataset: Further fields of `dataset`.
    """

    name: str
    content: bytes
    rows: list[Row] | None = None
    refusal: str = ""
    dataset: Mapping[str, Any] = field(default_factory=dict)


def refused(name: str, content: bytes, refusal: str) -> Case:
    """A file that is refused."""
    return Case(name, content, refusal=refusal)


def csv_options(**options: Any) -> dict[str, Any]:
    """The `dataset` of a CSV file in another format."""
    return {"csv": options}


CSV = [
    Case("blank-lines.csv", b"a,b\n\n1,2\n\n", [(1, 2)]),
    Case("no-end.csv", b"a,b\n1,2", [(1, 2)]),
    Case("old-mac.csv", b"a,b\r1,2\r3,4\r", [(1, 2), (3, 4)]),
    Case("mixed-ends.csv", b"a,b\r\n1,2\n3,4\r\n", [(1, 2), (3, 4)]),
    Case("mark.csv", b"\xef\xbb\xbfa,b\n1,2\n", [(1, 2)]),
    Case("quoted-mark.csv", b'\xef\xbb\xbf"a",b\n1,2\n', [(1, 2)]),
    Case("header-only.csv", b"a,b\n", []),
    Case("quotes.csv", b'a,b\n"1","x ""y"" z"\n', [(1, 'x "y" z')]),
    Case("quote-inside.csv", b'a,b\n1,5" pipe\n', [(1, '5" pipe')]),
    Case("break-inside.csv", b'a,b\n1,"x\ny"\n', [(1, "x\ny")]),
    Case("empty-and-null.csv", b'a,b\n"",\n', [("", None)]),
    Case("null-words.csv", b"a,b\nNA,null\n", [("NA", "null")]),
    Case("leading-zeros.csv", b"a\n007\n8\n", [("007",), ("8",)]),
    Case("thousands.csv", b'a\n"1,000"\n2\n', [("1,000",), ("2",)]),
    Case("percent.csv", b"a\n5%\n", [("5%",)]),
    Case("big-number.csv", b"a\n123456789012345678901234567890\n", [("123456789012345678901234567890",)]),
    Case("spaces.csv", b"a,b\n 1, x\n", [(" 1", " x")]),
    Case("semicolons.csv", b"a;b\n1;2,5\n", [(1, "2,5")], dataset=csv_options(delimiter=";")),
    Case("pipes.csv", b"a|b\n1|x\n", [(1, "x")], dataset=csv_options(delimiter="|")),
    Case("excel.csv", b"sep=;\r\na;b\r\n1;x\r\n", [(1, "x")]),
    Case("tabs.tsv", b"a\tb\n1\tx, y\n", [(1, "x, y")]),
    Case("title.csv", b"A report\n\na,b\n1,2\n", [(1, 2)], dataset=csv_options(skip=2)),
    Case("single-quotes.csv", b"a,b\n1,'x,y'\n", [(1, "x,y")], dataset=csv_options(quote="'")),
    Case("escaped.csv", b'a,b\n1,"x \\"y\\""\n', [(1, 'x "y"')], dataset=csv_options(escape="\\")),
    Case("latin.csv", b"a\ngr\xfcn\n", [("grün",)], dataset=csv_options(encoding="latin-1")),
    Case("wide.csv", "a\n日本\n".encode("utf-16"), [("日本",)], dataset=csv_options(encoding="utf-16")),
    Case("wide-be.csv", "a,b\n1,x\n".encode("utf-16-be"), [(1, "x")], dataset=csv_options(encoding="utf-16")),
    Case("index.csv", b",a,a\n0,1,2\n", [(0, 1, 2)], dataset=csv_options(names=["n", "x", "y"])),
    Case("null-byte.csv", b"a,b\n1,x\x00y\n", [(1, "x\x00y")]),
    refused("too-many.csv", b"a,b\n1,2\n1,2,3\n", r"too-many\.csv, line 3: 3 fields where the header has 2"),
    refused("too-few.csv", b"a,b\n1\n", r"too-few\.csv, line 2: 1 fields"),
    refused("trailing.csv", b"a,b\n1,2,\n", r"trailing\.csv, line 2: 3 fields"),
    refused("footer.csv", b"a,b\n1,2\nTotal: 1\n", r"footer\.csv, line 3: 1 fields"),
    refused("unclosed.csv", b'a,b\n1,"x\n2,y\n', r"unclosed\.csv, line 2: the quote"),
    refused("after-quote.csv", b'a,b\n1,"x"y\n', r"after-quote\.csv, line 2: text follows"),
    refused("latin-refused.csv", b"a\ngr\xfcn\n", r"latin-refused\.csv, line 2: not UTF-8"),
    refused("latin-header.csv", b"gr\xfcn\n1\n", r"latin-header\.csv: the header is not valid UTF-8: line 1"),
    refused("wide-refused.csv", "a,b\n1,x\n".encode("utf-16"), r"wide-refused\.csv.*UTF-16; .*encoding: utf-16"),
    refused("wide-bare.csv", "a,b\n1,x\n".encode("utf-16-le"), r"wide-bare\.csv.*UTF-16-LE"),
    Case(
        "no-mark.csv",
        b"gr\xfcn,x\n1,2",
        refusal=r"no-mark\.csv, line 1: not utf-16, .* does not start with BOM",
        dataset=csv_options(encoding="utf-16"),
    ),
    refused("equal-names.csv", b"a,a\n1,2\n", r"equal-names\.csv: the header names 'a' twice"),
]

JSON = [
    Case("string.jsonl", '{"a":"\\u20ac €"}\n'.encode(), [("€ €",)]),
    Case("pair.jsonl", b'{"a":"\\ud83d\\ude00"}\n', [("😀",)]),
    Case("escapes.jsonl", b'{"a":"\\"\\\\\\/\\b\\f\\n\\r\\t"}', [('"\\/\b\f\n\r\t',)]),
    Case("space.jsonl", b' {"a" : 1} \r\n\n{"a":2}\n', [(1,), (2,)]),
    Case("empty-key.jsonl", b'{"":1}\n', [(1,)]),
    Case("big-integer.jsonl", b'{"a":123456789012345678901234567890}\n', [(123456789012345678901234567890,)]),
    Case("exponent.jsonl", b'{"a":1.5e2}\n', [(150.0,)]),
    Case("minus-zero.jsonl", b'{"a":-0.0}\n', [(-0.0,)]),
    Case("null.jsonl", b'{"a":null}\n{"a":"x"}\n', [(None,), ("x",)]),
    *(
        refused(f"{name}.jsonl", b'{"a":1}\n' + line + b"\n", rf"{name}\.jsonl, line 2: ")
        for name, line in {
            "trailing-comma": b'{"a":1,}',
            "single-quoted": b"{'a':1}",
            "unquoted": b"{a:1}",
            "comment": b'{"a":1} // one',
            "plus": b'{"a":+1}',
            "leading-zero": b'{"a":012}',
            "hex": b'{"a":0x1}',
            "bare-point": b'{"a":1.}',
            "unclosed-object": b'{"a":1',
            "unclosed-string": b'{"a":"x',
            "bad-escape": b'{"a":"\\x00"}',
            "control": b'{"a":"x\ty"}',
            "two-values": b'{"a":1}{"a":2}',
            "bare-word": b"nul",
            "number": b"7",
            "text": b'"x"',
            "list": b"[1]",
            "mark-inside": b'\xef\xbb\xbf{"a":1}',
            "latin": b'{"a":"\xe9"}',
            "overlong": b'{"a":"\xc0\xaf"}',
            "surrogate-bytes": b'{"a":"\xed\xa0\x80"}',
            "deep": b'{"a":' + b"[" * 100_000,
            "deep-closed": b'{"a":' + b"[" * 500 + b"]" * 500 + b"}",
            "null-byte": b"\x00",
        }.items()
    ),
]

PARQUET = [
    refused("empty.parquet", b"", r"empty\.parquet: not a readable Parquet file"),
    refused("magic.parquet", b"PAR1PAR1", r"magic\.parquet: not a readable Parquet file"),
    refused("text.parquet", b"a,b\n1,2\n" * 100, r"text\.parquet: not a readable Parquet file"),
]

CASES = [*CSV, *JSON, *PARQUET]
