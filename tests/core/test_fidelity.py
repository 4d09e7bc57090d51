"""Any text from any file reaches the emulator and comes back unchanged, and lines of the API reach the table."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from batch_assets.core.answers.answers import _calls
from batch_assets.core.prices.prices import default_prices
from batch_assets.core.results.message_line import parse_line
from batch_assets.emulator import Emulator
from benchmarks.comparison import Expected, Received
from benchmarks.fidelity import text_trial
from benchmarks.plain_rows import Broken, Printed, Row, read_rows
from benchmarks.recorded import replay

from .support import read

PROJECT = Path(__file__).parents[2]
FOUND_HARD = [
    "a\x85b\u2028c\u2029d\x1ce\x0bf",  # alone, each of these is white space
    *("", " ", "\t\r\n", "\0", "\x1b[31m", "\x85", "\u2028", "\u2029", "\ufeff", "\u202eabc", "שלום", "👩‍👧", "𝄞"),
    *('"', '""', "'", "\\", "\\n", ",", "a\rb", "a\r\nb", "a\nb", "{{ text }}", "{% raw %}", "null", "0", "1.50"),
    *('"}}', '","params":{', "NaN", "true", "2024-01-02", "=1+1", "\x1c", "é", "e\u0301"),
]
ALL_KEYS = [f"{number} {text}" for number, text in enumerate(FOUND_HARD)]
# A line of a CSV file that begins with a byte order mark is refused as one of two files that were joined.
KEYS = st.one_of(st.sampled_from([text for text in FOUND_HARD if text]), st.text(min_size=1, max_size=60)).filter(
    lambda key: not key.startswith("\ufeff")
)
TEXTS = st.one_of(st.sampled_from(FOUND_HARD), st.text(max_size=200))
LONE = st.tuples(st.text(max_size=3), st.integers(0xD800, 0xDFFF).map(chr), st.text(max_size=3)).map("".join)


def bytes_of(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def write_csv(path: Path, rows: Sequence[tuple[str, str]]) -> list[Row]:
    quoting = csv.QUOTE_ALL if len(rows) % 2 else csv.QUOTE_MINIMAL
    with path.open("w", encoding="utf-8", errors="surrogatepass", newline="") as file:
        csv.writer(file, quoting=quoting).writerows([("id", "text"), *rows])
    return [{"id": Printed(key), "text": expected_text(text, in_bytes=True, kind=Printed)} for key, text in rows]


def write_json(path: Path, rows: Sequence[tuple[str, str]]) -> list[Row]:
    lines = (json.dumps({"id": key, "text": text}, ensure_ascii=len(rows) % 2 == 0) for key, text in rows)
    path.write_bytes(b"".join(bytes_of(line) + b"\n" for line in lines))
    return [{"id": key, "text": expected_text(text, in_bytes=len(rows) % 2 == 1)} for key, text in rows]


def write_parquet(path: Path, rows: Sequence[tuple[str, str]]) -> list[Row]:
    texts = pa.array([bytes_of(text) for _, text in rows], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"id": [key for key, _ in rows], "text": texts}), path)
    return [{"id": key, "text": expected_text(text, in_bytes=True)} for key, text in rows]


def expected_text(text: str, *, in_bytes: bool, kind: Callable[[str], str] = str) -> str:
    """The expected value. Each byte of a lone surrogate becomes U+FFFD, an escaped surrogate one U+FFFD."""
    if not any("\ud800" <= character <= "\udfff" for character in text):
        return kind(text)
    if in_bytes:
        return Broken(bytes_of(text).decode(errors="replace"))
    return Broken(text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", errors="replace"))


FORMATS = {"csv": write_csv, "jsonl": write_json, "parquet": write_parquet}


# Each example runs all stages, so a failing example is not shrunk.
@settings(
    max_examples=20,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    keys=st.lists(KEYS, min_size=1, max_size=8, unique=True),
    texts=st.lists(st.one_of(TEXTS, TEXTS, LONE), min_size=8, max_size=8),
    ending=st.sampled_from(sorted(FORMATS)),
)
@example(keys=ALL_KEYS, texts=FOUND_HARD, ending="csv")
@example(keys=ALL_KEYS, texts=FOUND_HARD, ending="jsonl")
@example(keys=ALL_KEYS, texts=FOUND_HARD, ending="parquet")
def test_any_text_arrives_unchanged_and_any_answer_comes_back(
    emulator: Emulator, keys: list[str], texts: list[str], ending: str
) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"rows.{ending}"
        written = FORMATS[ending](path, list(zip(keys, texts, strict=False)))
        trial = text_trial(path, written, "id", "{{ text }}")
        findings = trial.run(emulator, Path(folder))
        assert read_rows(path) == written
    assert findings.mismatches == []
    assert findings.figures["rows"] == len(keys)


def test_the_comparison_sees_what_differs(emulator: Emulator, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = write_json(path, [("a", "one"), ("b", "two"), ("c", ""), ("d", "four")])
    trial = text_trial(path, rows, "id", "{{ text }}")
    assert trial.run(emulator, tmp_path).mismatches == []
    table = pq.read_table(tmp_path / "root" / "fidelity" / "results" / "results.parquet")
    received = Received(emulator, table["batch_id"].unique().drop_null().to_pylist())
    expected = trial.expected
    other = Expected("id", [{**rows[0], "text": "one "}, *rows[1:]], expected.request)
    assert [problem.partition(":")[0] for problem in other.compare(table, received).mismatches] == [
        "row 'a', column 'text'",
        "row 'a', request",
    ]
    assert Expected("id", rows[:3], expected.request).compare(table, received).mismatches == [
        "rows: 4 in place of 3"
    ]
    swapped = table.set_column(
        table.column_names.index("response_text"), "response_text", table["response_text"].take([1, 0, 2, 3])
    )
    assert [problem.partition(":")[0] for problem in expected.compare(swapped, received).mismatches] == [
        "row 'a', response_text",
        "row 'b', response_text",
    ]


MESSAGE: dict[str, Any] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-haiku-5-5",
    "content": [
        {"type": "thinking", "thinking": "So\u2028so", "signature": "c2ln"},
        {"type": "text", "text": 'One\0 "quoted" \U0001f600'},
        {
            "type": "tool_use",
            "id": "toolu_1",
            "name": "any",
            "input": {"n": 10**30, "m": [2**64 - 1, {"x": None}]},
        },
        {"type": "unheard_of", "message": {"id": "inner"}},
        {"type": "text", "text": " two"},
    ],
    "stop_reason": "tool_use",
    "stop_sequence": None,
    "usage": {
        "input_tokens": 120_000,
        "cache_creation_input_tokens": 10,
        "cache_read_input_tokens": 7,
        "cache_creation": {"ephemeral_5m_input_tokens": 4, "ephemeral_1h_input_tokens": 6},
        "output_tokens": 5,
        "inference_geo": "us",
    },
}
RESULTS = [
    {"type": "succeeded", "message": MESSAGE},
    {"type": "succeeded", "message": {**MESSAGE, "model": "of-nobody", "content": []}},
    {"type": "succeeded", "message": {**MESSAGE, "content": [{"type": "text", "text": "lone \ud83d"}]}},
    {"type": "errored", "error": {"type": "error", "error": {"type": "api_error", "message": "It broke."}}},
    {"type": "canceled"},
    {"type": "expired"},
]


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_lines_of_the_api_reach_the_table_without_loss(emulator: Emulator, tmp_path: Path, end: bytes) -> None:
    lines = [json.dumps({"custom_id": "x", "result": result}, separators=(",", ":")) for result in RESULTS]
    order = lines if end else lines[::-1]  # without a line end, the last line is read in another way
    findings = replay(emulator, tmp_path, "\n".join(order).encode() + end)
    assert findings.mismatches == []
    assert findings.figures["succeeded"] == findings.figures["priced"] + 1 == 3


def raw_message(line: str) -> str:
    """The raw message that is stored for a line."""
    kept = parse_line(line.encode() + b"\n", default_prices()).response_json
    return kept


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        (
            '{"custom_id":"x","result":{"new":{"message":{"a":1}},"type":"succeeded","message":{"id":"m"}}}',
            {"id": "m"},
        ),
        ('{"result":{"message":{"id":"m"},"type":"succeeded"},"custom_id":"x"}', {"id": "m"}),
        ('{"custom_id":"x","result":{"type":"succeeded","message": {"n":1' + "0" * 30 + "}} }", {"n": 10**30}),
        (
            '{"custom_id":"x","result":{"type":"succeeded","message":{"s":"\\ud83d","n":1' + "0" * 30 + "}} }",
            {"s": "\ufffd", "n": 10**30},
        ),
    ],
)
def test_the_message_of_an_odd_line_is_kept(line: str, kept: Any) -> None:
    assert json.loads(raw_message(line)) == kept


@pytest.mark.parametrize("value", ["[" * 300 + "]" * 300, "1" * 5000, "1e400"])
def test_a_strange_value_costs_no_answer(value: str) -> None:
    line = '{"custom_id":"x","result":{"type":"succeeded","message":{"id":"m","n":' + value + "}} }"
    assert raw_message(line).startswith('{"id":"m","n":')


def test_a_line_nested_without_end_is_reported_and_stops_nothing() -> None:
    with pytest.raises(ValueError, match="nested too deeply"):
        raw_message('{"custom_id":"x","result":' + "[" * 5000 + "]" * 5000 + "}")


def test_tool_calls_keep_every_digit() -> None:
    content = '{"content":[{"type":"tool_use","id":"t","name":"n","input":{"n":%s,"s":"\\ud83d","m":1e400}}]}'
    for number in ("1" * 18, "1" * 19, "1" * 30):
        (call,) = _calls(content % number)
        assert call["input"] == f'{{"n":{number},"s":"\ufffd","m":null}}'


@pytest.mark.parametrize(
    ("values", "read_as"),
    [
        (["1" * 30, "5"], ["1" * 30, "5"]),
        ([f'{{"a":{"1" * 30}}}', "[1]"], [f'{{"a":{"1" * 30}}}', "[1]"]),
        (["2.5", "true"], ["2.5", "true"]),
        (["2.5", "null"], [2.5, None]),
    ],
)
def test_values_of_json_lines_are_never_changed_to_fit_a_type(
    tmp_path: Path, values: list[str], read_as: list[Any]
) -> None:
    (tmp_path / "a.jsonl").write_text("".join(f'{{"v":{value}}}\n' for value in values))
    assert read(tmp_path, "a.jsonl")["v"].to_pylist() == read_as


def test_the_command_reports_what_it_compared(tmp_path: Path) -> None:
    write_csv(tmp_path / "rows.csv", [("1", "a\r\nb"), ("2", ""), ("3", "\u2028")])
    command = [sys.executable, "-m", "benchmarks.fidelity", str(tmp_path / "rows.csv"), "--key", "id"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    figures = {line[:32].strip(): line[32:].strip() for line in done.stdout.splitlines()}
    assert figures["rejected, empty_prompt"] == "2"
    assert (figures["rows"], figures["distinct requests"], figures["mismatches"]) == ("3", "1", "0")
