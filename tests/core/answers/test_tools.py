"""Tools: the input of a forced tool becomes typed columns, the calls of other tools a list."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pyarrow as pa
import pytest

from batch_assets.core.answers.answers import Answers
from batch_assets.core.answers.output_schema import OutputSchema
from batch_assets.core.errors import ConfigError
from batch_assets.core.pipeline.pipeline import Pipeline

from ..support import World, params, texts
from .test_output_types import schema_of

RATING: dict[str, Any] = {
    "type": "object",
    "properties": {
        "stars": {"type": "integer", "minimum": 1, "maximum": 5},
        "mood": {"enum": ["good", "bad"], "description": "Of {{ text }}"},
    },
    "required": ["stars", "mood"],
}
TOOL = {"name": "rate", "description": "Rates {{ text }}.", "input_schema": RATING}
OTHER = {"name": "other", "input_schema": {"type": "object", "properties": {"n": {"type": "integer"}}}}
FORCED = {"type": "tool", "name": "rate"}


def asked(**more: Any) -> dict[str, Any]:
    return params(max_tokens=1000, **more)


def column_names(pipeline: Pipeline) -> list[str]:
    return [field.name for field in pipeline.answers.fields]


def test_the_input_of_a_forced_tool_becomes_typed_columns(world: World) -> None:
    pipeline = world.pipeline(texts(5), params=asked(tools=[OTHER, TOOL], tool_choice=FORCED))
    world.send(pipeline)
    report = world.finish(pipeline).results
    table = world.table(pipeline)
    assert report is not None
    assert report.invalid_outputs == 0
    assert list(table["mood"].cat.categories) == ["good", "bad"]
    for _, row in table.iterrows():
        (block,) = orjson.loads(row["response_json"])["content"]
        assert block["name"] == "rate"
        assert {"stars": row["stars"], "mood": row["mood"]} == block["input"]
    (batch,) = world.accepted()
    for request in orjson.loads(world.sent_body(batch["id"]))["requests"]:
        assert "output_config" not in request["params"]
    assert "tool_calls" not in table
    assert table["response_text"].isna().all()


def test_the_input_of_a_truncated_tool_call(world: World) -> None:
    pipeline = world.pipeline(texts(2), params=params(max_tokens=2, tools=[TOOL], tool_choice=FORCED))
    world.send(pipeline)
    report = world.finish(pipeline).results
    table = world.table(pipeline)
    assert report is not None
    assert (report.truncated, report.invalid_outputs) == (2, 2)
    assert list(table["error_type"]) == ["invalid_output"] * 2
    assert list(table["error_message"]) == ["cut off at max_tokens: the answer lacks the property 'stars'"] * 2
    assert table["stars"].isna().all()


def test_calls_of_tools_that_are_not_forced_are_listed(world: World) -> None:
    pipeline = world.pipeline(texts(4), params=asked(tools=[OTHER, TOOL], tool_choice={"type": "any"}))
    table = world.run(pipeline)
    names = list(table.columns)
    assert names[names.index("response_text") + 1] == "tool_calls"
    for _, row in table.iterrows():
        (block,) = orjson.loads(row["response_json"])["content"]
        (call,) = row["tool_calls"]
        assert call == {"id": block["id"], "name": block["name"], "input": orjson.dumps(block["input"]).decode()}


def test_answers_that_call_no_tool(world: World) -> None:
    table = world.run(world.pipeline(texts(2), params=asked(tools=[TOOL])))
    assert table["tool_calls"].isna().all()
    assert table["response_text"].notna().all()


def test_a_submission_of_an_earlier_version_has_neither_column(world: World) -> None:
    pipeline = world.pipeline(texts(2), params=asked(tools=[TOOL], tool_choice=FORCED))
    report = world.build(pipeline)
    path = world.submission_folder(pipeline, report) / "manifest.json"
    manifest = orjson.loads(path.read_bytes())
    del manifest["output_tool"], manifest["tool_calls"]
    manifest["output_schema"] = None
    path.write_bytes(orjson.dumps(manifest))
    world.submit(pipeline)
    world.finish(pipeline)
    table = world.table(pipeline)
    assert not {"tool_calls", "stars"} & set(table.columns)
    assert list(table["result_type"]) == ["succeeded"] * 2


@pytest.mark.parametrize(
    ("more", "columns"),
    [
        ({"tools": [TOOL], "tool_choice": FORCED}, ["stars", "mood"]),
        ({"tools": [TOOL], "tool_choice": {"type": "auto"}}, ["tool_calls"]),
        ({"tools": [TOOL], "tool_choice": {"type": "tool", "name": "{{ text }}"}}, ["tool_calls"]),
        ({"tools": [OTHER, "{{ text }}", TOOL], "tool_choice": FORCED}, ["stars", "mood"]),
        ({"tools": "{{ text }}", "tool_choice": FORCED}, ["tool_calls"]),
        (
            {
                "tools": [{"name": "rate", "input_schema": schema_of(a={"enum": ["{{ text }}"]})}],
                "tool_choice": FORCED,
            },
            ["tool_calls"],
        ),
        ({"tools": [{"name": "rate", "input_schema": {"type": "object"}}], "tool_choice": FORCED}, ["tool_calls"]),
        ({}, []),
    ],
)
def test_which_columns_tools_add(world: World, more: dict[str, Any], columns: list[str]) -> None:
    assert column_names(world.pipeline(texts(1), params=asked(**more))) == columns


def test_an_output_schema_together_with_tools(world: World) -> None:
    schema = schema_of(n={"type": "integer"})
    more = asked(tools=[TOOL], tool_choice={"type": "auto"})
    assert column_names(world.pipeline(texts(1), params=more, output_schema=schema)) == ["n", "tool_calls"]
    for choice in (FORCED, {"type": "any"}):
        with pytest.raises(ConfigError, match=r"params\.tool_choice: every answer is then a tool call without"):
            world.pipeline(texts(1), params=asked(tools=[TOOL], tool_choice=choice), output_schema=schema)


def test_the_schema_of_a_strict_tool_is_checked(world: World) -> None:
    with pytest.raises(ConfigError, match='requires "additionalProperties": false') as caught:
        world.pipeline(texts(1), params=asked(tools=[OTHER, {**TOOL, "strict": True}]))
    assert caught.value.field == "params.tools[1].input_schema"


def test_names_that_clash(world: World) -> None:
    tool = {"name": "rate", "input_schema": {"type": "object", "properties": {"attempts": {"type": "integer"}}}}
    with pytest.raises(ConfigError, match="'attempts' has the name of a results column") as caught:
        world.pipeline(texts(1), params=asked(tools=[tool], tool_choice=FORCED))
    assert caught.value.field == "params.tools[0].input_schema"
    (world.folder / "calls.jsonl").write_text('{"id": 1, "text": "a", "tool_calls": "b"}\n')
    dataset = {"path": "calls.jsonl", "key": "id"}
    world.build(world.pipeline(dataset=dataset))
    with pytest.raises(ConfigError, match="`tool_calls: dataset_tool_calls`"):
        world.build(world.pipeline(dataset=dataset, params=asked(tools=[TOOL])))


def slice_of(*messages: dict[str, Any] | None) -> dict[str, Any]:
    """The columns of a slice of results with these messages; `None` for a row that failed."""
    texts_ = [
        "".join(block["text"] for block in message["content"] if block["type"] == "text") or None
        if message
        else None
        for message in messages
    ]
    return {
        "result_type": pa.array(["succeeded" if message else "errored" for message in messages]),
        "response_text": pa.array(texts_, pa.string()),
        "response_json": pa.array([json.dumps(message) if message else None for message in messages]),
        "stop_reason": pa.array(
            [message["stop_reason"] if message else None for message in messages], pa.string()
        ),
        "error_type": pa.array([None if message else "api_error" for message in messages], pa.string()),
        "error_message": pa.array([None if message else "gone" for message in messages], pa.string()),
    }


def message(*content: dict[str, Any], stop_reason: str = "tool_use") -> dict[str, Any]:
    return {"content": list(content), "stop_reason": stop_reason}


def call(name: str, input_: Any, number: int = 1, kind: str = "tool_use") -> dict[str, Any]:
    return {"type": kind, "id": f"toolu_{number}", "name": name, "input": input_}


TEXT = {"type": "text", "text": "First I look."}
THOUGHT = {"type": "thinking", "thinking": "…", "signature": "x"}
SERVER = call("web_search", {"query": "x"}, kind="server_tool_use")


def test_several_calls_together_with_text_and_server_tools() -> None:
    columns = slice_of(
        message(THOUGHT, TEXT, SERVER, call("a", {"n": 1}), call("a", {}, 2)), message(TEXT, SERVER), None
    )
    assert Answers(None, None, tool_calls=True).add(columns) == 0
    calls = [
        {"id": "toolu_1", "name": "a", "input": '{"n":1}'},
        {"id": "toolu_2", "name": "a", "input": "{}"},
    ]
    assert columns["tool_calls"].to_pylist() == [calls, None, None]
    assert columns["error_type"].to_pylist() == [None, None, "api_error"]


def test_answers_of_a_forced_tool_that_do_not_match() -> None:
    deep: Any = 1
    for _ in range(300):
        deep = [deep]
    columns = slice_of(
        message(TEXT, call("rate", {"stars": 2, "mood": "good", "more": deep}), call("rate", {}, 2)),
        message(TEXT, call("other", {"stars": 2, "mood": "good"})),
        message(TEXT, stop_reason="refusal"),
        message(call("rate", {"stars": 2, "mood": "fine"})),
        message(call("rate", {"stars": 2}), stop_reason="model_context_window_exceeded"),
        None,
    )
    assert Answers(OutputSchema(RATING), "rate", tool_calls=False).add(columns) == 4
    assert columns["stars"].to_pylist() == [2, *[None] * 5]
    assert columns["mood"].to_pylist() == ["good", *[None] * 5]
    assert columns["error_type"].to_pylist() == [None, *["invalid_output"] * 4, "api_error"]
    assert columns["error_message"].to_pylist() == [
        None,
        "the answer does not call the tool 'rate'",
        "the model refused",
        "unexpected value 'fine' of the property 'mood'; expected one of 'good', 'bad'",
        "cut off at the end of the model's context window: the answer lacks the property 'mood'",
        "gone",
    ]


def test_whole_numbers_in_the_input_of_a_tool_keep_every_digit() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}, "m": {}}, "required": ["n"]}
    digits = ["9007199254740993", "9007199254740993.0", "9.007199254740993e15", "9007199254740993E0"]
    columns = slice_of(*(message(call("rate", {"n": 0})) for _ in digits))
    raw = columns["response_json"].to_pylist()
    texts_ = [text.replace('"n": 0', f'"n": {n}, "m": [{n}]') for text, n in zip(raw, digits, strict=True)]
    columns["response_json"] = pa.array(texts_)
    assert Answers(OutputSchema(schema), "rate", tool_calls=False).add(columns) == 0
    assert columns["n"].to_pylist() == [9007199254740993] * 4
    assert columns["m"].to_pylist() == ["[9007199254740993]"] * 4
