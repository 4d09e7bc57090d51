"""Answers get the verdict that a JSON Schema library gives, for schemas of many shapes."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pytest

from batch_assets.core.answers.json_schema import build
from batch_assets.core.answers.output_schema import OutputSchema

TEXT, INTEGER, NUMBER = {"type": "string"}, {"type": "integer"}, {"type": "number"}
NODE = {
    "type": "object",
    "properties": {"v": INTEGER, "kids": {"type": "array", "items": {"$ref": "#/$defs/node"}}},
    "required": ["v"],
    "additionalProperties": False,
}
OPERATION = {
    "type": "object",
    "properties": {
        "op": {"enum": ["+", "-"]},
        "args": {"type": "array", "items": {"$ref": "#/$defs/term"}, "minItems": 2, "maxItems": 2},
    },
    "required": ["op", "args"],
    "additionalProperties": False,
}
DEFS = {
    "node": NODE,
    "term": {"oneOf": [NUMBER, OPERATION]},
    "one": {"anyOf": [INTEGER, {"type": "array", "items": {"$ref": "#/$defs/other"}}]},
    "other": {"oneOf": [TEXT, {"$ref": "#/$defs/one"}]},
}
A_AND_B = {"type": "object", "properties": {"a": INTEGER, "b": TEXT}}


def _with(name: str, part: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {name: part}, "required": [name]}


SHAPES: dict[str, dict[str, Any]] = {
    "tagged": {"anyOf": [{**_with("x", INTEGER), "additionalProperties": False}, _with("y", {"const": "s"})]},
    "one of two objects": {"oneOf": [_with("x", INTEGER), _with("y", TEXT)]},
    "one of all of any of": {"oneOf": [{"allOf": [{"anyOf": [INTEGER, TEXT]}, {"not": {"const": 1}}]}, NODE]},
    "all of one of": {"allOf": [{"oneOf": [{"minimum": 3}, {"maximum": 5}]}, NUMBER]},
    "any of all of": {"anyOf": [{"allOf": [TEXT, {"minLength": 2}]}, {"allOf": [INTEGER, {"multipleOf": 3}]}]},
    "all of properties": {
        "allOf": [{"properties": {"a": INTEGER}}, {"properties": {"b": TEXT}}], "required": ["a"],
    },
    "beside all of": {**_with("a", INTEGER), "allOf": [{"minProperties": 1}], "additionalProperties": {}},
    "unevaluated": {**_with("a", INTEGER), "allOf": [{"properties": {"b": TEXT}}], "unevaluatedProperties": False},
    "patterns and others": {
        **_with("a", INTEGER), "patternProperties": {"^x_": TEXT}, "additionalProperties": NUMBER,
    },
    "patterns, closed": {
        "properties": {"x_a": INTEGER}, "patternProperties": {"^x_": {"minimum": 2}},
        "additionalProperties": False,
    },
    "dependent": {**A_AND_B, "dependentRequired": {"a": ["b"], "c": ["a", "b"]}},
    "dependent schemas": {"dependentSchemas": {"a": {"properties": {"b": INTEGER}, "required": ["b"]}}},
    "if, then, else": {
        **_with("x", NUMBER), "if": {"properties": {"x": {"minimum": 2}}}, "then": _with("y", TEXT),
        "else": _with("a", INTEGER),
    },
    "if and unevaluated": {
        "if": _with("a", {"const": 1}), "then": {"properties": {"b": INTEGER}},
        "else": {"properties": {"c": INTEGER}},
        "unevaluatedProperties": False,
    },
    "contains twice": {"type": "array", "contains": {"type": "integer", "minimum": 5}, "minContains": 2},
    "contains none or one": {"type": "array", "contains": INTEGER, "minContains": 0, "maxContains": 1},
    "hundredths": {**NUMBER, "multipleOf": 0.01},
    "tenths": {**NUMBER, "multipleOf": 0.1},
    "tiny steps": {**NUMBER, "multipleOf": 1e-8},
    "integers in steps of 1.5": {**INTEGER, "multipleOf": 1.5},
    "unique": {"type": "array", "items": {}, "uniqueItems": True},
    "unique numbers": {"type": "array", "items": {"type": ["integer", "boolean"]}, "uniqueItems": True},
    "encoded": {
        **TEXT, "contentEncoding": "base64", "contentMediaType": "text/plain", "contentSchema": INTEGER,
    },
    "a tree": {"$ref": "#/$defs/node"},
    "a tree or null": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
    "definitions that refer to each other": {"$ref": "#/$defs/one"},
    "terms": {"$ref": "#/$defs/term"},
    "a tuple": {"prefixItems": [INTEGER, TEXT], "items": False},
    "an open tuple": {"type": "array", "prefixItems": [INTEGER], "unevaluatedItems": TEXT},
    "names": {"type": "object", "propertyNames": {"pattern": "^[a-z]+$"}, "minProperties": 1},
    "a map": {"type": "object", "additionalProperties": _with("z", INTEGER)},
    "constants": {"enum": [1, "1", True, None, [1], {"a": 1}]},
    "a whole float": {"const": 1.0},
    "integers of a list": {**INTEGER, "enum": [1, 2.0]},
    "bounds of two types": {"type": ["string", "integer"], "minLength": 2, "minimum": 2},
    "none of": {"not": {"anyOf": [INTEGER, {"type": "object", "required": ["a"]}]}},
}  # fmt: skip
# No null for an optional property: it means the same as leaving the property out (docs/results.md).
VALUES: list[Any] = [
    None, True, False, 0, 1, 1.0, 1.5, 2, 3, 4, 6, 7, -6, 0.1, 0.3, 0.30000000000000004, 19.99, 4.35, 1e-8, 1.1e-8,
    2**53 + 1, 2**63 - 1, -(2**63), "", "a", "ab", "1", "aGk=", "not base64!", [], [1], [1, 1], [1, 1.0],
    [1, True], [0, False], [5, 6], [5, "x"], ["a"], ["a", "b"], [1, "a"], [1, "a", 2], [[1], [1.0]], [[1], [True]],
    [{"a": 1}, {"a": 1.0}], [["a", [1]]], [[1.5]], {}, {"a": 1}, {"a": "x"}, {"b": "x"}, {"a": 1, "b": "x"},
    {"a": 1, "b": 2}, {"a": 1, "c": 1}, {"a": 2, "c": 1}, {"a": 2, "c": "x"}, {"c": 1}, {"x_b": "s"}, {"x_b": 1},
    {"x_a": 1}, {"x_a": 3}, {"x_a": 3, "x_q": 5}, {"a": 1, "x_b": "s", "q": 1}, {"a": 1, "q": "s"}, {"x": 1},
    {"y": "s"}, {"x": 1, "y": "s"}, {"x": 3, "y": "s"}, {"x": 3, "y": 1}, {"x": 1, "a": 1}, {"v": 1}, {"v": 1.0},
    {"v": 1, "kids": [{"v": 2, "kids": [{"v": 3}]}]}, {"v": 1, "kids": [{"v": "x"}]}, {"v": 1, "z": 1},
    {"op": "+", "args": [1, {"op": "-", "args": [2, 3]}]}, {"op": "*", "args": [1, 2]}, {"op": "+", "args": [1]},
    {"op": "+", "args": [1, {"op": "-", "args": [2]}]}, {"z": {"z": 1}}, {"z": {"z": "x"}}, {"z": {}}, {"A": 1},
]  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_verdicts_are_those_of_the_library(shape: str) -> None:
    schema = {**_with("value", SHAPES[shape]), "additionalProperties": False, "$defs": DEFS}
    output, library = OutputSchema(schema), build(schema)
    texts = [json.dumps({"value": value}) for value in VALUES]
    together = output.columns(pa.array(texts, pa.string()))[1]
    alone = [output.columns(pa.array([text]))[1][0] for text in texts[::6]]
    verdicts = [library.is_valid({"value": value}) for value in VALUES]
    assert [problem is None for problem in together] == verdicts
    assert alone == together[::6]
    assert len({*verdicts}) == 2  # there are values of both kinds
