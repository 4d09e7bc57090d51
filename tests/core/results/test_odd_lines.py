"""Result lines with values that no column can hold: a row of their own, and the batch is stored all the same."""

from __future__ import annotations

import re
from typing import Any

import orjson
import pandas as pd
import pytest

from batch_assets.core.api.errors import UnknownOutcomeError
from batch_assets.core.api.objects import BatchObject
from batch_assets.core.errors import DamagedFileError
from batch_assets.core.io.json_files import read_document
from batch_assets.core.io.storage import Storage
from batch_assets.core.store.manifest import Receipt

from ..support import BATCHES, CREATE, LIST, World, texts


def lines_of(world: World, batch_id: str) -> list[dict[str, Any]]:
    with world.root.api.results(batch_id) as chunks:
        return [orjson.loads(line) for line in b"".join(chunks).splitlines()]


def served(world: World, batch_id: str, lines: list[bytes]) -> None:
    path = f"{BATCHES}/{batch_id}/results"
    match = {"method": "GET", "path": path}
    world.emulator.faults([{"match": match, "action": {"status": 200, "body": b"".join(lines).decode()}}])


USAGE = ["input_tokens", "output_tokens", "cache_creation_input_tokens", "cache_read_input_tokens"]
ODD_TOKENS = ["1e30", "-1", '"5"', "true", "1.5", "9223372036854775808", "[1]", '{"a":1}']
ODD_TEXTS = ["5", "true", "[]", '{"type":"x"}', "1.5"]
ODD = [
    *((f'"{name}": {value}', name) for name in USAGE[:2] for value in ODD_TOKENS),
    *((f'"{name}": -3', name) for name in USAGE[2:]),
    ('"cache_creation": "x", "cache_creation_input_tokens": 5', "message"),
    ('"cache_creation": {"ephemeral_1h_input_tokens": "x"}, "cache_creation_input_tokens": 5', "message"),
    ('"cache_creation": {"ephemeral_1h_input_tokens": -1e300}, "cache_creation_input_tokens": 5', "cost"),
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
