"""The first stage: what is written, what is left out, and what is not left behind when it fails."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import orjson
import pandas as pd
import pyarrow.parquet as pq
import pytest

from batch_assets.core.errors import BusyError, ConfigError, DatasetError
from batch_assets.core.ledger import leases
from batch_assets.core.requests.build import build_requests
from batch_assets.core.settings import SettingsError

from ..support import World, params, texts


def test_files_are_cut_by_count(world: World) -> None:
    pipeline = world.pipeline(texts(25), batching={"max_requests": 10})
    report = world.build(pipeline)
    assert [file.requests for file in world.files(pipeline)] == [10, 10, 5]
    assert report.files == ["part-00000.jsonl", "part-00001.jsonl", "part-00002.jsonl"]
    assert (report.rows, report.requests, report.written) == (25, 25, 25)


def test_files_are_cut_by_the_bytes_of_the_body_that_is_sent(world: World) -> None:
    """Each body stays within the limit, has the size on record, and could not have held the next request."""
    limit = 20_000
    rows = {key: text * (number % 90 + 1) for number, (key, text) in enumerate(texts(200).items())}
    pipeline = world.pipeline(rows, batching={"max_mb": limit / 1e6})
    report = world.build(pipeline)
    world.submit(pipeline)
    files = world.files(pipeline)
    accepted = {batch["id"]: batch for batch in world.accepted()}
    batches = [accepted[file.batch_id] for file in files]  # whichever limit was reached first
    assert len(files) == len(accepted) > 5
    assert sum(batch["bytes"] for batch in batches) == report.bytes
    folder = world.submission_folder(pipeline, report)
    for position, (file, batch) in enumerate(zip(files, batches, strict=True)):
        body = world.sent_body(batch["id"])
        lines = (folder / file.name).read_bytes().splitlines(keepends=True)
        assert len(body) == batch["bytes"] == file.bytes <= limit
        assert orjson.loads(body) == {"requests": [orjson.loads(line) for line in lines]}
        if position:
            before = files[position - 1]
            assert before.bytes + len(lines[0]) > limit


@pytest.mark.parametrize("size", [(1 << 20) - 60, 1 << 20, (1 << 20) + 1])
def test_a_body_is_exact_whatever_the_chunks_it_is_read_in(world: World, size: int) -> None:
    """The lines end near the edges of the chunks in which a file is read."""
    for extra in range(4):
        rows = {"a": "x" * (size - 220 + extra * 40), "b": "second", "c": "third" * 30_000}
        pipeline = world.pipeline(rows, params=params("{{ text }} " + str(extra)))
        report = world.build(pipeline)
        world.submit(pipeline)
        lines = (world.submission_folder(pipeline, report) / "part-00000.jsonl").read_bytes().split(b"\n")
        body = b'{"requests":[' + b",".join(line for line in lines if line) + b"]}"
        batch = world.accepted()[-1]
        assert world.sent_body(batch["id"]) == body


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ("id,text\na,1\nb,2\na,3\nb,4\nc,5\n", "2 of its values name more than one row: 'a', 'b'"),
        ("id,text\na,1\n,2\nb,3\n,4\n", r"2 rows have none; the first are rows 1, 3 \(counted from 0\)"),
        ("id,text\n" + "7,x\n" * 3 + "8,x\n", "1 of its values name more than one row: 7. "),
        (
            "id,text\n" + "".join(f"{n % 50},x\n" for n in range(100)),
            "50 of its values .*: 0, 1, 2, 3, 4 and so on",
        ),
    ],
)
def test_invalid_row_keys_stop_the_run_and_leave_nothing(world: World, rows: str, problem: str) -> None:
    (world.folder / "rows.csv").write_text(rows)
    pipeline = world.pipeline("rows.csv", batching={"max_requests": 1})
    with pytest.raises(DatasetError, match=problem):
        world.build(pipeline)
    assert world.query("select count(*) from submission") == [(0,)]
    assert world.query("select count(*) from request_file") == [(0,)]
    assert [path for path in world.path("asked").rglob("*") if path.is_file()] == []


def test_a_reading_error_in_the_middle_leaves_nothing_and_the_next_run_works(world: World) -> None:
    good = '{"id":"a","text":"x"}\n'
    (world.folder / "rows.jsonl").write_text(good)
    pipeline = world.pipeline()
    build_requests(world.root, pipeline)
    before = sorted(world.path().rglob("*.jsonl"))

    def stop(rows: int) -> None:
        raise KeyboardInterrupt

    (world.folder / "rows.jsonl").write_text(good + '{"id":"b","text":"y"}\n')
    with pytest.raises(KeyboardInterrupt):
        build_requests(world.root, pipeline, on_rows=stop)
    assert sorted(world.path().rglob("*.jsonl")) == before
    assert world.query("select count(*) from lease") == [(0,)]
    assert build_requests(world.root, pipeline).rows == 2


@pytest.mark.parametrize(("seconds", "outcome"), [(590.0, nullcontext()), (610.0, pytest.raises(BusyError))])
def test_a_build_waits_ten_minutes_for_others_of_its_pipeline(
    world: World, monkeypatch: pytest.MonkeyPatch, seconds: float, outcome: AbstractContextManager[Any]
) -> None:
    """Like `results`, because partitions that are started together are built one after the other."""
    pipeline = world.pipeline(texts(1))
    clock = 0.0

    def sleep(_: float) -> None:
        nonlocal clock
        clock += 1.0
        if clock == seconds:
            others.release()

    monkeypatch.setattr(time, "monotonic", lambda: clock)
    monkeypatch.setattr(time, "sleep", sleep)
    with leases.hold(world.root.ledger, f"requests:{pipeline.name}") as others, outcome:
        assert world.build(pipeline).rows == 1


def test_integer_keys_with_equal_hashes_are_not_duplicates(world: World) -> None:
    (world.folder / "rows.csv").write_text("id,text\n-1,x\n-2,y\n")
    assert world.build(world.pipeline("rows.csv")).rows == 2


def test_every_rejected_row_is_kept_with_its_reason(world: World) -> None:
    lines = [
        b'{"id":"fine","text":"hello","n":1}',
        b'{"id":"empty","text":" ","n":1}',
        b'{"id":"null","text":null,"n":1}',
        b'{"id":"broken","text":"\\ud800","n":1}',
        b'{"id":"large","text":"' + b"x" * 5000 + b'","n":1}',
        b'{"id":"failing","text":"hello","n":0}',
    ]
    (world.folder / "rows.jsonl").write_bytes(b"\n".join(lines))
    with_system = params("{{ text }}", system="{{ 10 // n }}")
    pipeline = world.pipeline(params=with_system, batching={"max_mb": 0.004})
    report = world.build(pipeline)
    expected = {
        "empty": "empty_prompt",
        "null": "empty_prompt",
        "broken": "invalid_unicode",
        "large": "request_too_large",
        "failing": "template_error",
    }
    kept = pd.read_parquet(world.submission_folder(pipeline, report) / "rejected.parquet")
    assert dict(zip(kept["id"], kept["reason"], strict=True)) == expected
    assert kept["message"].str.len().min() > 10
    world.submit(pipeline)
    world.finish(pipeline)
    table = world.table(pipeline)
    assert list(table["result_type"]) == ["succeeded"] + ["rejected"] * 5
    rejected = table[table["result_type"] == "rejected"]
    assert dict(zip(rejected["id"], rejected["error_type"], strict=True)) == expected
    assert list(rejected["error_message"]) == list(kept["message"])
    assert rejected[["custom_id", "response_text", "input_tokens", "batch_id"]].isna().all(axis=None)
    assert (report.rejected, report.requests, len(world.accepted_custom_ids())) == (5, 1, 1)


@pytest.mark.parametrize(
    ("name", "content"), [("rows.csv", b"id,text\n"), ("rows.jsonl", b""), ("rows.csv", b'id,text\na,""\n')]
)
def test_a_dataset_without_requests_becomes_results_without_a_call(
    world: World, name: str, content: bytes
) -> None:
    (world.folder / name).write_bytes(content)
    pipeline = world.pipeline(dataset={"path": name, "columns": []}, params=params("{{ row_number * 0 or '' }}"))
    if name == "rows.csv":
        pipeline = world.pipeline(dataset={"path": name, "key": "id"})
    world.build(pipeline)
    report = world.submit(pipeline)
    done = world.collect(pipeline)
    assert report.submitted == []
    assert done.results is not None
    assert done.results.final
    assert len(world.table(pipeline)) == content.count(b"a,")
    assert world.calls().total() == 0


def test_rows_with_equal_requests_share_one(world: World) -> None:
    rows = {"a": "same", "b": "other", "c": "same", "d": "same"}
    table = world.run(world.pipeline(rows))
    assert len(world.accepted_custom_ids()) == 2
    assert [key if isinstance(key, str) else None for key in table["shared_with"]] == [None, None, "a", "a"]
    assert table["response_text"][0] == table["response_text"][2] == table["response_text"][3]
    assert list(table["custom_id"].str.startswith("a-")) == [True, False, True, True]
    for column in ("input_tokens", "output_tokens", "cost_usd"):
        assert list(table[column].isna()) == [False, False, True, True]


def test_rows_are_shared_over_files_and_blocks(world: World) -> None:
    """More rows than one block of any reader, two texts in turn."""
    rows = {str(number): f"text {number % 2}" for number in range(20_000)}
    pipeline = world.pipeline(rows, batching={"max_requests": 1})
    table = world.run(pipeline)
    assert len(world.accepted_custom_ids()) == 2
    assert table["shared_with"].isna().sum() == 2
    assert list(table["shared_with"][2:6]) == ["0", "1", "0", "1"]
    assert table["response_text"].nunique() == 2
    assert table["input_tokens"].count() == 2


def test_headers_are_sent_and_are_part_of_a_requests_identity(world: World) -> None:
    rows = texts(1)
    with_temperature = params(temperature=0.5, model="claude-haiku-4-5")
    world.run(world.pipeline(rows, params=with_temperature, anthropic_version="2023-06-01"))
    world.run(world.pipeline(rows, params=with_temperature, anthropic_version="2023-06-01", betas=["one", "two"]))
    first, second = world.accepted(custom_ids=True)
    assert (first["version"], first["betas"]) == ("2023-06-01", "")
    assert (second["version"], second["betas"]) == ("2023-06-01", "one,two")
    assert first["custom_ids"] != second["custom_ids"]


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"params": params("{{ txt }}")}, r"params.messages\[0\].content: the template reads 'txt'.*id, text"),
        (
            {"dataset": {"path": "rows.jsonl", "key": "id", "columns": {"text": "batch_id"}}},
            "`text: dataset_text`",
        ),
        (
            {"dataset": {"path": "rows.jsonl", "key": "text", "columns": {"id": "text"}}},
            "the row key 'text' have the same",
        ),
    ],
)
def test_a_pipeline_that_does_not_fit_its_dataset_is_refused(world: World, fields: Any, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        world.build(world.pipeline(texts(1), **fields))


def test_the_row_key_can_be_renamed(world: World) -> None:
    """Earlier answers are the input of a second question, with the columns that results have."""
    rows = [{"custom_id": f"row-{n}", "text": f"text {n}"} for n in range(3)]
    rows.append({"custom_id": "row-3", "text": None})
    (world.folder / "rows.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    dataset = {"path": "rows.jsonl", "key": {"custom_id": "asked_id"}, "columns": ["text"]}
    pipeline = world.pipeline(dataset=dataset, params=params("{{ text }}"))
    table = world.run(pipeline)
    assert [*table.columns[:2]] == ["asked_id", "text"]
    assert list(table["asked_id"]) == [f"row-{n}" for n in range(4)]
    assert list(table["result_type"]) == ["succeeded"] * 3 + ["rejected"]
    assert table["custom_id"][0].startswith("row-0-")
    (rejected,) = world.path(pipeline.name, "requests").glob("*/rejected.parquet")
    assert pq.read_table(rejected).to_pylist()[0]["asked_id"] == "row-3"


def test_carried_columns_can_be_renamed_and_left_out(world: World) -> None:
    world.pipeline(texts(2))
    dataset: dict[str, Any] = {"path": "rows.jsonl", "key": "id", "columns": {"text": "question", "id": "again"}}
    table = world.run(world.pipeline(dataset=dataset))
    assert list(table.columns[:4]) == ["id", "question", "again", "custom_id"]
    assert list(table["again"]) == list(table["id"]) == ["row-0", "row-1"]
    dataset["columns"] = []
    table = world.run(world.pipeline(dataset=dataset))
    assert list(table.columns[:2]) == ["id", "custom_id"]


def test_without_an_endpoint_nothing_begins(new_world: Callable[..., World]) -> None:
    world = new_world(BATCH_ASSETS_EMULATOR="")
    pipeline = world.pipeline(texts(1))
    world.build(pipeline)
    with pytest.raises(SettingsError, match="ANTHROPIC_API_KEY"):
        world.submit(pipeline)
    assert world.states(pipeline) == ["ready"]
    assert world.query("select count(*) from intent") == [(0,)]
