"""The table that users read: its columns and types, its order, and what it does not depend on."""

from __future__ import annotations

import http.server
import shutil
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch_assets.core.io.slices import SLICE_ROWS
from batch_assets.core.io.storage import Storage
from batch_assets.core.results import join, reorder
from batch_assets.core.store.outcomes import read_responses
from batch_assets.core.store.response_reader import ResponseReader
from batch_assets.core.store.responses import RESPONSE_SCHEMA

from ..support import BATCHES, World, params, texts

COLUMNS = [
    *("id", "text", "custom_id", "result_type", "is_ok", "response_text", "stop_reason"),
    *(
        "response_model",
        "message_id",
        "input_tokens",
        "output_tokens",
        "cache_creation_input_tokens",
        "cache_read_input_tokens",
    ),
    *("thinking_tokens", "cost_usd"),
    *("shared_with", "error_type", "error_message", "batch_id", "attempts", "ended_at", "response_json"),
]


def test_columns_and_types_are_those_of_the_contract(world: World) -> None:
    pipeline = world.pipeline(texts(2))
    world.run(pipeline)
    schema = pq.read_schema(world.path("asked", "results", "results.parquet"))
    assert schema.names == COLUMNS
    assert schema.field("id").type == pa.string()
    assert schema.field("attempts").type == pa.int32()
    assert schema.field("ended_at").type == pa.timestamp("us", "UTC")
    assert {schema.field(name).type for name in COLUMNS if name.endswith("_tokens")} == {pa.int64()}


def test_the_row_key_keeps_its_own_name_and_type(world: World) -> None:
    (world.folder / "rows.csv").write_text("nr,text\n7,a\n8,b\n")
    table = world.run(world.pipeline(dataset={"path": "rows.csv", "key": "nr"}))
    assert (table.columns[0], table["nr"].dtype, list(table["nr"])) == ("nr", np.int64, [7, 8])
    table = world.run(world.pipeline(dataset={"path": "rows.csv"}, name="numbered"))
    assert (table.columns[0], list(table["row_number"])) == ("row_number", [0, 1])


def test_a_partition_is_read_as_a_column_and_keys_are_encoded(world: World) -> None:
    for key in ("2024/01", "ü &%"):
        pipeline = world.pipeline(texts(2, key))
        world.build(pipeline, key)
        world.submit(pipeline, key)
        world.finish(pipeline, key)
    folders = sorted(path.name for path in world.path("asked", "results").iterdir())
    assert folders == ["partition=%C3%BC%20%26%25", "partition=2024%2F01"]
    assert sorted(set(world.table(pipeline)["partition"])) == ["2024/01", "ü &%"]


def test_rows_without_answers_are_pending_and_the_table_exists_from_the_first_run(world: World) -> None:
    world.emulator.settings(latency=3600)
    pipeline = world.pipeline(texts(4), batching={"max_requests": 2})
    first, _ = world.send(pipeline).submitted
    done = world.collect(pipeline)
    assert list(world.table(pipeline)["result_type"]) == ["pending"] * 4
    assert done.results is not None
    assert not done.results.final
    world.emulator.end_batches(first)
    world.collect(pipeline)
    assert list(world.table(pipeline)["result_type"]) == ["succeeded"] * 2 + ["pending"] * 2


def test_results_need_neither_dataset_nor_pipeline_file(world: World) -> None:
    schema = {
        "type": "object",
        "properties": {"x": {"type": "integer"}},
        "required": ["x"],
        "additionalProperties": False,
    }
    (world.folder / "schema.json").write_text(pd.io.json.ujson_dumps(schema))
    (world.folder / "system.md").write_text("Be brief.")
    with_system = params(system="{% include 'system.md' %}")
    pipeline = world.pipeline(texts(3), params=with_system, output_schema="schema.json")
    world.send(pipeline)
    for name in ("rows.jsonl", "schema.json", "system.md"):
        (world.folder / name).unlink()
    world.finish(pipeline)
    table = world.table(pipeline)
    assert list(table["text"]) == list(texts(3).values())
    assert table["x"].notna().all()


def test_results_are_replaced_as_a_whole_and_rebuilt_from_stored_files(world: World) -> None:
    pipeline = world.pipeline(texts(3))
    before = world.run(pipeline)
    shutil.rmtree(world.path("asked", "results"))
    world.forget_calls()
    world.collect(pipeline)
    pd.testing.assert_frame_equal(world.table(pipeline), before)
    assert world.calls().total() == 0
    assert [path.name for path in world.path("asked", "results").iterdir()] == ["results.parquet"]


def test_the_report_sums_up_the_table(world: World) -> None:
    rows = {"a": "same", "b": "same", "c": "other", "d": " "}
    pipeline = world.pipeline(rows)
    world.send(pipeline)
    report = world.finish(pipeline).results
    table = world.table(pipeline)
    assert report is not None
    assert dict(report.counts) == {"succeeded": 3, "rejected": 1}
    assert (report.input_tokens, report.output_tokens) == (
        table["input_tokens"].sum(),
        table["output_tokens"].sum(),
    )
    assert report.cost_usd == pytest.approx(table["cost_usd"].sum())
    assert report.cost_usd > 0


def _shuffled(count: int) -> dict[str, str]:
    order = np.random.default_rng(5).permutation(count)
    return {str(number): f"text {number}" for number in order.tolist()}


@pytest.fixture
def spilled_slices(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Record what is spilled, so that a test can check that it was."""
    spilled: list[int] = []
    inner = reorder.Reordered.take

    def take(self: Any, rows: Any) -> pa.Table:
        spilled.append(len(rows))
        return inner(self, rows)

    monkeypatch.setattr(reorder.Reordered, "take", take)
    assert join.Reordered is reorder.Reordered
    return spilled


def test_a_dataset_in_another_order_than_its_request_files_gets_the_right_answers(
    world: World, spilled_slices: list[int]
) -> None:
    """The rows are sent in one order and then come in another: the responses are laid out again on disk.

    Lengths of texts differ so that blocks of the dataset are no round number of rows.
    """
    count = 42_000
    ordered = {str(number): f"text {number}" for number in range(count)}
    world.run(world.pipeline(ordered, batching={"max_requests": 5_000}))
    pipeline = world.pipeline({key: ordered[key] for key in _shuffled(count)})
    carried = {"path": "rows.jsonl", "key": "id", "columns": {"text": "carried"}}
    table = world.run(world.pipeline(dataset=carried))
    assert spilled_slices
    assert len(world.accepted_custom_ids()) == count
    assert list(table["id"]) == list(_shuffled(count))
    assert pipeline.name == "asked"
    wrong = [
        row.id for row in table.itertuples() if f": text {row.id}" not in row.response_text.split("\n")[0] + "\n"
    ]
    assert wrong == []
    assert (table["carried"] == "text " + table["id"]).all()


def test_reordered_responses_match_their_positions(world: World) -> None:
    """Compare with direct reads, for places in random order with gaps and repeats, and an uneven last slice."""
    storage = Storage(str(world.folder / "store"))
    names: list[str] = []
    for number, rows in enumerate((20_000, 1, 9_000)):
        own = [f"{number}-{row}" for row in range(rows)]
        names += own
        columns = {field.name: pa.nulls(rows, field.type) for field in RESPONSE_SCHEMA}
        table = pa.table(columns | {"custom_id": pa.array(own)}, schema=RESPONSE_SCHEMA)
        with storage.write("p", "responses", f"{number}.parquet") as scratch:
            pq.write_table(table, scratch, row_group_size=3_000)
    random = np.random.default_rng(3)
    positions = random.integers(0, len(names), 30_000)
    positions[random.integers(0, 30_000, 3_000)] = -1
    with (
        ResponseReader(read_responses(storage, "p")[0]) as reader,
        reorder.Reordered(reader, np.array_split(positions.astype(np.int32), 7)) as spilled,
    ):
        for start in range(0, len(positions), SLICE_ROWS):
            part = positions[start : start + SLICE_ROWS]
            expected = [None if at < 0 else names[at] for at in part.tolist()]
            assert spilled.take(part)["custom_id"].to_pylist() == expected
            assert reader.take(part)["custom_id"].to_pylist() == expected


def test_stretches_of_responses_match_their_positions(world: World) -> None:
    """As in a table of which few rows have changed: most follow each other, some are elsewhere or missing."""
    storage = Storage(str(world.folder / "store"))
    for number, rows in enumerate((9_000, 90)):
        own = {"custom_id": pa.array([f"{number}-{row}" for row in range(rows)])}
        columns = {field.name: pa.nulls(rows, field.type) for field in RESPONSE_SCHEMA}
        table = pa.table(columns | own, schema=RESPONSE_SCHEMA)
        with storage.write("p", "responses", f"{number}.parquet") as scratch:
            pq.write_table(table, scratch, row_group_size=3_000)
    names = [f"0-{row}" for row in range(9_000)] + [f"1-{row}" for row in range(90)]
    positions = np.arange(9_000)
    positions[::100] = 9_000 + np.arange(90)
    positions[500:540] = -1
    positions[8_999] = 3
    with ResponseReader(read_responses(storage, "p")[0]) as reader:
        for start in range(0, len(positions), SLICE_ROWS):
            part = positions[start : start + SLICE_ROWS]
            expected = [None if at < 0 else names[at] for at in part.tolist()]
            taken = reader.take(part)
            assert taken["custom_id"].to_pylist() == expected
            assert taken["custom_id"].num_chunks <= 1


@pytest.fixture
def listener() -> Iterator[tuple[str, list[dict[str, str]]]]:
    """A second HTTP server that records the headers of every call."""
    received: list[dict[str, str]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            received.append(dict(self.headers))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", received
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("how", ["results_url", "redirect"])
def test_the_key_goes_nowhere_but_to_the_base_url(
    new_world: Callable[..., World],
    monkeypatch: pytest.MonkeyPatch,
    listener: tuple[str, list[dict[str, str]]],
    how: str,
) -> None:
    elsewhere, received = listener
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-secret")
    world = new_world()
    variables = {"ANTHROPIC_BASE_URL": world.emulator.url, "ANTHROPIC_API_KEY": "sk-secret"}
    world = new_world(name="keyed", BATCH_ASSETS_EMULATOR="", **variables)
    pipeline = world.pipeline(texts(2))
    if how == "results_url":
        world.emulator.faults([{"match": {}, "action": {"results_url": elsewhere + "/{id}"}}])
    else:
        moved = {"status": 302, "headers": {"location": elsewhere}}
        world.emulator.faults([{"match": {"path": f"{BATCHES}/*/results", "times": 1}, "action": moved}])
    world.send(pipeline)
    world.finish(pipeline)
    assert set(world.table(pipeline)["result_type"]) == {"succeeded"}
    assert received == []
