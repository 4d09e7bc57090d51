"""The fixtures of `batch_assets.testing`, as a user's tests use them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pyarrow as pa
import pytest

from batch_assets import build_message_batch_assets
from batch_assets.core.errors import BatchAssetsError
from batch_assets.testing import Answer, AskedRequest, BatchEmulator, Failure, RunPipeline, ToolCall

SCHEMA = {
    "type": "object",
    "properties": {"mood": {"type": "string", "enum": ["good", "bad"]}},
    "required": ["mood"],
    "additionalProperties": False,
}
ROWS = [{"id": "R 1", "text": "Lovely."}, {"id": "R 2", "text": "Broken."}, {"id": "R 3", "text": "Fine."}]
PARAMS = {
    "model": "claude-haiku-5-5",
    "max_tokens": 100,
    "messages": [{"role": "user", "content": "{{ text }}"}],
}


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    """A pipeline whose dataset does not exist: the tests have rows of their own."""
    return write_pipeline(tmp_path, output_schema=SCHEMA)


def write_pipeline(tmp_path: Path, **more: Any) -> Path:
    folder = tmp_path / "moods"
    folder.mkdir()
    attributes = {"name": "moods", "dataset": {"path": "none.csv", "key": "id"}, "params": PARAMS} | more
    document = {"type": "batch_assets.MessageBatchComponent", "attributes": attributes}
    (folder / "defs.yaml").write_text(json.dumps(document))  # JSON is YAML
    return folder


def test_answers_by_row_key(batch_emulator: BatchEmulator, run_pipeline: RunPipeline, pipeline: Path) -> None:
    batch_emulator.answers({"R 1": {"mood": "good"}, "R 2": {"mood": "bad"}})
    table = run_pipeline(pipeline, ROWS)
    assert list(table["id"]) == ["R 1", "R 2", "R 3"]
    assert list(table["mood"])[:2] == ["good", "bad"]
    assert table["mood"][2] in ("good", "bad"), "a row without an answer has an emulated one"
    assert set(table["result_type"]) == {"succeeded"}
    assert batch_emulator.unused == []
    assert (batch_emulator.bill()["requests"], len(batch_emulator.log())) == (3, 1)
    assert list(run_pipeline(pipeline, ROWS)["mood"]) == list(table["mood"])
    assert len(batch_emulator.log()) == 1, "what is answered is not sent again"


def test_rows_are_rendered_as_those_of_a_dataset(
    batch_emulator: BatchEmulator, run_pipeline: RunPipeline, tmp_path: Path
) -> None:
    """Each row has its own keys, and each value its own kind."""
    rows: list[dict[str, Any]] = [
        {"id": "1", "meta": {"a": 1}, "tags": ["x", "y"]},
        {"id": "2", "meta": {"b": 2}, "tags": "x"},
        {"id": "3", "note": 2.5},
    ]
    (tmp_path / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    messages = [{"role": "user", "content": "{{ row | tojson }}"}]
    folder = write_pipeline(
        tmp_path,
        dataset={"path": str(tmp_path / "rows.jsonl"), "key": "id"},
        params={**PARAMS, "messages": messages},
    )
    asked: list[str] = []
    batch_emulator.answers(lambda request: asked.append(request.text))
    run_pipeline(folder, rows)
    assert sorted(map(json.loads, asked), key=lambda row: row["id"]) == rows
    asked.clear()
    run_pipeline(folder)
    assert not asked, "the requests are the same, and answered"


def test_a_pipeline_file_is_read_as_dagster_reads_it(
    batch_emulator: BatchEmulator, run_pipeline: RunPipeline, tmp_path: Path
) -> None:
    folder = write_pipeline(tmp_path)
    file = folder / "defs.yaml"
    written = file.read_text()
    file.write_text(written.replace('"key": "id"', '"key": !env KEY'))
    with pytest.raises(BatchAssetsError, match="line 1: there is no tag !env in a pipeline file"):
        run_pipeline(folder, ROWS)
    file.write_text(
        "\ufeff"
        + written.replace('"name"', '"partitions": {"daily": {"start": 2026-11-01}, "column": "day"}, "name"')
    )
    assert len(run_pipeline(folder, [row | {"day": "2026-11-02"} for row in ROWS], partition="2026-11-02")) == 3


def test_answers_of_a_function_and_a_newer_script(
    batch_emulator: BatchEmulator, run_pipeline: RunPipeline, tmp_path: Path
) -> None:
    asked: list[AskedRequest] = []

    def answer(request: AskedRequest) -> str:
        asked.append(request)
        return request.text.upper()

    batch_emulator.answers(answer)
    batch_emulator.answers({"R 3": Answer("cut o", stop_reason="max_tokens")})
    table = run_pipeline(write_pipeline(tmp_path), pd.DataFrame(ROWS))
    assert list(table["response_text"]) == ["LOVELY.", "BROKEN.", "cut o"]
    assert list(table["stop_reason"]) == ["end_turn", "end_turn", "max_tokens"]
    assert [(request.row, request.params["max_tokens"]) for request in asked] == [("R_1", 100), ("R_2", 100)]


def test_failures_and_retries(batch_emulator: BatchEmulator, run_pipeline: RunPipeline, pipeline: Path) -> None:
    times = []

    def overloaded_at_first(request: AskedRequest) -> Any:
        if request.row != "R_2":
            return None
        times.append(request)
        return Failure("overloaded_error") if len(times) == 1 else {"mood": "bad"}

    batch_emulator.answers(overloaded_at_first)
    batch_emulator.answers({"R 1": Failure("invalid_request_error", "too long")})
    table = run_pipeline(pipeline, pa.Table.from_pylist(ROWS)).set_index("id")
    assert list(table["result_type"]) == ["errored", "succeeded", "succeeded"]
    assert tuple(table.loc["R 1", ["error_type", "error_message"]]) == ("invalid_request_error", "too long")
    assert tuple(table.loc["R 2", ["mood", "attempts"]]) == ("bad", 2)
    assert table["output_tokens"].isna().tolist() == [True, False, False]
    assert str(table["output_tokens"].dtype) == "Int64", "also beside nulls"
    with pytest.raises(ValueError, match="'over' is not an error type of the API: invalid_request_error, "):
        Failure("over")


def test_a_follow_up_belongs_to_the_row_of_its_first_request(
    batch_emulator: BatchEmulator, run_pipeline: RunPipeline, tmp_path: Path
) -> None:
    folder = write_pipeline(tmp_path, output_schema=SCHEMA, retry={"invalid": 1})
    rows: list[str] = []

    def answer(request: AskedRequest) -> Any:
        rows.append(request.row)
        return {"mood": "good" if len(rows) > 1 else "so so"}

    batch_emulator.answers(answer)
    (row,) = run_pipeline(folder, ROWS[:1]).to_dict("records")
    assert (row["mood"], row["attempts"], rows) == ("good", 2, ["R_1", "R_1"])


def test_the_input_of_a_tool(batch_emulator: BatchEmulator, run_pipeline: RunPipeline, tmp_path: Path) -> None:
    tool = {"name": "note", "input_schema": SCHEMA}
    params = PARAMS | {"tools": [tool], "tool_choice": {"type": "tool", "name": "note"}}
    batch_emulator.answers(lambda _: {"mood": "bad"})
    assert list(run_pipeline(write_pipeline(tmp_path, params=params), ROWS)["mood"]) == ["bad"] * 3


def test_a_call_of_a_tool(batch_emulator: BatchEmulator, run_pipeline: RunPipeline, tmp_path: Path) -> None:
    params = PARAMS | {"tools": [{"name": "search", "input_schema": {"type": "object"}}]}
    batch_emulator.answers({"R 1": ToolCall("search", {"text": "router"})})
    called, other = run_pipeline(write_pipeline(tmp_path, params=params), ROWS[:2]).to_dict("records")
    assert (called["stop_reason"], other["stop_reason"]) == ("tool_use", "end_turn")
    (call,) = called["tool_calls"]
    assert (call["name"], json.loads(call["input"])) == ("search", {"text": "router"})
    assert other["tool_calls"] is None


def test_faults_and_time(batch_emulator: BatchEmulator, run_pipeline: RunPipeline, pipeline: Path) -> None:
    batch_emulator.faults([{"match": {"method": "POST"}, "action": {"error_mix": {"expired": 1.0}}}])
    table = run_pipeline(pipeline, ROWS)
    assert set(table["result_type"]) == {"expired"}
    before = batch_emulator.clock()["now"]
    assert batch_emulator.clock(advance=86400)["now"][:10] > before[:10]


def test_an_exception_of_a_function_is_that_of_the_test(
    batch_emulator: BatchEmulator, run_pipeline: RunPipeline, pipeline: Path
) -> None:
    batch_emulator.answers(lambda request: request.params["no such field"])
    with pytest.raises(KeyError, match="no such field"):
        run_pipeline(pipeline, ROWS)


def test_row_keys_that_look_the_same_are_refused(batch_emulator: BatchEmulator) -> None:
    with pytest.raises(ValueError, match=r"'R 1' and 'R\.1' look the same in a request: use a function"):
        batch_emulator.answers({"R 1": "a", "R.1": "b"})


def test_rows_that_look_the_same_get_no_answer_of_another(
    batch_emulator: BatchEmulator, run_pipeline: RunPipeline, pipeline: Path
) -> None:
    batch_emulator.answers({"R 1": {"mood": "good"}})
    run_pipeline(pipeline, [ROWS[0] | {"text": "The text of before."}])
    batch_emulator.answers({"R 1": {"mood": "bad"}})
    with pytest.raises(ValueError, match="two requests look like that of the row key 'R 1' of the answers"):
        run_pipeline(pipeline, [*ROWS, {"id": "R.1", "text": "Another row."}])


def test_a_limit_and_partitions(run_pipeline: RunPipeline, tmp_path: Path) -> None:
    rows = [{"id": number, "text": f"text {number}", "day": f"2026-11-0{1 + number % 2}"} for number in range(4)]
    partitions = {"daily": {"start": "2026-11-01"}, "column": "day"}
    folder = write_pipeline(tmp_path, partitions=partitions)
    table = run_pipeline(folder, rows, partition="2026-11-02", limit=1)
    assert dict(zip(table["id"], table["result_type"], strict=True)) == {1: "succeeded", 3: "pending"}
    with pytest.raises(BatchAssetsError, match="the pipeline has partitions: name one with `partition`"):
        run_pipeline(folder, rows)


def test_no_resource_sink_or_notice_leads_elsewhere(run_pipeline: RunPipeline, tmp_path: Path) -> None:
    webhook = {"url_env": "UNSET", "secret_env": "UNSET"}
    elsewhere = {"resource_key": "eu", "sink": {"url_env": "UNSET"}, "notify": [{"webhook": webhook}]}
    folder = write_pipeline(tmp_path, **elsewhere)
    assert set(run_pipeline(folder, ROWS)["result_type"]) == {"succeeded"}
    assert (tmp_path / "batch_assets" / "moods" / "results" / "results.parquet").is_file()


def test_a_materialization_uses_the_emulator(
    batch_emulator: BatchEmulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rows.csv").write_text("id,text\n1,one\n")
    assets = build_message_batch_assets(
        name="moods", dataset={"path": "rows.csv", "key": "id"}, params=PARAMS, folder=tmp_path, project=tmp_path
    )
    batch_emulator.answers({1: "materialized"})
    assert dg.materialize(assets, instance=dg.DagsterInstance.ephemeral()).success
    table = pd.read_parquet(tmp_path / "batch_assets" / "moods" / "results")
    assert list(table["response_text"]) == ["materialized"]


def test_a_pipeline_of_the_project_by_name(batch_emulator: BatchEmulator, run_pipeline: RunPipeline) -> None:
    columns = ("customer_tier", "order_total", "tags", "subject", "body", "opened_at")
    row = {"ticket_id": "T-1"} | dict.fromkeys(columns, "any")
    batch_emulator.answers({"T-1": "It is on its way."})
    (answered,) = run_pipeline("ticket_replies", [row]).to_dict("records")
    assert (answered["response_text"], answered["tier"]) == ("It is on its way.", "any")
    with pytest.raises(BatchAssetsError, match="no pipeline 'gone' in this project; its pipelines: review_triage"):
        run_pipeline("gone")


def test_a_dataset_that_is_an_asset_needs_rows(run_pipeline: RunPipeline, tmp_path: Path) -> None:
    folder = write_pipeline(tmp_path, dataset={"asset": "raw/reviews", "key": "id"})
    with pytest.raises(BatchAssetsError, match="the dataset is the asset raw/reviews: give the test rows"):
        run_pipeline(folder)
    assert len(run_pipeline(folder, ROWS)) == 3
