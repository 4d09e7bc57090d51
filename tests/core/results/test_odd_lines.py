"""Result lines with values that no column can hold: a row of their own, and the batch is stored all the same."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pandas as pd
import pyarrow.parquet as pq
import pytest

from batch_assets.core.api.errors import UnknownOutcomeError
from batch_assets.core.api.objects import BatchObject
from batch_assets.core.errors import DamagedFileError
from batch_assets.core.io.json_files import read_document
from batch_assets.core.io.storage import Storage
from batch_assets.core.prices.prices import default_prices
from batch_assets.core.results.message_line import OddLineError, parse_line
from batch_assets.core.results.result_lines import ResultLines
from batch_assets.core.store.receipt import Receipt

from ..support import BATCHES, CREATE, LIST, World, texts


def lines_of(world: World, batch_id: str) -> list[dict[str, Any]]:
    with world.root.api.results(batch_id) as chunks:
        return [orjson.loads(line) for line in b"".join(chunks).splitlines()]


def served(world: World, batch_id: str, lines: list[bytes]) -> None:
    path = f"{BATCHES}/{batch_id}/results"
    match = {"method": "GET", "path": path}
    world.emulator.faults([{"match": match, "action": {"status": 200, "body": b"".join(lines).decode()}}])


def stored(world: World) -> list[dict[str, Any]]:
    """Return the stored responses."""
    (path,) = world.path().glob("*/responses/*.parquet")
    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return rows


USAGE = ["input_tokens", "output_tokens", "cache_creation_input_tokens", "cache_read_input_tokens"]
ODD_TOKENS = ["1e30", "-1", '"5"', "true", "1.5", "9223372036854775808", "[1]", '{"a":1}']
ODD_TEXTS = ["5", "true", "[]", '{"type":"x"}', "1.5"]
ODD = [
    *((f'"{name}": {value}', name) for name in USAGE[:2] for value in ODD_TOKENS),
    *((f'"{name}": -3', name) for name in USAGE[2:]),
    ('"cache_creation": "x", "cache_creation_input_tokens": 5', "message"),
    ('"cache_creation": {"ephemeral_1h_input_tokens": "x"}, "cache_creation_input_tokens": 5', "message"),
    ('"cache_creation": {"ephemeral_1h_input_tokens": -1e300}, "cache_creation_input_tokens": 5', "ephemeral_1h"),
    ('"server_tool_use": {"web_search_requests": "5"}', "web_search"),
    ('"server_tool_use": {"web_search_requests": -1}', "web_search"),
    ('"output_tokens_details": {"thinking_tokens": -1}', "thinking_tokens"),
    ('"output_tokens_details": {"thinking_tokens": "5"}', "thinking_tokens"),
    ('"iterations": [{"type": "compaction", "input_tokens": "5"}]', "input_tokens"),
    ('"iterations": ["x"]', "message"),
    ('"inference_geo": ["us"]', "message"),
]


def odd_usage(line: dict[str, Any], usage: str) -> bytes:
    usual = orjson.dumps({**line["result"]["message"]["usage"], "service_tier": "batch"}).decode()
    names = re.findall(r'"(\w+)":', usage)
    kept = {name: value for name, value in orjson.loads(usual).items() if name not in names}
    text = orjson.dumps(line).decode()
    old = orjson.dumps(line["result"]["message"]["usage"]).decode()
    assert old in text
    return text.replace(old, orjson.dumps(kept).decode()[:-1] + "," + usage + "}").encode() + b"\n"


def check(world: World, table: pd.DataFrame, line: bytes, named: str) -> None:
    (odd,) = table[table["result_type"] != "succeeded"].to_dict("records")
    assert (odd["result_type"], odd["error_type"]) == ("errored", "unreadable_result")
    assert named in odd["error_message"]
    assert odd["response_json"] == line.decode().rstrip()
    assert odd["custom_id"] in world.accepted_custom_ids()
    assert odd["attempts"] == 1
    assert len(world.accepted_custom_ids()) == 3


@pytest.mark.parametrize(("usage", "named"), ODD)
def test_odd_numbers_make_an_unreadable_row(world: World, usage: str, named: str) -> None:
    pipeline = world.pipeline(texts(3))
    (batch_id,) = world.send(pipeline).submitted
    lines = lines_of(world, batch_id)
    odd = odd_usage(lines[1], usage)
    served(world, batch_id, [orjson.dumps(lines[0]) + b"\n", odd, orjson.dumps(lines[2]) + b"\n"])
    done = world.finish(pipeline)
    assert any("1 answer cannot be stored in columns" in problem for problem in done.problems) or done.results
    check(world, world.table(pipeline), odd, named)


@pytest.mark.parametrize("field", ["id", "stop_reason", "model"])
@pytest.mark.parametrize("value", [5, True, [], {"type": "x"}, 1.5, {"a": [{}]}], ids=str)
def test_odd_texts_make_an_unreadable_row(world: World, field: str, value: object) -> None:
    pipeline = world.pipeline(texts(3))
    (batch_id,) = world.send(pipeline).submitted
    lines = lines_of(world, batch_id)
    lines[0]["result"]["message"][field] = value
    raw = [orjson.dumps(line) + b"\n" for line in lines]
    served(world, batch_id, raw)
    world.finish(pipeline)
    check(world, world.table(pipeline), raw[0], "")


@pytest.mark.parametrize(
    "message",
    [None, [], "text", {"content": "text"}, {"content": [5]}, {"content": [{"type": "text"}]},
     {"content": [{"type": "text", "text": 5}]}, {"usage": [1]}, {"usage": "x"}],
    ids=str,
)  # fmt: skip
def test_a_message_that_is_none_makes_an_unreadable_row(world: World, message: object) -> None:
    pipeline = world.pipeline(texts(3))
    (batch_id,) = world.send(pipeline).submitted
    lines = lines_of(world, batch_id)
    lines[2]["result"]["message"] = message
    raw = [orjson.dumps(line) + b"\n" for line in lines]
    served(world, batch_id, raw)
    world.finish(pipeline)
    check(world, world.table(pipeline), raw[2], "message")


@pytest.mark.parametrize(
    "result",
    [None, "succeeded", 5, [], {}, {"message": {}}, ...],
    ids=str,
)
def test_a_line_without_a_result_makes_an_unreadable_row(world: World, result: object) -> None:
    pipeline = world.pipeline(texts(3))
    (batch_id,) = world.send(pipeline).submitted
    lines = lines_of(world, batch_id)
    lines[1]["result"] = result
    if result is ...:
        del lines[1]["result"]
    raw = [orjson.dumps(line) + b"\n" for line in lines]
    served(world, batch_id, raw)
    world.finish(pipeline)
    check(world, world.table(pipeline), raw[1], "no result of the API")


@pytest.mark.parametrize("before", [b'"model":', b'"result":'], ids=["message", "line"])
def test_a_line_that_is_too_deep_makes_an_unreadable_row(world: World, before: bytes) -> None:
    pipeline = world.pipeline(texts(3))
    (batch_id,) = world.send(pipeline).submitted
    raw = [orjson.dumps(line) + b"\n" for line in lines_of(world, batch_id)]
    raw[0] = raw[0].replace(before, b'"deep":' + b"[" * 3000 + b"]" * 3000 + b"," + before)
    served(world, batch_id, raw)
    world.finish(pipeline)
    check(world, world.table(pipeline), raw[0], "nested too deeply")


@pytest.mark.parametrize(
    ("error", "type_", "message"),
    [
        ("overloaded", "unknown_error", "overloaded"),
        ([1], "unknown_error", "[1]"),
        (5, "unknown_error", "5"),
        ({"type": "error", "error": "bad"}, "unknown_error", "bad"),
        ({"type": "error", "error": {"type": {"a": 1}, "message": ["x"]}}, '{"a":1}', '["x"]'),
    ],
    ids=str,
)
def test_an_error_of_another_form_is_still_an_error(world: World, error: object, type_: str, message: str) -> None:
    pipeline = world.pipeline(texts(3))
    (batch_id,) = world.send(pipeline).submitted
    lines = lines_of(world, batch_id)
    lines[0]["result"] = {"type": "errored", "error": error}
    served(world, batch_id, [orjson.dumps(line) + b"\n" for line in lines])
    world.collect(pipeline)
    (odd,) = [row for row in stored(world) if row["result_type"] != "succeeded"]
    assert (odd["result_type"], odd["error_type"], odd["error_message"]) == ("errored", type_, message)


VALUES = [b"null", b"true", b"1", b"1e30", b'"x"', b"[]", b"[1]", b"{}", b"[" * 600 + b"]" * 600,
          b"[" * 3000 + b"]" * 3000, b'"\\ud800"', b"-1", b"1e400", b"9" * 5000]  # fmt: skip
FAILED = {
    "type": "errored",
    "error": {"type": "error", "error": {"type": "invalid_request_error", "message": "no"}},
}


def places(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Return the path of each value within a value, itself included."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, item in inner for place in places(item, (*path, key)))]


def replaced(line: dict[str, Any], path: tuple[str | int, ...], value: bytes) -> bytes:
    """Return a line with another value at a path."""
    mark, copied = "the value", orjson.loads(orjson.dumps(line))
    within = copied
    for key in path[:-1]:
        within = within[key]
    within[path[-1]] = mark
    return orjson.dumps(copied).replace(orjson.dumps(mark), value) + b"\n"


def test_any_value_anywhere_in_a_line_gives_one_row(world: World) -> None:
    """Each result line has another value, of any kind, at another place."""
    usage = dict.fromkeys(USAGE, 1) | {"cache_creation": {"ephemeral_1h_input_tokens": 0}, "inference_geo": "us"}
    texts_ = {"model": "m", "id": "i", "type": "message", "role": "assistant", "stop_reason": "end_turn"}
    message = {**texts_, "content": [{"type": "text", "text": "t"}], "stop_sequence": None, "usage": usage}
    good = {"custom_id": "", "result": {"type": "succeeded", "message": message}}
    failed = {"custom_id": "", "result": FAILED}
    cases = [
        (line, path, value)
        for line in (good, failed)
        for path in places(line)
        if path not in ((), ("custom_id",))
        for value in VALUES
    ]
    pipeline = world.pipeline(texts(len(cases)))
    (batch_id,) = world.send(pipeline).submitted
    custom_ids = world.accepted_custom_ids()
    lines = [
        replaced({**line, "custom_id": custom_id}, path, value)
        for (line, path, value), custom_id in zip(cases, custom_ids, strict=True)
    ]
    served(world, batch_id, lines)
    problems = world.collect(pipeline).problems
    rows = {row["custom_id"]: row for row in stored(world)}
    assert sorted(rows) == sorted(custom_ids)
    assert all("cannot be stored in columns" in problem for problem in problems)
    assert not [row for row in rows.values() if row["error_type"] == "missing_result"]
    for custom_id, line in zip(custom_ids, lines, strict=True):
        if rows[custom_id]["error_type"] == "unreadable_result":
            assert rows[custom_id]["response_json"] == line.decode().rstrip()


@pytest.mark.parametrize(
    "around",
    [
        lambda raw: b"\n\n" + b"\n".join(raw.splitlines(keepends=True)) + b"\n",
        lambda raw: raw.replace(b"\n", b"\r\n"),
        lambda raw: b"\xef\xbb\xbf" + raw,
        lambda raw: raw.rstrip(b"\n"),
    ],
    ids=["blank lines", "CRLF", "BOM", "no last line end"],
)
def test_what_is_around_lines_changes_no_row(world: World, around: Callable[[bytes], bytes]) -> None:
    pipeline = world.pipeline(texts(3))
    (batch_id,) = world.send(pipeline).submitted
    raw = b"".join(orjson.dumps(line) + b"\n" for line in lines_of(world, batch_id))
    served(world, batch_id, [around(raw)])
    world.finish(pipeline)
    assert list(world.table(pipeline)["result_type"]) == ["succeeded"] * 3
    assert len(world.accepted()) == 1


@pytest.mark.parametrize(
    "damaged",
    [lambda line: line.replace(b'"text":"', b'"text":"\xff', 1), lambda line: line[:80] + b"}\n"],
    ids=["not UTF-8", "cut"],
)
def test_a_damaged_line_is_found_and_not_believed(tmp_path: Path, damaged: Callable[[bytes], bytes]) -> None:
    """It is downloaded again, unlike one that is JSON without a result."""
    tails = [character * 22 for character in "abc"]
    lines = [
        orjson.dumps({"custom_id": f"row-{tail}", "result": {"type": "succeeded", "message": {"text": "fine"}}})
        + b"\n"
        for tail in tails
    ]
    lines[1] = damaged(lines[1])
    download = tmp_path / "raw"
    download.write_bytes(b"".join(lines))
    found = ResultLines.find(download, np.array(tails, dtype="S22"))
    assert (found.ours, found.missing, found.is_whole) == (3, 0, True)
    with pytest.raises(ValueError) as raised:
        parse_line(lines[1], default_prices())
    assert not isinstance(raised.value, OddLineError)


def test_the_earlier_of_two_lines_for_a_request_counts(tmp_path: Path) -> None:
    tails = [character * 22 for character in "abc"]
    order = ["b", "c", "b", "a", "c"]
    lines = [orjson.dumps({"custom_id": f"row-{tail * 22}", "number": at}) for at, tail in enumerate(order)]
    download = tmp_path / "raw"
    download.write_bytes(raw := b"\n".join(lines) + b"\n")
    found = ResultLines.find(download, np.array(tails, dtype="S22"))
    assert (found.ours, found.duplicates) == (3, 2)
    numbers = [orjson.loads(raw[start:end])["number"] for start, end in zip(found.start, found.end, strict=True)]
    assert numbers == [3, 0, 1]


def test_the_run_names_the_batch_with_odd_answers(world: World) -> None:
    pipeline = world.pipeline(texts(3))
    (batch_id,) = world.send(pipeline).submitted
    lines = lines_of(world, batch_id)
    served(
        world,
        batch_id,
        [odd_usage(lines[0], '"input_tokens": 1e30'), *(orjson.dumps(x) + b"\n" for x in lines[1:])],
    )
    (problem,) = world.collect(pipeline).problems
    assert "1 answer cannot be stored in columns" in problem
    assert batch_id in problem
    report = world.build(pipeline)
    assert (report.written, report.reused) == (0, 3)


def test_whole_numbers_with_a_point_are_numbers(world: World) -> None:
    pipeline = world.pipeline(texts(3))
    (batch_id,) = world.send(pipeline).submitted
    lines = lines_of(world, batch_id)
    served(world, batch_id, [odd_usage(line, '"input_tokens": 7.0') for line in lines])
    world.finish(pipeline)
    assert list(world.table(pipeline)["input_tokens"]) == [7, 7, 7]


BAD_IDS = ["../../x", "a", "batch_1", "msgbatch_", "msgbatch_a/b", "msgbatch_a\\b", "msgbatch_..", "msgbatch_ü",
           "msgbatch_a b", "msgbatch_" + "a" * 80, "MSGBATCH_a", "msgbatch_a\n", "msgbatch_a?b",
           "msgbatch_%2e"]  # fmt: skip


@pytest.mark.parametrize("batch_id", BAD_IDS)
def test_an_id_of_another_form_is_no_batch(world: World, batch_id: str) -> None:
    with pytest.raises(ValueError, match="is not a valid batch id"):
        BatchObject.parse({"id": batch_id, "created_at": "2026-11-20T00:00:00Z"})
    world.reopened(BATCH_ASSETS_RECONCILE_GRACE="900")
    body = {"id": batch_id, "created_at": "2026-11-20T00:00:00Z", "processing_status": "in_progress"}
    world.emulator.faults([{"match": {**CREATE, "times": 1}, "action": {"status": 200, "body": body}}])
    pipeline = world.pipeline(texts(1))
    world.send(pipeline)
    assert world.states(pipeline) == ["unresolved"]


@pytest.mark.parametrize("batch_id", BAD_IDS)
def test_a_receipt_with_an_id_of_another_form_is_damaged(tmp_path: str, batch_id: str) -> None:
    storage = Storage(str(tmp_path))
    receipt = {"batch_id": batch_id, "requests": 1, "attempt": 1, "created_at": 1.0, "expires_at": None,
               "base_url": "http://x", "organization": None}  # fmt: skip
    storage.write_bytes(orjson.dumps(receipt), "part-00000.batch.json")
    with pytest.raises(DamagedFileError, match=r"part-00000\.batch\.json is damaged"):
        read_document(storage, ("part-00000.batch.json",), Receipt)


@pytest.mark.parametrize("count", ["1e30", '"x"', "-5", "true", "[]", "1e400"])
def test_odd_counts_are_no_answer(world: World, count: str) -> None:
    batch = f'{{"id":"msgbatch_a","created_at":"2026-11-20T00:00:00Z","request_counts":{{"processing":{count}}}}}'
    body = f'{{"data":[{batch}],"has_more":false}}'
    world.emulator.faults([{"match": LIST, "action": {"status": 200, "body": body}}])
    with pytest.raises(UnknownOutcomeError):
        world.root.api.page()
