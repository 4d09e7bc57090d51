"""What answers are not checked against is refused or named when a pipeline is loaded."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pytest

from batch_assets.core.answers.output_schema import OutputSchema
from batch_assets.core.errors import ConfigError
from batch_assets.core.pipeline.load import load_pipeline
from batch_assets.core.pipeline.pipeline import Pipeline

from ..support import World, params, texts

TEXT = {"type": "string"}
INTEGER = {"type": "integer"}


def tool_params(schema: Any, **more: Any) -> dict[str, Any]:
    """Params that force a tool with a schema for its input."""
    tools = [{"name": "rate", "input_schema": schema}]
    return params(max_tokens=2000, tools=tools, tool_choice={"type": "tool", "name": "rate"}, **more)


def with_tool(folder: Path, **properties: Any) -> Pipeline:
    schema = {"type": "object", "properties": properties}
    attributes = {"name": "asked", "dataset": {"path": "rows.jsonl"}, "params": tool_params(schema)}
    return load_pipeline(attributes, folder=folder)


@pytest.mark.parametrize(
    ("definition", "problem"),
    [
        (
            {**INTEGER, "maximum": "5"},
            r'properties\.v\.maximum: this is not JSON Schema, draft 2020-12: "5" is not',
        ),
        (
            {**INTEGER, "maximum": float("inf")},
            "cannot be written as JSON: JSON has no inf; write a finite number",
        ),
        ({"type": "text"}, r"properties\.v\.type: this is not JSON Schema"),
        ({"type": "array", "items": [TEXT]}, r"properties\.v\.items: this is not JSON Schema"),
        ({"anyOf": [TEXT, 5]}, r"properties\.v\.anyOf: this is not JSON Schema"),
        ({"type": "object", "required": "a"}, r"properties\.v\.required: this is not JSON Schema"),
        ({"$ref": "#/$defs/no"}, r"Pointer '/\$defs/no' does not exist"),
        (
            {"$ref": "https://example.com/a.json"},
            r"'https://example.com/a.json' is not .*; other documents are not",
        ),
    ],
)
def test_a_schema_that_is_not_json_schema_is_refused(tmp_path: Path, definition: Any, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as caught:
        with_tool(tmp_path, v=definition)
    assert (caught.value.field or "").startswith("params.tools[0].input_schema")


def test_an_output_schema_that_is_not_json_schema_is_refused(world: World) -> None:
    schema = {"type": "object", "properties": {"v": {**TEXT, "pattern": 5}}, "additionalProperties": False}
    with pytest.raises(ConfigError, match=r"properties\.v\.pattern: this is not JSON Schema, draft 2020-12"):
        world.pipeline(texts(1), output_schema=schema)


def test_what_is_not_checked_is_named_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pattern = r"^(?<y>a)\k<y>$"
    for _ in range(2):
        with_tool(
            tmp_path,
            a={**TEXT, "format": "path"},
            b={**INTEGER, "format": "int32"},
            c={**TEXT, "pattern": pattern},
            d={**TEXT, "format": "email", "pattern": "(?!x)^a"},
        )
    start = f"{tmp_path / 'defs.yaml'}: params.tools[0].input_schema: answers are not checked against"
    assert caplog.messages == [
        f"{start} properties.c.pattern: the pattern cannot be read: {pattern!r}",
        f"{start} the formats int32, path",
    ]


def test_the_input_of_a_tool_without_typed_columns(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for schema in ({"type": "object"}, {"type": "object", "additionalProperties": INTEGER}):
        attributes = {"name": "asked", "dataset": {"path": "rows.jsonl"}, "params": tool_params(schema)}
        load_pipeline(attributes, folder=tmp_path)
    (text,) = caplog.messages
    assert text.endswith("answers are not checked against anything: without properties there are no typed columns")


MODEL = """
    from pathlib import Path
    from typing import Annotated
    from uuid import UUID
    from pydantic import AfterValidator, BaseModel, Field, field_validator, model_validator

    class Line(BaseModel):
        item: Annotated[str, AfterValidator(str.strip)]
        tags: list[Annotated[str, AfterValidator(str.strip)]]

    class Order(BaseModel):
        id: UUID
        lines: list[Line] | None
        unique: set[int]
        file: Path

        @field_validator("id")
        @classmethod
        def is_known(cls, value):
            return value

        @model_validator(mode="after")
        def is_whole(self):
            return self
"""


def test_a_model_with_validators(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    name = f"orders_{abs(hash(tmp_path))}"
    (tmp_path / f"{name}.py").write_text(textwrap.dedent(MODEL))
    attributes = {"name": "asked", "dataset": {"path": "rows.jsonl"}, "params": params()}
    pipeline = load_pipeline({**attributes, "output_schema": f"{name}:Order"}, folder=tmp_path)
    validators = "Order.is_known, Order.is_whole, Line.item, Line.tags"
    assert [text.partition("against ")[2] for text in caplog.messages] == [
        "the format path",
        f"the model's own validators ({validators})",
    ]
    assert isinstance(pipeline.output, OutputSchema)
    good = {"id": "2eb8aa08-aa98-11ea-b4aa-73b441d16380", "lines": None, "unique": [1, 2], "file": "a"}
    answers = [orjson.dumps(good | change).decode() for change in ({}, {"id": "2eb8aa08"}, {"unique": [1, 1]})]
    problems = pipeline.output.columns(pa.array(answers))[1]
    assert problems == [
        None,
        "the property 'id' is '2eb8aa08', which breaks format 'uuid'",
        "the property 'unique' is a list, which breaks uniqueItems",
    ]


def test_malformed_keywords_in_the_schema_of_an_earlier_submission_are_ignored() -> None:
    schema = {
        "type": "object",
        "properties": {
            "a": {**INTEGER, "maximum": "5", "minimum": 2},
            "b": {"anyOf": [TEXT, 5]},
            "c": {"$ref": {}},
        },
        "required": [["a"], "a"],
    }
    output = OutputSchema(schema)
    assert len(output.unchecked) == 4
    problems = output.columns(pa.array(['{"a":9,"b":1}', '{"a":1}']))[1]
    assert problems == [None, "the property 'a' is 1, which breaks minimum 2"]


def test_bounds_beyond_64_bits_are_sent_and_checked(world: World) -> None:
    schema = {
        "type": "object",
        "properties": {
            "v": {**INTEGER, "minimum": 2**63 - 1},
            "w": {"type": "number", "minimum": 0, "maximum": 2**64},
        },
    }
    pipeline = world.pipeline(texts(2), params=tool_params({**schema, "required": ["v", "w"]}))
    frame = world.run(pipeline)
    assert frame["v"].tolist() == [2**63 - 1] * 2
    (batch,) = world.accepted()
    assert b'"maximum":18446744073709551616' in world.sent_body(batch["id"])


def test_emulated_answers_match_schemas_with_any_keyword(world: World) -> None:
    schema = {
        "type": "object",
        "properties": {
            "pair": {"type": "array", "prefixItems": [INTEGER, TEXT], "items": False, "minItems": 2},
            "kind": {"enum": ["a", "b"]},
            "a": {**TEXT, "format": "email"},
            "sizes": {
                "type": "array",
                "items": {**INTEGER, "minimum": 0, "maximum": 9},
                "contains": {"minimum": 5},
            },
        },
        "required": ["pair", "kind", "other"],
        "if": {"properties": {"kind": {"const": "a"}}},
        "then": {"required": ["a"]},
    }
    frame = world.run(world.pipeline(texts(40), params=tool_params(schema)))
    assert frame["error_message"].isna().all()
    assert frame[frame["kind"] == "a"]["a"].str.contains("@").all()
    assert {type(value) for value in frame["pair"]} == {str}  # a list of two types is JSON
