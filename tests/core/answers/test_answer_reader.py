"""Reading many answers at once gives the same values as parsing them one by one."""

from __future__ import annotations

import json
from datetime import date
from typing import Any

import orjson
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batch_assets.core.answers.answer_parser import MismatchError, parse
from batch_assets.core.answers.answer_reader import AnswerReader
from batch_assets.core.answers.output_schema import OutputSchema
from batch_assets.core.answers.output_shapes import Shape, shape_of, typed
from batch_assets.emulator.schema_instance import schema_instance

Schema = dict[str, Any]

NAMES = ["a", "b", "a b", "größe", "v", "", "n"]
SCALARS: list[Schema] = [
    {"type": "string"},
    {"type": "integer"},
    {"type": "number"},
    {"type": "boolean"},
    {"type": "null"},
    {"type": "string", "format": "date"},
    {"type": "string", "format": "date-time"},
    {"enum": ["x", "y", "ß"]},
    {"enum": ["x", None]},
    {"type": "integer", "enum": [1, 2, 3]},
    {"type": "number", "enum": [0.5, 2]},
    {"const": True},
    {"type": "integer", "minimum": 1, "exclusiveMaximum": 2**53},
    {"type": "number", "exclusiveMinimum": 0, "maximum": 1.5},
    {"type": "number", "maximum": 9007199254740992},
    {"type": "string", "minLength": 1, "maxLength": 2},
    {"type": "string", "pattern": "^[ßx]"},
    {"$ref": "#/$defs/point"},
]
DEFS: Schema = {"point": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}}
# JSON texts with values of each kind, and texts that are not valid values.
VALUES = [
    *("null", "true", "0", "-0", "1", "1.0", "2.0", "1.5", "1e3", "01", "9007199254740993", "1e999", "NaN"),
    *("9223372036854775808", "-Infinity", "1e-400", "123456789012345678901234567890"),
    *(
        '""',
        '"x"',
        '"ß"',
        '"\\u00df"',
        '"\\ud800"',
        '"\\udc00"',
        '"\\ud83d\\ude00"',
        '"\\u0000"',
        '"a\nb"',
        '"\t"',
    ),
    *('"2024-02-29"', '"2023-02-29"', '"0000-01-01"', '"0001-01-01"', '"9999-12-31"', '"2024-2-9"'),
    *('"2024-02-29T23:59:59Z"', '"2024-02-29t23:59:59z"', '"2024-02-29T23:59:60Z"', '"2024-02-29 10:00:00Z"'),
    *('"2024-02-29T10:00:00"', '"2024-02-29T10:00:00.1234567+05:30"', '"2024-02-29T24:00:00Z"'),
    *('"2024-02-29T10:00:00+23:59"', '"2024-02-29T10:00:00+24:00"', '"2024-02-29T10:00:00-00:00"'),
    *('"2024-02-29T10:00:00.5-23:60"', '"9999-12-31T23:59:59-01:00"', '"2024-02-29T10:00Z"'),
    *("[]", "{}", "[null]", '[{"a":1},null]', '{"a":1}', '{"a":null}', '{"a":1,"a":2}', '{"\\u0061":3}', "[1,"),
    *('{"a" : 1}', '{"a":1}}\n{"a":1', '1},{"a":1', '"x","b":2', '"\\"b\\":"', '"a":', "", "/**/1", "1\0"),
]


def objects(inner: st.SearchStrategy[Schema]) -> st.SearchStrategy[Schema]:
    def made(properties: dict[str, Schema], left_out: set[str]) -> Schema:
        required = [name for name in properties if name not in left_out]
        return {"type": "object", "properties": properties, "required": required}

    properties = st.dictionaries(st.sampled_from(NAMES), inner, min_size=1, max_size=4)
    return st.builds(made, properties, st.sets(st.sampled_from(NAMES), max_size=2))


def nested(inner: st.SearchStrategy[Schema]) -> st.SearchStrategy[Schema]:
    return st.one_of(
        objects(inner),
        inner.map(lambda items: {"type": "array", "items": items}),
        inner.map(lambda option: {"anyOf": [option, {"type": "null"}]}),
    )


schemas = objects(st.recursive(st.sampled_from(SCALARS), nested, max_leaves=4)).map(
    lambda top: {**top, "$defs": DEFS}
)


@st.composite
def answers(draw: st.DrawFn, schema: Schema) -> str:
    """A valid answer, or one that is corrupted somewhere."""
    text = json.dumps(
        schema_instance(schema, draw(st.integers(0, 10_000))),
        ensure_ascii=draw(st.booleans()),
        indent=draw(st.sampled_from([None, None, 1])),
        separators=draw(st.sampled_from([(",", ":"), (", ", ": ")])),
    )
    corruption = draw(st.sampled_from(["no", "no", "value", "own", "text"]))
    if corruption == "value":
        at = text.find(":") + 1
        end = min((position for mark in ",}" if (position := text.find(mark, at)) >= 0), default=len(text))
        text = text[:at] + draw(st.sampled_from(VALUES)) + text[end:]
    elif corruption == "own":
        members = draw(st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(VALUES)), max_size=3))
        text = "{" + ",".join(json.dumps(name) + ":" + value for name, value in members) + "}"
    elif corruption == "text":
        at = draw(st.integers(0, len(text)))
        text = (
            text[:at] + draw(st.sampled_from([*VALUES, "{", "}", "\n", '"', "}{", "}\n{", "\\", ","])) + text[at:]
        )
    return text


def parsed(texts: list[str], shape: Shape) -> list[Any] | None:
    try:
        return list(typed(pa.array([parse(text, shape) for text in texts], shape.raw), shape).to_pylist())
    except MismatchError:
        return None


@given(st.data())
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
def test_the_reader_and_the_parser_give_the_same_values(data: st.DataObject) -> None:
    schema = data.draw(schemas)
    shape = shape_of(schema, schema)
    reader = AnswerReader.of(shape)
    assert reader is not None
    texts = data.draw(st.lists(answers(schema), min_size=1, max_size=3))
    whole = [text.strip(" \t\r\n") for text in texts]
    if all(text.startswith("{") and text.endswith("}") for text in whole):
        read = reader.read(pa.array(whole, pa.string()))
        if read is not None:
            assert typed(read, shape).to_pylist() == parsed(texts, shape)
    arrays, problems = OutputSchema(schema).columns(pa.array(texts, pa.string()))
    expected = [parsed([text], shape) for text in texts]
    assert [problem is None for problem in problems] == [values is not None for values in expected]
    rows = [values[0] if values else dict.fromkeys(shape.fields) for values in expected]
    assert pa.StructArray.from_arrays(arrays, fields=list(shape.type)).to_pylist() == rows


@pytest.mark.parametrize("scalar", SCALARS, ids=str)
@pytest.mark.parametrize("around", ["required", "nullable", "optional", "list", "object"])
def test_every_kind_of_schema_with_every_text(scalar: Schema, around: str) -> None:
    of: Schema = {
        "nullable": {"anyOf": [scalar, {"type": "null"}]},
        "list": {"type": "array", "items": scalar},
        "object": {"type": "object", "properties": {"b": scalar}, "required": ["b"]},
    }.get(around, scalar)
    required = [] if around == "optional" else ["a"]
    schema = {"type": "object", "properties": {"a": of}, "required": required, "$defs": DEFS}
    shape = shape_of(schema, schema)
    reader = AnswerReader.of(shape)
    assert reader is not None
    form = {"list": '{"a":[%s]}', "object": '{"a":{"b":%s}}'}.get(around, '{"a":%s}')
    for text in ["{}", '{"a":{}}', *(form % value for value in VALUES)]:
        read = reader.read(pa.array([text]))
        if read is not None:
            assert typed(read, shape).to_pylist() == parsed([text], shape), text


TYPICAL: Schema = {
    "type": "object",
    "properties": {
        "label": {"type": "string", "enum": ["good", "bad"]},
        "score": {"type": "number"},
        "amount": {"anyOf": [{"type": "number"}, {"type": "null"}]},
        "day": {"type": "string", "format": "date"},
        "at": {"type": "string", "format": "date-time"},
        "note": {"type": "string"},
        "code": {"type": "string", "maxLength": 3, "pattern": "^[A-Z]+$"},
        "points": {
            "type": "array",
            "maxItems": 3,
            "items": {
                "type": "object",
                "properties": {"x": {"type": "integer"}, "why": {"type": ["string", "null"]}},
                "required": ["x", "why"],
            },
        },
    },
    "required": ["label", "score", "amount", "day", "at", "points"],
}


def typical(number: int) -> Schema:
    return {
        "label": "good",
        "score": number,
        "amount": None if number % 2 else 1.5,
        "code": "ABC",
        "day": "2024-02-29",
        "at": "2024-02-29T12:00:00+02:00",
        "points": [{"x": number, "why": None}] * (number % 3),
    }


@pytest.mark.parametrize("indent", [None, 2])
def test_answers_that_match_are_read_at_once(indent: int | None) -> None:
    """If they were not, the values would still be right, but reading would be slow."""
    texts = [json.dumps(typical(number), indent=indent, separators=(",", ":")) for number in range(100)]
    shape = shape_of(TYPICAL, TYPICAL)
    reader = AnswerReader.of(shape)
    assert reader is not None
    read = reader.read(pa.array(texts))
    assert read is not None
    assert typed(read, shape).to_pylist() == parsed(texts, shape)


def changed(**properties: Any) -> Schema:
    return {**typical(2), **properties}


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(changed(score=float("nan"))),
        json.dumps({name: value for name, value in typical(1).items() if name != "amount"}),
        json.dumps({name: value for name, value in typical(2).items() if name != "label"}),
        json.dumps(changed(label="fine")),
        json.dumps(changed(label=None)),
        json.dumps(changed(more=1)),
        json.dumps(changed(code="ABCD")),
        json.dumps(changed(code="ab")),
        json.dumps(changed(points=[{"x": 1, "why": None}] * 4)),
        json.dumps(changed(day="2024-2-9")),
        json.dumps(changed(day="2023-02-29")),
        json.dumps(changed(at="2024-02-29T12:00:00")),
        json.dumps(changed(points=[None])),
        json.dumps(changed(points=[{"x": 1}])),
        json.dumps(changed(points=[{"x": None, "why": ""}])),
        json.dumps(changed(points=[{"x": 1.0, "why": ""}])),
        json.dumps(changed(note="amount"))[:-1] + ',"note":"again"}',
        json.dumps(typical(1)) * 2,
        json.dumps(changed(note="X")).replace("X", "a\nb"),
        json.dumps(changed(note="X")).replace("X", "a\0b"),
        json.dumps(changed(note="X")).replace("X", "\\ud800"),
        "{" + json.dumps(typical(1)) + "}",
    ],
)
def test_answers_that_may_not_match_are_left_to_the_parser(text: str) -> None:
    shape = shape_of(TYPICAL, TYPICAL)
    reader = AnswerReader.of(shape)
    assert reader is not None
    whole = json.dumps(typical(4), separators=(",", ":"))
    text = text.replace('": ', '":').replace(', "', ',"')
    assert reader.read(pa.array([whole, whole])) is not None
    assert reader.read(pa.array([whole, text, whole])) is None


def test_a_property_name_that_is_required_in_one_object_and_optional_in_another() -> None:
    nullable = {"type": ["integer", "null"]}
    inner = {"type": "object", "properties": {"a": nullable}}
    schema = {"type": "object", "properties": {"a": nullable, "b": inner}, "required": ["a", "b"]}
    reader = AnswerReader.of(shape_of(schema, schema))
    assert reader is not None
    assert reader.read(pa.array(['{"a":1,"b":{"a":null}}'])) is not None
    assert reader.read(pa.array(['{"b":{"a":null}}'])) is None


def test_an_extra_object_in_one_answer_does_not_make_up_for_a_missing_one() -> None:
    shape = shape_of(TYPICAL, TYPICAL)
    reader = AnswerReader.of(shape)
    assert reader is not None
    whole = json.dumps(typical(4), separators=(",", ":"))
    middle = whole.index("points") - 2
    assert reader.read(pa.array([whole * 2, whole[:middle] + "}", '{"points":[]}'])) is None
    torn = whole.replace('"day"', '"note":"}'), '{","day"'
    assert reader.read(pa.array([whole + whole, *torn])) is None


def test_answers_keep_their_order_when_none_is_read_at_once() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    texts = ['{"a":null}', 'null{"a":1}', '{"a":2.0}', '{"a":3}\v', ' {"a":4.0}\n', None]
    (array,), problems = OutputSchema(schema).columns(pa.array(texts))
    assert array.to_pylist() == [None, None, 2, None, 4, None]
    assert [problem is None for problem in problems] == [False, False, True, False, True, True]
    (array,), problems = OutputSchema(schema).columns(pa.array([], pa.string()))
    assert (array.to_pylist(), problems) == ([], [])
    _, (problem,) = OutputSchema(schema).columns(pa.array(['{"a":3}\v']))
    assert "not valid JSON" in (problem or "")


def test_dates_within_an_object_that_is_null() -> None:
    inner = {"type": "object", "properties": {"day": {"type": "string", "format": "date"}}}
    schema = {"type": "object", "properties": {"a": {"anyOf": [inner, {"type": "null"}]}}, "required": ["a"]}
    (array,), problems = OutputSchema(schema).columns(pa.array(['{"a":null}', '{"a":{"day":"2024-02-29"}}', "{"]))
    assert array.to_pylist() == [None, {"day": date(2024, 2, 29)}, None]
    assert problems[:2] == [None, None]


def test_one_answer_that_does_not_match_among_thousands() -> None:
    answers: list[Any] = [typical(number) for number in range(5000)]
    del answers[777]["amount"]
    texts = [orjson.dumps(answer).decode() for answer in answers]
    texts[3000] = texts[3000][:-3]
    texts[4500] = texts[4500] + texts[4500]
    arrays, problems = OutputSchema(TYPICAL).columns(pa.array([*texts, None]))
    bad = [777, 3000, 4500]
    assert [number for number, problem in enumerate(problems) if problem] == bad
    assert problems[777] == "the answer lacks the property 'amount'"
    expected = [None if number in bad else float(number) for number in range(5000)]
    assert arrays[1].to_pylist() == [*expected, None]
    assert arrays[5].null_count == 5001
    assert arrays[0].null_count == 4
