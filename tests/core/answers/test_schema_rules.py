"""Schemas that the API refuses are refused when the pipeline is loaded."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from batch_assets.core.answers.schema_rules import SchemaError, check_schema
from batch_assets.core.errors import ConfigError
from batch_assets.core.ledger import submissions
from batch_assets.core.pipeline.load import load_pipeline
from batch_assets.core.store.manifest import Manifest
from batch_assets.emulator.schema_instance import schema_problem

from ..support import World, params, texts
from .test_output_types import RICH, schema_of

TEXT = {"type": "string"}
INTEGER = {"type": "integer"}
LOOP = schema_of(b={"type": "array", "items": {"$ref": "#/$defs/a"}})
PROJECT = Path(__file__).parents[3]


def test_schemas_that_the_api_accepts_are_accepted() -> None:
    point = schema_of(x=INTEGER, kind={"const": "point"})
    schema: dict[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema_of(
            places={"type": "array", "items": {"$ref": "#/$defs/point"}, "minItems": 1},
            first={"anyOf": [{"$ref": "#/$defs/point"}, {"type": "null"}], "description": "{{ data }}"},
            mail={"type": "string", "format": "email", "pattern": r"^\w+@[a-z]{2,5}\\b$", "default": "a@b"},
            kind={"enum": ["a", 1, 1.5, True, None]},
            either={"allOf": [TEXT]},
            noted={**TEXT, "x-note": 1, "contentEncoding": "base64", "deprecated": True},
            nullable=TEXT,
            minlength=TEXT,
        ),
        "$defs": {"point": point},
    }
    check_schema(schema)
    check_schema(RICH)
    assert schema_problem(schema) is None


@pytest.mark.parametrize("path", sorted((PROJECT / "batch_assets").rglob("*schema*.json")), ids=str)
def test_shipped_schemas_are_accepted(path: Path) -> None:
    check_schema(json.loads(path.read_text()))


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        (schema_of(n={"type": "integer", "minimum": 1}), "properties.n: the API does not accept `minimum`: "),
        (schema_of(t={"type": "string", "maxLength": 9}), "properties.t: the API does not accept `maxLength`"),
        (schema_of(t={"oneOf": [TEXT, INTEGER]}), "properties.t: the API does not accept `oneOf`: write anyOf"),
        (schema_of(t={"type": "array", "items": TEXT, "maxItems": 3}), "properties.t: the API does not accept `m"),
        (schema_of(t={"type": "array", "items": TEXT, "minItems": 2}), "properties.t: the API accepts only 0"),
        (schema_of(t={"type": "array", "items": [TEXT]}), "properties.t: the API does not accept a list of `i"),
        (schema_of(t={"type": "array", "items": {"not": {}}}), "properties.t.items: the API does not accept"),
        (schema_of(t={"type": "string", "format": "regex"}), "properties.t: the API does not accept the format '"),
        (schema_of(t={"type": "string", "pattern": "a(?=b)"}), "properties.t: the API does not accept lookaround"),
        (schema_of(t={"type": "string", "pattern": r"(a)\1"}), "properties.t: the API does not accept back-refer"),
        (schema_of(t={"type": "string", "pattern": r"\ba"}), r"properties.t: the API does not accept \b and \B"),
        (schema_of(t={"enum": [{"a": 1}]}), "properties.t: the API accepts texts, numbers, true, false and null"),
        (schema_of(t={"type": "array"}), 'properties.t: an array needs "items"'),
        (schema_of(t={**TEXT, "nullable": True}), 'properties.t: JSON Schema has no `nullable`: write "type": ['),
        (schema_of(t={**TEXT, "minlength": 3}), "properties.t: JSON Schema has no `minlength`: did you mean `mi"),
        (schema_of(t={**TEXT, "enums": ["a"]}), "properties.t: JSON Schema has no `enums`: did you mean `enum`?"),
        (schema_of(t={"enum": []}), "properties.t: `enum` must be a list of values"),
        (schema_of(t={"type": "text"}), "properties.t: there is no type 'text'; types are object"),
        (schema_of(t={"description": "x"}), 'properties.t: it needs a "type"'),
        (schema_of(t=True), "properties.t: this is not a schema"),
        (schema_of(t={"type": "object", "properties": {}}), 'properties.t: the API requires "addi'),
        (schema_of(t={"$ref": "#/$defs/no"}), "properties.t: '#/$defs/no' points at nothing in this schema"),
        (schema_of(t={"$ref": "other.json"}), "properties.t: the API does not follow references to other"),
        (schema_of(t={"$ref": "#"}), "properties.t: '#' refers to itself, and the API does not accept recursion"),
        (schema_of(t={"anyOf": [{"allOf": [{"$ref": "#"}]}]}), "properties.t.anyOf[0]: the API does not"),
        ({**schema_of(t=TEXT), "additionalProperties": True}, 'the API requires "additionalProperties"'),
        ({**schema_of(t=TEXT), "required": ["u"]}, "'u' is required, but is not one of the properties"),
        (
            {**schema_of(t={"$ref": "#/$defs/a"}), "$defs": {"a": LOOP}},
            "$defs.a.properties.b.items: '#/$defs/a' refers to itself",
        ),
        (
            {**schema_of(t=schema_of(u={"$ref": "#/properties/t"}))},
            "properties.t.properties.u: '#/properties/t' refers to itself",
        ),
        (
            {**schema_of(**{f"p{n}": TEXT for n in range(25)}), "required": []},
            "25 properties are optional, but the API allows at most 24",
        ),
        (
            schema_of(**{f"p{n}": {"type": ["string", "null"]} for n in range(17)}),
            "17 properties have anyOf or several types, but the API allows at most 16",
        ),
    ],
)  # fmt: skip
def test_schemas_that_the_api_refuses_are_refused_with_path_and_remedy(
    schema: dict[str, Any], problem: str
) -> None:
    with pytest.raises(SchemaError) as caught:
        check_schema(schema)
    assert str(caught.value).startswith(problem)


def test_the_pipeline_and_the_file_are_named(world: World) -> None:
    (world.folder / "out.json").write_text(json.dumps(schema_of(n={"type": "integer", "maximum": 1})))
    with pytest.raises(
        ConfigError, match=r"out\.json: properties\.n: the API does not accept `maximum`"
    ) as caught:
        world.pipeline(texts(1), output_schema="out.json")
    assert caught.value.field == "output_schema"


@pytest.mark.parametrize(
    ("properties", "problem"),
    [
        ({1: TEXT}, "the schema cannot be written as JSON: .*; put names and texts in quotes"),
        ({"a\ud800": TEXT}, "the schema cannot be written as JSON"),
    ],
)
def test_names_that_json_does_not_have(world: World, properties: dict[Any, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        world.pipeline(texts(1), output_schema={**schema_of(), "properties": properties})


MODELS = """
    from datetime import date, datetime
    from enum import Enum
    from typing import Annotated, Literal
    from pydantic import BaseModel, Field

    class Mood(Enum):
        GOOD = "good"
        BAD = "bad"

    class Line(BaseModel):
        item: str
        amount: Annotated[int, Field(ge=0)]

    class Review(BaseModel):
        mood: Mood
        kind: Literal["a", "b"] | None
        day: date
        at: datetime
        lines: list[Line]
        note: str | None = None

    class Bounded(BaseModel):
        stars: Annotated[int, Field(ge=1, le=5)]
        share: float | None = Field(None, gt=0, lt=1)
        code: Annotated[str, Field(min_length=2, max_length=4, pattern="^[A-Z]+$")]
        tens: Annotated[int, Field(multiple_of=10, description="In tens.")]
        lines: Annotated[list[Line], Field(min_length=2, max_length=3)]

    class Described(BaseModel):
        line: Line = Field(description="the LINE")
        lines: list[Annotated[Line, Field(description="one of them")]]
        plain: Line

    class Counts(BaseModel):
        counts: dict[str, int]

    class Deep(BaseModel):
        parts: list[Counts | None]

    class Anything(BaseModel):
        it: list[dict]

    class Tree(BaseModel):
        inner: list["Tree"]

    class Odd(BaseModel):
        call: type
"""


@pytest.fixture
def models(tmp_path: Path) -> str:
    """The name of a module in the project's folder. Each test has its own, because imported modules are cached."""
    name = f"models_{abs(hash(tmp_path))}"
    (tmp_path / f"{name}.py").write_text(textwrap.dedent(MODELS))
    return name


def test_a_pydantic_model_is_sent_as_the_sdk_sends_it(world: World, models: str) -> None:
    pipeline = world.pipeline(texts(20), params=params(max_tokens=2000), output_schema=f"{models}:Review")
    assert pipeline.output is not None
    assert {name: str(type_) for name, type_ in pipeline.output.types.items()} == {
        "mood": "dictionary<values=string, indices=int32, ordered=0>",
        "kind": "dictionary<values=string, indices=int32, ordered=0>",
        "day": "date32[day]",
        "at": "timestamp[us, tz=UTC]",
        "lines": "list<item: struct<item: string, amount: int64>>",
        "note": "string",
    }
    assert pipeline.output.schema["additionalProperties"] is False
    assert pipeline.output.schema["$defs"]["Line"]["properties"]["amount"] == {
        "type": "integer",
        "title": "Amount",
        "description": "{minimum: 0}",
    }
    frame = world.run(pipeline)
    assert frame["error_type"].isna().all()


def test_descriptions_of_nested_models_are_sent(world: World, models: str) -> None:
    pipeline = world.pipeline(texts(1), output_schema=f"{models}:Described")
    assert pipeline.sent_schema is not None
    properties = pipeline.sent_schema["properties"]
    assert (properties["line"]["description"], properties["line"]["type"]) == ("the LINE", "object")
    assert properties["lines"]["items"]["description"] == "one of them"
    assert properties["plain"] == {"$ref": "#/$defs/Line"}
    (frame,) = world.run(pipeline).to_dict("records")
    assert set(frame["line"]) == {"item", "amount"}


def test_answers_are_checked_against_the_limits_of_a_pydantic_model(world: World, models: str) -> None:
    pipeline = world.pipeline(texts(40), params=params(max_tokens=2000), output_schema=f"{models}:Bounded")
    assert pipeline.output is not None
    sent = json.dumps(pipeline.output.schema)
    for word in ("minimum", "maxItems", "pattern", "multipleOf"):
        assert f"{word}: " in sent and f'"{word}"' not in sent  # the API accepts them only in descriptions
    frame = world.run(pipeline)
    assert frame["error_type"].isna().all()  # emulated answers keep the limits in descriptions
    assert frame["stars"].between(1, 5).all() and not (frame["tens"] % 10).any()

    good: dict[str, Any] = {
        "stars": 5,
        "share": None,
        "code": "AB",
        "tens": 20,
        "lines": [{"item": "a", "amount": 0}] * 2,
    }
    mismatches: dict[str, dict[str, Any]] = {
        "the property 'stars' is 0, which breaks minimum 1": {"stars": 0},
        "the property 'share' is 1, which breaks exclusiveMaximum 1": {"share": 1},
        "the property 'code' is 'ABCDE', of 5 characters, which breaks maxLength 4": {"code": "ABCDE"},
        "the property 'code' is 'ab', which breaks pattern '^[A-Z]+$'": {"code": "ab"},
        "the property 'tens' is 5, which breaks multipleOf 10": {"tens": 5},
        "the property 'lines' is a list, of 1 items, which breaks minItems 2": {"lines": good["lines"][:1]},
        "the property 'lines[1].amount' is -1, which breaks minimum 0": {
            "lines": [*good["lines"], {"item": "a", "amount": -1}][1:]
        },
    }
    answers = [json.dumps(good | change) for change in ({}, *mismatches.values())]
    with world.root.ledger.read() as tx:
        (submission,) = submissions.all_newest(tx)
    manifest = Manifest.read(world.root.storage, pipeline.name, "", submission.id)
    columns = {
        "result_type": pa.array(["succeeded"] * len(answers)),
        "response_text": pa.array(answers),
        "stop_reason": pa.array(["end_turn"] * len(answers)),
        "error_type": pa.nulls(len(answers), pa.string()),
        "error_message": pa.nulls(len(answers), pa.string()),
    }
    assert manifest.answers.add(columns) == len(mismatches)
    assert columns["error_message"].to_pylist() == [None, *mismatches]


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("no_such_module:Review", "there is no module 'no_such_module': install the project that contains it"),
        (
            "{models}:Revue",
            "'Revue' of {models} is not a pydantic model; models there: Anything, Bounded, Counts, Deep, ",
        ),
        ("{models}:Mood", "'Mood' of {models} is not a pydantic model"),
        ("{models}:Tree", "{models}:Tree: .*refers to itself, and the API does not accept recursion"),
        ("{models}:Odd", "{models}:Odd cannot be converted to a JSON Schema for the API: "),
        (
            "{models}:Counts",
            r"output_schema: {models}:Counts: properties\.counts: the API does not accept an object",
        ),
        (
            "{models}:Deep",
            r"{models}:Deep: \$defs\.Counts\.properties\.counts: the API does not accept an object with",
        ),
        (
            "{models}:Anything",
            r"{models}:Anything: properties\.it\.items: the API does not accept an object with arbitrary",
        ),
        ("broken:Review", "importing broken failed: ZeroDivisionError: division by zero"),
        ("lacking:Review", "importing lacking failed: No module named 'no_such_dependency'"),
    ],
)
def test_a_model_that_cannot_be_used_is_named(tmp_path: Path, models: str, name: str, problem: str) -> None:
    (tmp_path / "broken.py").write_text("1 / 0")
    (tmp_path / "lacking.py").write_text("import no_such_dependency")
    attributes = {
        "name": "asked",
        "dataset": {"path": "rows.jsonl"},
        "params": params(),
        "output_schema": name.format(models=models),
    }
    with pytest.raises(ConfigError, match=problem.format(models=models)) as caught:
        load_pipeline(attributes, folder=tmp_path)
    assert caught.value.field == "output_schema"
