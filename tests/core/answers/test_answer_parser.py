"""Answers are checked against limits and not only types, and large whole numbers keep every digit."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pytest

from batch_assets.core.answers.output_schema import OutputSchema

from .test_output_types import schema_of

TEXT = {"type": "string"}
ITEMS = {"type": "array", "items": TEXT}


def parse_one(schema: dict[str, Any], text: str) -> tuple[list[Any], str | None]:
    """Parse one answer into its values and the reason why it does not match."""
    columns, problems = OutputSchema(schema).columns(pa.array([text]))
    return [column[0].as_py() for column in columns], problems[0]


@pytest.mark.parametrize(
    ("definition", "good", "bad", "expected"),
    [
        ({"type": "integer", "minimum": 1}, [1, 2], 0, "is 0, which breaks minimum 1"),
        ({"type": "integer", "maximum": 5}, [5, 5.0], 99, "is 99, which breaks maximum 5"),
        ({"type": "number", "exclusiveMinimum": 0.5}, [0.6], 0.5, "is 0.5, which breaks exclusiveMinimum 0.5"),
        ({"type": ["number", "null"], "exclusiveMaximum": 1}, [0.9, None], 1, "is 1, which breaks exclusiveMax"),
        ({**TEXT, "minLength": 2}, ["ab", "éé"], "a", "is 'a', of 1 characters, which breaks minLength 2"),
        ({**TEXT, "maxLength": 2}, ["ab"], "abc", "is 'abc', of 3 characters, which breaks maxLength 2"),
        ({**TEXT, "pattern": "^[A-Z]{2}$"}, ["AB"], "ABC", "is 'ABC', which breaks pattern '^[A-Z]{2}$'"),
        ({**TEXT, "pattern": "ab"}, ["cabc"], "a b", "is 'a b', which breaks pattern 'ab'"),
        ({**TEXT, "pattern": r"^\w+$"}, ["größe"], "a b", "is 'a b', which breaks pattern"),
        ({**TEXT, "pattern": r"^[\w\d-]+[^\S]\W$"}, ["é-٣ €"], "é-٣€", "is 'é-٣€', which breaks pattern"),
        ({**TEXT, "pattern": r"^[]\s[]+$"}, ["[ ]"], "[a]", "is '[a]', which breaks pattern"),
        ({**TEXT, "pattern": r"^(\w+\s?)+$"}, ["a b"], "a" * 60 + "!", "which breaks pattern"),  # slow in `re`
        ({**TEXT, "pattern": "(?<!a)b"}, ["cb"], "ab", "is 'ab', which breaks pattern '(?<!a)b'"),  # not in RE2
        ({"type": ["integer", "number"], "minimum": 0}, [0, 0.5], -0.5, "is -0.5, which breaks minimum 0"),
        ({**ITEMS, "minItems": 1}, [["a"]], [], "is a list, of 0 items, which breaks minItems 1"),
        ({"type": "integer", "multipleOf": 5}, [10, 0, -5], 6, "is 6, which breaks multipleOf 5"),
        ({"type": "number", "multipleOf": 0.01}, [0.07, 1.1, 3, 1e300], 0.005, "breaks multipleOf 0.01"),
        ({**ITEMS, "minItems": 2}, [["a", "b"]], ["a"], "is a list, of 1 items, which breaks minItems 2"),
        ({**ITEMS, "maxItems": 1}, [[], ["a"]], ["a", "b"], "is a list, of 2 items, which breaks maxItems 1"),
        ({"type": "array", "items": {"type": "integer", "maximum": 5}}, [[5]], [6], "'v[0]' is 6, which breaks"),
        (schema_of(w={"type": "integer", "maximum": 5}), [{"w": 1}], {"w": 6}, "'v.w' is 6, which breaks maximum"),
        (schema_of(w=TEXT), [{"w": "a"}], {"w": "a", "x": 1}, "the schema has no property 'v.x'"),
        ({"type": "integer", "maximum": True}, [6], "a", "is 'a', not a whole number"),
        ({"type": "integer", "multipleOf": 0}, [6], "a", "is 'a', not a whole number"),
        ({**TEXT, "pattern": 5}, ["a"], 1, "is 1, not a text"),
        ({"type": "integer"}, [6], {}, "is an object, not a whole number"),
        ({**ITEMS}, [["a"]], {"0": "a"}, "is an object, not a list"),
        (schema_of(w=TEXT), [{"w": "a"}], ["a"], "is a list, not an object"),
    ],
)  # fmt: skip
def test_limits_of_a_schema(definition: dict[str, Any], good: list[Any], bad: Any, expected: str) -> None:
    schema = schema_of(v=definition)
    for value in good:
        assert parse_one(schema, json.dumps({"v": value})) == ([value], None)
    # The same answers among others that the reader reads at once, if it can.
    answers = [json.dumps({"v": value}) for value in (good[0], bad, good[0])]
    (column,), problems = OutputSchema(schema).columns(pa.array(answers))
    assert [problem is not None and expected in problem for problem in problems] == [False, True, False]
    assert column.to_pylist() == [good[0], None, good[0]]


def test_unknown_properties_are_allowed_unless_the_schema_closes_the_object() -> None:
    schema = {"type": "object", "properties": {"a": TEXT}}
    assert parse_one(schema, '{"a": "x", "extra": 1}') == (["x"], None)
    problem = parse_one({**schema, "additionalProperties": False}, '{"a": "x", "extra": 1}')[1]
    assert problem == "the schema has no property 'extra'"


@pytest.mark.parametrize(
    "text", ["9007199254740993", "9007199254740993.0", "9.007199254740993e15", "9007199254740993E0"]
)
def test_whole_numbers_keep_every_digit(text: str) -> None:
    assert parse_one(schema_of(v={"type": "integer"}), f'{{"v":{text}}}') == ([9007199254740993], None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("99999999999999999999", "is 99999999999999999999, too large for a column of 64 bits"),
        ("1e20", "is 100000000000000000000, too large for"),
        ("9007199254740993.5", "not a whole number"),
    ],
)
def test_whole_numbers_that_are_too_large_for_a_column(text: str, expected: str) -> None:
    problem = parse_one(schema_of(v={"type": "integer"}), f'{{"v":{text}}}')[1]
    assert problem is not None
    assert expected in problem


def test_columns_of_json_text_keep_every_digit() -> None:
    long = "12345678901234567890123"
    schema = schema_of(v={"type": "number"}, w={"type": ["string", "object"]})
    assert parse_one(schema, f'{{"v":{long},"w":{{"x":[{long}, 1.5]}}}}') == (
        [float(long), f'{{"x":[{long},1.5]}}'],
        None,
    )
