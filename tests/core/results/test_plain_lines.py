"""Lines that are parsed at once give the values that they give one by one, and are read in any order."""

from __future__ import annotations

import math
import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from batch_assets.core.prices.prices import default_prices
from batch_assets.core.results import ordered_lines
from batch_assets.core.results.message_line import ParsedLine, parse_line
from batch_assets.core.results.ordered_lines import LineGroup, OrderedLines, bounds_of, read_lines
from batch_assets.core.results.plain_lines import parse_plain
from batch_assets.core.results.result_lines import ResultLines

PRICES = default_prices()
USAGE = {
    "input_tokens": 12,
    "output_tokens": 7,
    "cache_creation_input_tokens": 0,
    "cache_read_input_tokens": 0,
    "service_tier": "batch",
}
TEXT = [{"type": "text", "text": "fine"}]


def message(**values: Any) -> dict[str, Any]:
    usual = {"model": "claude-haiku-5-5", "id": "msg_1", "type": "message", "role": "assistant", "content": TEXT}
    usage = {**USAGE, **values.pop("usage", {})}
    return {**usual, "stop_reason": "end_turn", "stop_sequence": None, "usage": usage, **values}


def line(message: Any, custom_id: str = "row-1-abcdef-0123456789abcdefABCDEF", kind: str = "succeeded") -> bytes:
    return orjson.dumps({"custom_id": custom_id, "result": {"type": kind, "message": message}}) + b"\n"


def group(lines: list[bytes | None]) -> LineGroup:
    sizes = [len(text) if text is not None else 0 for text in lines]
    ends = np.cumsum(sizes)
    has_line = np.array([text is not None for text in lines])
    starts = np.where(has_line, ends - sizes, -1)
    return LineGroup(0, b"".join(filter(None, lines)), starts, np.where(has_line, ends, -1))


def at_once(lines: list[bytes | None]) -> dict[int, tuple[Any, ...]]:
    plain = parse_plain(group(lines), PRICES)
    if plain is None:
        return {}
    columns = [plain.columns[name].to_pylist() for name in ParsedLine._fields]
    return dict(zip(plain.positions.tolist(), zip(*columns, strict=True), strict=True))


PLAIN = {
    "usual": line(message()),
    "short id": line(message(), "a"),
    "64 characters": line(message(), "x" * 64),
    "not ASCII": line(message(content=[{"type": "text", "text": "naïve 日本 😀 \u2028"}])),
    "escapes": line(message(content=[{"type": "text", "text": 'a"b\\c\n\x00\t/'}])),
    "escaped by the API": line(message()).replace(b"fine", b"\\u00e9\\ud83d\\ude00\\/"),
    "spaces": line(message()).replace(b'"role":', b' "role" :\t'),
    "empty text": line(message(content=[{"type": "text", "text": ""}])),
    "no text": line(message(content=[{"type": "tool_use", "id": "t", "name": "n", "input": {"text": "x"}}])),
    "no block": line(message(content=[])),
    "content is null": line(message(content=None)),
    "thinking": line(message(content=[{"type": "thinking", "thinking": "so", "signature": "s"}, *TEXT])),
    "citations": line(message(content=[{"type": "text", "text": "a", "citations": [{"text": 1}]}])),
    "cached": line(message(usage={"cache_creation_input_tokens": 100, "cache_read_input_tokens": 33})),
    "cached for an hour": line(
        message(usage={"cache_creation_input_tokens": 9, "cache_creation": {"ephemeral_1h_input_tokens": 4}})
    ),
    "an hour of nothing": line(message(usage={"cache_creation": {"ephemeral_1h_input_tokens": 4}})),
    "cache is null": line(message(usage={"cache_creation": None})),
    "region": line(message(usage={"inference_geo": "us"})),
    "unknown region": line(message(usage={"inference_geo": "moon"})),
    "long prompt": line(message(model="claude-sonnet-4-5", usage={"input_tokens": 300_000})),
    "dated model": line(message(model="claude-haiku-4-5-20251001", usage={"output_tokens": 123_457})),
    "unknown model": line(message(model="claude-none")),
    "many tokens": line(message(usage={"input_tokens": 10**8, "output_tokens": 10**8})),
    "thinking tokens": line(message(usage={"output_tokens_details": {"thinking_tokens": 5}})),
    "no searches": line(message(usage={"server_tool_use": {"web_search_requests": 0, "web_fetch_requests": 2}})),
    "no iterations": line(message(usage={"iterations": []})),
    "iterations are null": line(message(usage={"iterations": None, "server_tool_use": None})),
    "new fields": line(message(container={"id": [1, {"a": None}]}, usage={"x": [1.5]})),
    "not a number in a new field": line(message(new=1)).replace(b'"new":1', b'"new":NaN'),
}
OTHERS = {
    "no line": None,
    "failed": line(None, kind="errored"),
    "expired": b'{"custom_id":"a","result":{"type":"expired"}}\n',
    "another order": orjson.dumps({"result": {"message": message(), "type": "succeeded"}, "custom_id": "a"})
    + b"\n",
    "without a line end": line(message())[:-1],
    "two texts": line(message(content=TEXT * 2)),
    "stop reason is null": line(message(stop_reason=None)),
    "no usage": line(message() | {"usage": None}),
    "most tokens": line(message(usage={"input_tokens": 2**53})),
    "more tokens than an answer has": line(
        message(model="claude-opus-5", usage={"input_tokens": 10**8, "output_tokens": 10**8})
    ),
    "searches": line(message(usage={"server_tool_use": {"web_search_requests": 3}})),
    "iterations": line(message(usage={"iterations": [{"type": "compaction", "input_tokens": 5}]})),
    "fewer thinking tokens than none": line(message(usage={"output_tokens_details": {"thinking_tokens": -5}})),
    "refused": line(message(stop_reason="refusal", stop_details={"type": "refusal", "category": "bio"})),
    "too many tokens": line(message(usage={"input_tokens": 2**53 + 1})),
    "fewer than none": line(message(usage={"input_tokens": -1})),
    "negative hour": line(
        message(usage={"cache_read_input_tokens": 9, "cache_creation": {"ephemeral_1h_input_tokens": -4}})
    ),
    "a text block without text": line(message(content=[{"type": "text", "text": None}])),
    "a block is null": line(message(content=[None])),
    "an id of another kind": line(message(), "a b"),
    "no id": line(message(), ""),
    "65 characters": line(message(), "x" * 65),
    "deep": line(message(new=1)).replace(b'"new":1', b'"new":' + b"[" * 1100 + b"]" * 1100),
}
# With one of these, no line is read at once.
SPOILING = {
    "infinity in Arrow's word": line(message(new=1)).replace(b'"new":1', b'"new":Inf '),
    "negative infinity in Arrow's word": line(message(new=1)).replace(b'"new":1', b'"new":-Inf'),
    "not a number in Arrow's word": line(message(new=[1])).replace(b'"new":[1]', b'"new":[-NaN]'),
    "after the message": line(message()).replace(b"}}}\n", b'},"x":{}}}\n'),
    "after the result": line(message()).replace(b"}}}\n", b'}},"z":{"a":{}}}\n'),
    "a float": line(message()).replace(b":12,", b":12.0,"),
    "exponent": line(message()).replace(b":12,", b":1e1,"),
    "text for a number": line(message(usage={"input_tokens": "5"})),
    "number for a text": line(message(id=5)),
    "content is text": line(message(content="fine")),
    "a key twice": line(message()).replace(b'"id":"msg_1"', b'"id":"a","id":"msg_1"'),
    "not UTF-8": line(message()).replace(b"fine", b"f\xffne"),
    "not UTF-8 elsewhere": line(message(new="fine")).replace(b'"new":"fine"', b'"new":"f\xffne"'),
    "lone surrogate": line(message()).replace(b"fine", b"\\ud800"),
    "control character": line(message()).replace(b"fine", b"f\x01ne"),
    "carriage return": line(message()).replace(b'"role":', b'\r"role":'),
    "zero byte": line(message()).replace(b'"role":', b'\0"role":'),
    "cut": line(message()).replace(b'"role":"assistant"', b""),
    "geo is no text": line(message(usage={"inference_geo": ["us"]})),
    "beyond 64 bits": line(message(usage={"cache_creation_input_tokens": 2**63})),
}


def expected(text: bytes) -> tuple[Any, ...]:
    return tuple(parse_line(text, PRICES))


def equal(values: tuple[Any, ...], others: tuple[Any, ...]) -> bool:
    """Whether values are equal to the last bit."""
    return [(type(value), value) for value in values] == [(type(value), value) for value in others]


def test_usual_lines_are_parsed_at_once_with_the_same_values() -> None:
    parsed = at_once([*PLAIN.values()])
    for position, (name, text) in enumerate(PLAIN.items()):
        assert position in parsed, name
        assert equal(parsed[position], expected(text)), name
    costs = [values[ParsedLine._fields.index("cost_usd")] for values in parsed.values()]
    assert len({cost for cost in costs if cost is not None and math.isfinite(cost)}) > 6


def test_other_lines_are_left_and_do_not_spoil_the_usual_ones() -> None:
    lines = [text for pair in zip(OTHERS.values(), [*PLAIN.values()] * 2, strict=False) for text in pair]
    parsed = at_once(lines)
    assert sorted(parsed) == list(range(1, len(lines), 2))
    for position, values in parsed.items():
        text = lines[position]
        assert text is not None
        assert equal(values, expected(text))


@pytest.mark.parametrize("name", SPOILING)
def test_a_line_that_arrow_may_read_otherwise_leaves_all_lines(name: str) -> None:
    assert at_once([PLAIN["usual"], SPOILING[name]]) == {}


@pytest.mark.parametrize("name", SPOILING)
def test_a_spoiling_line_is_noticed_wherever_it_is(name: str) -> None:
    for spaces in (0, 1, 2, 3):
        moved = SPOILING[name].replace(b'"role"', b" " * spaces + b'"role"')
        assert at_once([PLAIN["usual"], moved]) == {}
        assert at_once([moved, PLAIN["usual"]]) == {}


def test_tokens_cost_the_same_at_once() -> None:
    chosen = random.Random(5)
    models = [*PRICES.models, "claude-opus-4-5-20251101", "none"]
    lines: list[bytes | None] = []
    for _ in range(500):
        tokens = {name: chosen.choice([0, 1, 17, 999, 10**6, 10**8]) for name in USAGE if name != "service_tier"}
        hour = {"ephemeral_1h_input_tokens": chosen.choice([0, 5, tokens["cache_creation_input_tokens"]])}
        usage = {**tokens, "cache_creation": hour, "inference_geo": chosen.choice(["us", "global", None])}
        lines.append(line(message(model=chosen.choice(models), usage=usage)))
    parsed = at_once(lines)
    assert len(parsed) > 350, "a cost below zero is left"
    assert all(equal(values, expected(lines[position] or b"")) for position, values in parsed.items())


@pytest.mark.parametrize("order", ["as sent", "shuffled", "reversed"])
def test_lines_are_read_in_the_order_of_the_requests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: str
) -> None:
    monkeypatch.setattr(ordered_lines, "GROUP_BYTES", 400)
    monkeypatch.setattr(ordered_lines, "GROUP_ROWS", 16)
    monkeypatch.setattr(ordered_lines, "_WINDOW", 600)
    chosen = random.Random(order)
    texts = [b"%d %s\n" % (number, b"x" * chosen.choice([0, 9, 30, 700])) for number in range(200)]
    sent = [number for number in range(200) if number % 7 and not 50 < number < 90]
    if order != "as sent":
        sent = chosen.sample(sent, len(sent)) if order == "shuffled" else sent[::-1]
    start, end = np.full(200, -1), np.full(200, -1)
    content = b"not ours\n"
    for number in sent:
        start[number], end[number] = len(content), len(content) + len(texts[number])
        content += texts[number] + (b"not ours either\n" if chosen.random() < 0.2 else b"")
    raw = tmp_path / "raw"
    raw.write_bytes(content)
    lines = ResultLines(start, end, np.zeros(200, "S22"))
    read: list[bytes | None] = []
    with OrderedLines(raw, lines) as ordered:
        assert len([*tmp_path.iterdir()]) == 1, "a sorted copy has no name, so that a kill leaves none"
        for group in ordered.groups():
            assert group.first == len(read)
            own = [group.line(position) for position in range(len(group.starts))]
            assert len(own) <= 16
            assert sum(len(text or b"") for text in own[:-1]) <= 400
            read += own
    assert read == [text if number in sent else None for number, text in enumerate(texts)]
    anywhere = [
        group.line(position)
        for first, after in pairwise(bounds_of(end - start))
        for group in [read_lines(raw, first, start[first:after], end[first:after])]
        for position in range(after - first)
    ]
    assert anywhere == read
    raw.write_bytes(content[: end.max() - 1])
    with pytest.raises(OSError, match="shorter"):
        read_lines(raw, 0, start, end)


def test_without_a_download_there_are_groups_without_lines() -> None:
    lines = ResultLines.none(np.zeros(9000, "S22"), "gone")
    with OrderedLines(None, lines) as ordered:
        groups = [(group.first, len(group.starts), group.line(0)) for group in ordered.groups()]
    assert groups == [(0, 4096, None), (4096, 4096, None), (8192, 808, None)]
