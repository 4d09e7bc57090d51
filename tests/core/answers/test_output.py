"""Typed columns of an output schema, and answers that do not match it."""

from __future__ import annotations

from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch_assets.cli.summary import summary
from batch_assets.core.answers.output_schema import OutputSchema
from batch_assets.core.errors import ConfigError

from ..support import CREATE, World, params, texts

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "label": {"type": "string", "enum": ["good", "bad"]},
        "score": {"type": "number"},
        "stars": {"type": "integer"},
        "sure": {"type": "boolean"},
        "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "tags": {"type": "array", "items": {"type": "string"}},
        "where": {
            "type": "object",
            "properties": {"page": {"type": "integer"}},
            "required": ["page"],
            "additionalProperties": False,
        },
        "either": {"anyOf": [{"type": "string"}, {"type": "integer"}]},
        "linked": {"$ref": "#/$defs/item"},
    },
    "required": ["label", "score"],
    "additionalProperties": False,
    "$defs": {"item": {"type": "object", "properties": {"n": {"type": "number"}}, "additionalProperties": False}},
}
TYPES = {
    "label": pa.dictionary(pa.int32(), pa.string()),
    "score": pa.float64(),
    "stars": pa.int64(),
    "sure": pa.bool_(),
    "note": pa.string(),
    "tags": pa.list_(pa.string()),
    "where": pa.struct([("page", pa.int64())]),
    "either": pa.string(),
    "linked": pa.struct([("n", pa.float64())]),
}


def test_each_property_has_its_own_column_and_type(world: World) -> None:
    pipeline = world.pipeline(texts(20), params=params(max_tokens=2000), output_schema=SCHEMA)
    table = world.run(pipeline)
    schema = pq.read_schema(world.path("asked", "results", "results.parquet"))
    assert {name: schema.field(name).type for name in TYPES} == TYPES
    assert schema.names[6 : 6 + len(TYPES)] == list(TYPES)
    for row in table.to_dict("records"):
        answer = orjson.loads(row["response_text"])
        assert row["label"] == answer["label"]
        assert row["score"] == answer["score"]
        assert row["error_type"] is None or row["error_type"] != row["error_type"]


def test_the_schema_is_sent_as_written(world: World) -> None:
    """Strings in the schema are not templates."""
    schema = {
        "type": "object",
        "properties": {"x": {"type": "string", "description": "{{ not a template }}"}},
        "additionalProperties": False,
    }
    pipeline = world.pipeline(texts(1), output_schema=schema, params=params(output_config={"effort": "low"}))
    world.send(pipeline)
    (batch,) = world.accepted()
    (request,) = orjson.loads(world.sent_body(batch["id"]))["requests"]
    assert request["params"]["output_config"] == {
        "effort": "low",
        "format": {"type": "json_schema", "schema": schema},
    }


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("not json", "the answer is not valid JSON: "),
        ('{"label": "good"', "the answer is not valid JSON: "),
        ("", "the answer is not valid JSON: "),
        ("[1]", "the answer is not a JSON object"),
        ('{"label": "good"}', "the answer lacks the property 'score'"),
        (
            '{"label": 5, "score": 1}',
            "unexpected value 5 of the property 'label'; expected one of 'good', 'b",
        ),
        ('{"label": "x", "score": 1}', "unexpected value 'x' of the property 'label'; expected"),
        ('{"label": "bad", "score": true}', "the property 'score' is true, not a number"),
        ('{"label": null, "score": 1}', "unexpected value null of the property 'label'; expected"),
        ('{"label": "bad", "score": 1, "stars": 1.5}', "the property 'stars' is 1.5, not a whole number"),
        ('{"label": "bad", "score": 1, "stars": 9223372036854775808}', "the property 'stars' is 92233720368"),
        ('{"label": "bad", "score": 1, "tags": "a"}', "the property 'tags' is 'a', not a list"),
        ('{"label": "bad", "score": 1, "tags": ["a", 1]}', "the property 'tags[1]' is 1, not a text"),
        ('{"label": "bad", "score": 1, "tags": [null]}', "the property 'tags[0]' is null, not a text"),
        ('{"label": "bad", "score": 1, "where": {"page": "a"}}', "the property 'where.page' is 'a', not a whole"),
        ('{"label": "bad", "score": 1, "where": {}}', "the answer lacks the property 'where.page'"),
        ('{"label": "bad", "score": 1, "where": []}', "the property 'where' is a list, not an object"),
        ('{"label": "bad", "score": 1, "either": true}', "the property 'either' is true, not of a type that the"),
    ],
)
def test_an_answer_that_does_not_match_is_null_with_a_reason(text: str, problem: str) -> None:
    good = '{"label": "good", "score": 1, "stars": 2.0, "either": "a", "tags": null}'
    arrays, problems = OutputSchema(SCHEMA).columns(pa.array([good, text, None]))
    values = dict(zip(TYPES, arrays, strict=True))
    assert problems[0] is None
    assert (problems[1] or "").startswith(problem)
    assert problems[2] is None
    assert {name: array.type for name, array in values.items()} == TYPES
    assert values["stars"].to_pylist() == [2, None, None]
    assert values["either"].to_pylist() == ['"a"', None, None]
    assert all(array[1].as_py() is None for array in arrays)


def test_a_number_column_accepts_whole_numbers_of_any_size() -> None:
    big = 2**53 + 1
    first = {"label": "good", "score": 0.5}
    second = {"label": "bad", "score": big, "linked": {"n": -big}, "stars": 9007199254740994.0}
    texts = [orjson.dumps(answer).decode() for answer in (first, second)]
    arrays, problems = OutputSchema(SCHEMA).columns(pa.array(texts))
    values = dict(zip(TYPES, arrays, strict=True))
    assert problems == [None, None]
    assert values["score"].to_pylist() == [0.5, float(big)]
    assert values["linked"].to_pylist() == [None, {"n": -float(big)}]
    assert values["stars"].to_pylist() == [None, 9007199254740994]


@pytest.mark.parametrize(
    ("kind", "problem"),
    [("max_tokens", "cut off at max_tokens: the answer is not valid JSON"), ("refusal", "the model refused")],
)
def test_a_succeeded_answer_that_does_not_match_stays_succeeded_with_a_reason(
    world: World, kind: str, problem: str
) -> None:
    world.emulator.faults([{"match": CREATE, "action": {"error_mix": {kind: 0.5}}}])
    pipeline = world.pipeline(texts(20), params=params(max_tokens=2000), output_schema=SCHEMA)
    world.send(pipeline)
    report = world.finish(pipeline).results
    table = world.table(pipeline)
    assert set(table["result_type"]) == {"succeeded"}
    odd = table[table["error_type"] == "invalid_output"]
    assert report is not None
    assert 0 < len(odd) < 20
    assert report.invalid_outputs == len(odd)
    assert (report.refused_answers, report.truncated) == ((len(odd), 0) if kind == "refusal" else (0, len(odd)))
    assert odd["error_message"].str.startswith(problem).all()
    assert odd["label"].isna().all()
    assert (odd["stop_reason"] == kind).all()
    assert table[table["error_type"].isna()]["label"].notna().all()
    assert len(world.accepted()) == 1


def test_without_a_schema_a_refusal_is_a_row_without_text(world: World) -> None:
    world.emulator.faults([{"match": CREATE, "action": {"error_mix": {"refusal": 1.0}}}])
    pipeline = world.pipeline(texts(2))
    world.send(pipeline)
    report = world.finish(pipeline).results
    assert report is not None
    assert (report.refused_answers, report.truncated, report.invalid_outputs) == (2, 0, 0)
    summary_lines = list(summary(world.root, pipeline, "", report))
    assert [line.split()[:2] for line in summary_lines if "refused" in line] == [["refused", "2"]]
    assert not any("truncated" in line for line in summary_lines)
    table = world.table(pipeline)
    assert table["response_text"].isna().all()
    assert list(table["stop_reason"]) == ["refusal"] * 2
    assert list(table["result_type"]) == ["succeeded"] * 2


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        ({"type": "array"}, 'must have "type": "object"'),
        (
            {"type": "object", "properties": {"batch_id": {"type": "string"}}, "additionalProperties": False},
            "'batch_id' has the name of a results",
        ),
        ("nope.json", "nope.json is not beside the pipeline file; JSON files there: broken.json"),
        ("broken.json", "broken.json is not valid JSON"),
        ("../outside.json", "is outside the pipeline's folder"),
    ],
)
def test_a_schema_that_cannot_be_used_is_named_at_load(world: World, schema: Any, problem: str) -> None:
    (world.folder / "broken.json").write_text("{")
    with pytest.raises(ConfigError, match=problem) as caught:
        world.pipeline(texts(1), output_schema=schema)
    assert caught.value.field == "output_schema"


def test_a_property_named_as_a_carried_column_names_the_line_to_add(world: World) -> None:
    schema = {"type": "object", "properties": {"text": {"type": "string"}}, "additionalProperties": False}
    with pytest.raises(ConfigError, match="`text: dataset_text`"):
        world.build(world.pipeline(texts(1), output_schema=schema))
