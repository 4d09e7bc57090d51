"""Every keyword of JSON Schema is checked: no valid answer is called invalid, and no invalid one valid."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batch_assets.core.answers.output_schema import OutputSchema
from batch_assets.core.answers.schema_keywords import FORMATS
from batch_assets.core.answers.shape_coverage import shapes_check
from batch_assets.emulator.schema_instance import schema_instance

from .test_output_types import schema_of

INTEGER = {"type": "integer"}
TEXT = {"type": "string"}
DATE_TIME = {**TEXT, "format": "date-time"}
TREE = {"type": "object", "properties": {"v": INTEGER, "next": {"$ref": "#/$defs/tree"}}, "required": ["v"]}
DEFS: dict[str, Any] = {
    "tree": TREE,
    "a%b/c": INTEGER,
    "closed": {"type": "object", "properties": {"a": INTEGER}, "additionalProperties": False},
}
# A definition, values that match it, and values that do not.
CASES: list[tuple[Any, list[Any], list[Any]]] = [
    # arrays
    ({"prefixItems": [INTEGER, TEXT]}, [[], [1], [1, "a", None], {"0": "a"}], [["a"], [1, 2]]),
    ({"type": "array", "prefixItems": [INTEGER], "items": TEXT}, [[1, "a"], []], [["a"], [1, 2]]),
    ({"type": "array", "prefixItems": [INTEGER], "items": False}, [[1], []], [[1, 2], ["a"]]),
    ({"type": "array", "items": INTEGER, "uniqueItems": True}, [[1, 2]], [[1, 1], [1, 1.0]]),
    ({"type": "array", "uniqueItems": True}, [[0, False], [[1], [True]]], [[{"a": 1}, {"a": 1.0}]]),
    ({"type": "array", "items": INTEGER, "contains": {"minimum": 5}}, [[1, 5]], [[1], []]),
    ({"type": "array", "contains": {"const": 1}, "minContains": 2, "maxContains": 3}, [[1, 1, 0]], [[1], [1] * 4]),
    ({"items": INTEGER}, [[1], "a", {}], [["a"], [None]]),
    ({"minItems": 1}, [[1], "", {}], [[]]),
    ({"type": "array", "unevaluatedItems": False, "prefixItems": [True]}, [[1]], [[1, 2]]),
    # objects
    ({"required": ["a"]}, [{"a": None}, [], "a"], [{}, {"b": 1}]),
    ({"type": "object", "properties": {"a": INTEGER}, "required": ["b"]}, [{"b": 1}], [{}, {"a": 1}]),
    ({"properties": {"a": INTEGER}}, [{}, {"a": 1}, [], 5], [{"a": "b"}]),
    ({"properties": {"a": True, "b": False}}, [{}, {"a": 1}], [{"b": 1}, {"a": 1, "b": 2}]),
    ({"type": "object", "additionalProperties": INTEGER}, [{}, {"a": 1}], [{"a": "b"}]),
    ({"type": "object", "patternProperties": {"^a": INTEGER}}, [{"ab": 1, "b": "c"}], [{"ab": "c"}]),
    (
        {"properties": {"b": TEXT}, "patternProperties": {"^á": {}}, "additionalProperties": False},
        [{"b": "c", "ármány": 2}],
        [{"élmény": 2}],
    ),
    ({"type": "object", "minProperties": 1, "maxProperties": 2}, [{"a": 1}], [{}, {"a": 1, "b": 2, "c": 3}]),
    ({"type": "object", "propertyNames": {"maxLength": 2}}, [{"ab": 1}], [{"abc": 1}]),
    ({"type": "object", "dependentRequired": {"a": ["b"]}}, [{"b": 1}, {"a": 1, "b": 2}], [{"a": 1}]),
    ({"dependentSchemas": {"a": {"required": ["b"]}}}, [{}, {"a": 1, "b": 2}], [{"a": 1}]),
    ({"allOf": [{"properties": {"a": True}}], "unevaluatedProperties": False}, [{"a": 1}], [{"b": 1}]),
    # any type
    ({"minimum": 1}, [1, "0", None], [0]),
    ({"maxLength": 1}, ["a", 12], ["ab"]),
    ({"pattern": "^a"}, ["ab", 1], ["b"]),
    ({"type": "integer", "minLength": 3}, [1], ["abc"]),
    ({"not": TEXT}, [1, None], ["a"]),
    ({"if": {"type": "integer"}, "then": {"minimum": 1}, "else": TEXT}, [1, "a"], [0, None]),
    ({"oneOf": [INTEGER, {"minimum": 2}]}, [1, 2.5], [3, 1.5]),
    ({"oneOf": [INTEGER, {"type": "number"}]}, [1.5], [1, "a"]),
    ({"oneOf": [INTEGER, {"type": "null"}]}, [1, None], ["a"]),
    ({"anyOf": [INTEGER, {**TEXT, "minLength": 2}]}, [1, "ab"], ["a", None]),
    ({"allOf": [{"minimum": 1}, {"maximum": 3}]}, [2, "a"], [0, 4]),
    ({"type": "string", "allOf": [{"minLength": 2}]}, ["ab"], ["a", 1]),
    ({"type": "string", "anyOf": [{"minLength": 2}, {"const": "a"}]}, ["ab", "a"], ["b"]),
    (False, [], [1, None, {}]),
    # enum and const
    ({"const": 0}, [0, 0.0, -0.0], [False, None, "0", [0]]),
    ({"const": False}, [False], [0, None, [], ""]),
    ({"const": [False]}, [[False]], [[0], [0.0], []]),
    ({"const": {"a": 0}}, [{"a": 0}, {"a": 0.0}], [{"a": False}, {"a": 0, "b": 1}]),
    ({"const": None}, [None], [0, False, ""]),
    ({"enum": [0, True]}, [0, True, 0.0], [False, 1]),
    ({"enum": [[0], {"a": [True]}]}, [[0.0], {"a": [True]}], [[False], {"a": [1]}]),
    ({"enum": ["a", "b"], "minLength": 2}, [], ["a"]),
    ({"type": "string", "enum": [1, 2]}, [], [1, "1", None]),
    ({"enum": ["a"], "const": "b"}, [], ["a", "b"]),
    ({"enum": ["a\u0000b"]}, ["a\u0000b"], ["ab"]),
    # references
    ({"$ref": "#/$defs/a%25b~1c"}, [1], ["a"]),
    ({"$ref": "#/$defs/tree"}, [{"v": 1, "next": {"v": 2}}], [{"v": 1, "next": {}}, {"v": "a"}]),
    ({"$ref": "#/$defs/closed", "properties": {"b": TEXT}}, [{"a": 1}], [{"b": "c"}, {"a": "b"}]),
    ({"$ref": "#/$defs/closed", "required": ["a"]}, [{"a": 1}], [{}]),
    ({"anyOf": [{"properties": {"b": TEXT}}], "properties": {"a": TEXT}}, [{"a": "b"}], [{"b": 1}, {"a": 1}]),
    # sizes
    ({"type": "integer", "multipleOf": 0.5}, [1, 2.0], [1.5]),
    ({"type": "number", "multipleOf": 0.0001}, [0.0075], [0.00751]),
    ({**TEXT, "minLength": 2.0}, ["ab", "💩💩"], ["💩"]),
]  # fmt: skip


def definition_schema(definition: Any) -> dict[str, Any]:
    return {**schema_of(v=definition), "$defs": DEFS}


def problems_of(definition: Any, values: list[Any]) -> list[str | None]:
    """Why each value does not match; checks that the reader of many answers and the parser of one agree."""
    output = OutputSchema(definition_schema(definition))
    texts = [json.dumps({"v": value}) for value in values]
    together = output.columns(pa.array(texts, pa.string()))[1]
    assert together == [output.columns(pa.array([text]))[1][0] for text in texts]
    return together


@pytest.mark.parametrize(("definition", "good", "bad"), CASES, ids=lambda case: json.dumps(case)[:60])
def test_keywords(definition: Any, good: list[Any], bad: list[Any]) -> None:
    assert problems_of(definition, good) == [None] * len(good)
    for value, problem in zip(bad, problems_of(definition, bad), strict=True):
        assert problem is not None, value
    validator = jsonschema.Draft202012Validator(definition_schema(definition))  # the cases themselves are right
    assert all(validator.is_valid({"v": value}) for value in good)
    assert not any(validator.is_valid({"v": value}) for value in bad)


def test_references_within_a_part_with_its_own_id_point_into_it() -> None:
    own = {"$id": "urn:example:own", "$defs": {"tree": TEXT}, "type": "array", "items": {"$ref": "#/$defs/tree"}}
    assert problems_of(own, [["a"], [1]]) == [None, "the property 'v[0]' is 1, which breaks type"]


@pytest.mark.parametrize(
    ("definition", "value", "problem"),
    [
        ({"type": "array", "uniqueItems": True}, [1, 1], "the property 'v' is a list, which breaks uniqueItems"),
        ({"prefixItems": [{"minimum": 5}]}, [1], "the property 'v[0]' is 1, which breaks minimum 5"),
        ({"prefixItems": [{"required": ["a"]}]}, [{}], "the answer lacks the property 'v[0].a'"),
        ({"properties": {"a": False}}, {"a": 1}, "the property 'v.a' is 1, which is not allowed"),
        ({"not": {"required": ["a"]}}, {"a": 1}, "the property 'v' is an object, which breaks not"),
        ({"unevaluatedProperties": False}, {"a": 1}, "the schema has no property 'v.a'"),
        ({"oneOf": [{}, {}]}, "x" * 99, f"the property 'v' is '{'x' * 58}…, which breaks oneOf"),
        ({"additionalProperties": {"maximum": 1}}, {"1": 2}, "the property 'v.1' is 2, which breaks maximum 1"),
    ],
)  # fmt: skip
def test_problems_name_the_property_and_the_keyword(definition: Any, value: Any, problem: str) -> None:
    assert problems_of(definition, [value]) == [problem]


def test_keywords_of_the_whole_answer() -> None:
    schema = {
        "type": "object",
        "properties": {"a": INTEGER, "b": INTEGER},
        "required": ["a"],
        "dependentRequired": {"b": ["c"]},
        "if": {"properties": {"a": {"minimum": 5}}},
        "then": {"required": ["b"]},
    }
    texts = ['{"a":1}', '{"a":5}', '{"a":5,"b":1,"c":0}', '{"a":1,"b":1}', None, "{"]
    (a, b), problems = OutputSchema(schema).columns(pa.array(texts))
    assert a.to_pylist() == [1, None, 5, None, None, None]
    assert b.to_pylist() == [None, None, 1, None, None, None]
    lacks_b, lacks_c = "the answer lacks the property 'b'", "the answer lacks the property 'c'"
    assert problems[:5] == [None, lacks_b, None, lacks_c, None]
    assert "not valid JSON" in (problems[5] or "")


def test_a_null_for_an_optional_property_means_the_same_as_leaving_it_out() -> None:
    inner = {"type": "object", "properties": {"a": INTEGER, "b": INTEGER}, "required": ["b"], "maxProperties": 1}
    schema = {"type": "object", "properties": {"v": {"type": "array", "items": inner}}, "minProperties": 1}
    texts = ['{"v":[{"a":null,"b":1}]}', '{"v":[{"a":2,"b":1}]}', '{"v":[{"b":null}]}', '{"v":null}']
    problems = OutputSchema(schema).columns(pa.array(texts))[1]
    assert [problem is None for problem in problems] == [True, False, False, False]


LARGE = 2**63 - 1


@pytest.mark.parametrize(
    ("definition", "good", "bad"),
    [
        ({"type": "integer", "maximum": LARGE}, [LARGE, float(2**62)], [2**63, 1e19, 2.0**63]),
        ({"type": "integer", "exclusiveMaximum": LARGE}, [LARGE - 1], [LARGE]),
        ({"type": "integer", "minimum": -(2**63)}, [-(2**63)], [-(2**63) - 1]),
        ({"type": "integer", "maximum": 2**70}, [LARGE], [2**63]),
        ({"type": "integer", "minimum": 2**53 + 1}, [2**53 + 1], [2**53, 9007199254740992.0]),
        ({"type": "number", "maximum": LARGE}, [LARGE, 2.0**62], [2**63, 2.0**63]),
        ({"type": "number", "maximum": 2**64}, [2**64, 2.0**63], [2**64 + 1, 2.0**64]),
        ({"type": "number", "exclusiveMinimum": 2**53}, [2**53 + 1], [2**53, 9007199254740992.0]),
        ({"type": "number"}, [2**64 + 1], [10**400]),
        ({"type": "number", "multipleOf": 3}, [3 * 10**20], [10**20, 1e20]),
        ({"type": ["integer", "string"], "minimum": 2**64}, [2**64, 2**64 + 1], [2**64 - 1]),
        ({"type": "array", "prefixItems": [{"maximum": 2**64}]}, [[2**64]], [[2**64 + 1]]),
        ({"enum": [2**53, 0.5]}, [2**53, 9007199254740992.0], [2**53 + 1]),
        ({"enum": [2**53 + 1, "a"]}, [2**53 + 1], [2**53, 9007199254740992.0]),
        ({"const": 2**70}, [2**70], [2**70 + 1]),
        ({"const": 10**400}, [10**400], [1]),
    ],
)
def test_bounds_and_values_around_64_bits(definition: Any, good: list[Any], bad: list[Any]) -> None:
    assert problems_of(definition, good) == [None] * len(good)
    assert None not in problems_of(definition, bad)


def test_numbers_that_no_column_can_hold_are_named() -> None:
    output = OutputSchema(schema_of(v={"type": "number"}))
    texts = [
        '{"v":1e400}',
        '{"v":-1e999}',
        f'{{"v":{10**400}}}',
        '{"v":"\\ud800","w":1e400}',
        '{"v":NaN,"w":1e400}',
    ]
    problems = output.columns(pa.array(texts))[1]
    assert problems[:2] == [
        "the answer has the number 1e400, which is too large for a double",
        "the answer has the number -1e999, which is too large for a double",
    ]
    assert "too large for a column of 64 bits" in (problems[2] or "")
    assert all(
        "too large for a double" in (problem or "") or "not valid JSON" in (problem or "")
        for problem in problems[3:]
    )


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2024-02-29T10:00:00+23:59", "2024-02-28 10:01:00+00:00"),
        ("2024-02-29T10:00:00-00:00", "2024-02-29 10:00:00+00:00"),
        ("1998-12-31T23:59:60Z", "1999-01-01 00:00:00+00:00"),
        ("1998-12-31T15:59:60.123-08:00", "1999-01-01 00:00:00.123000+00:00"),
        ("2024-02-29T10:00:00+24:00", None),
        ("2024-02-29T10:00:00+05:60", None),
        ("2024-02-29T10:00:00-12:99", None),
        ("2024-02-29T24:00:00Z", None),
        ("2024-02-29T10:60:00Z", None),
        ("2024-02-29T10:00:61Z", None),
        ("1998-12-31T22:59:60Z", None),
        ("1998-12-31T23:58:60Z", None),
        ("2024-02-29T10:00:00+0500", None),
        ("2024-02-30T10:00:00Z", None),
        ("২024-02-29T10:00:00Z", None),
    ],
)
def test_times_with_an_impossible_offset_or_second(text: str, value: str | None) -> None:
    output = OutputSchema(schema_of(v=DATE_TIME))
    answer = json.dumps({"v": text})
    usual = json.dumps({"v": "2024-01-01T00:00:00Z"})
    for answers in ([answer], [usual, answer]):
        (column,), problems = output.columns(pa.array(answers))
        assert (problems[-1] is None) == (value is not None)
        assert value is None or str(column[-1].as_py()) == value
    untyped = problems_of({"anyOf": [DATE_TIME, INTEGER]}, [text])  # a column of JSON text
    assert (untyped == [None]) == (value is not None)


@pytest.mark.parametrize(
    ("pattern", "good", "bad"),
    [
        ("^(?!x)a", ["ab"], ["xa"]),
        ("(?<=a)b$", ["ab"], ["cb"]),
        (r"^(a|b)\1$", ["aa", "bb"], ["ab"]),
        (r"^\u0041$", ["A"], ["B"]),
        ("^a{1,1500}$", ["a" * 1200], ["a" * 1501]),
        (r"\bélan\b", ["un élan"], ["unélan"]),
        (r"^\cC$", ["\u0003"], ["\\cC"]),
        (r"^[\W]+$", ["-€ \t"], ["a", "é", "_"]),
        (r"^[\S]+$", ["é€_"], [" ", "\u00a0"]),
        (r"^\s$", ["\u000b", "\u00a0", "\ufeff"], ["a"]),
        (r"^\S$", ["a"], ["\u000b", "\ufeff"]),
        (r"^(?!-)[\w-]+$", ["größe-1"], ["-a", "a b"]),
        (r"^\p{Letter}+$", ["é"], ["1"]),
    ],
)
def test_patterns_that_arrow_cannot_read_or_reads_in_another_way(
    pattern: str, good: list[str], bad: list[str]
) -> None:
    for definition in (
        {**TEXT, "pattern": pattern},
        {"pattern": pattern},
        {"patternProperties": {pattern: False}},
    ):
        is_name = "patternProperties" in definition
        values = [[{text: 1} for text in texts] if is_name else texts for texts in (bad, good)]
        refused, allowed = reversed(values) if is_name else values
        assert None not in problems_of(definition, refused)
        assert problems_of(definition, allowed) == [None] * len(allowed)


@pytest.mark.timeout(20)
def test_a_pattern_that_takes_too_long_is_named() -> None:
    slow = r"^(?:(?!x)(?:a|aa))+$"
    (problem,) = problems_of({**TEXT, "pattern": slow}, ["a" * 60 + "!"])
    assert problem is not None and f"which takes too long to compare with pattern {slow!r}" in problem
    (problem,) = problems_of({"pattern": slow}, ["a" * 60 + "!"])
    assert problem is not None and problem.endswith("which takes too long to compare with its pattern")


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("time", ["23:59:59Z", "10:00:00.5+02:00"], ["24:00:00Z", "10:00:00", "10:00:00+24:00"]),
        ("duration", ["P1D", "PT0S", "P4Y"], ["1D", "P", "PT1D"]),
        ("email", ["a.b@example.com", "a@b"], ["a", "@b", "Ann <a@example.com>"]),
        ("hostname", ["example.com", "xn--4gbwdl.xn--wgbh1c"], ["-a.com", "a_b.com", "a" * 64 + ".com"]),
        ("ipv4", ["192.0.2.1"], ["256.0.0.1", "192.0.2.01", "1.2.3"]),
        ("ipv6", ["::1", "2001:db8::1"], ["12345::", "1:2"]),
        ("uri", ["https://example.com/a?b=c#d", "urn:a:b"], ["//example.com/a", "example", "http:// a"]),
        ("uuid", ["2eb8aa08-aa98-11ea-b4aa-73b441d16380"], ["2eb8aa08aa9811eab4aa73b441d16380", "2eb8aa08-aa98"]),
        ("json-pointer", ["", "/a/~0"], ["a", "/~2"]),
        ("regex", ["^a+$"], ["^(a"]),
    ],
)
def test_formats(name: str, good: list[str], bad: list[str]) -> None:
    for definition in ({**TEXT, "format": name}, {"format": name}, {**TEXT, "format": name, "minLength": 0}):
        assert problems_of(definition, good) == [None] * len(good)
        assert None not in problems_of(definition, bad)
    assert problems_of({**TEXT, "format": name}, bad[:1]) == [
        f"the property 'v' is {bad[0]!r}, which breaks format '{name}'"
    ]


def test_formats_and_patterns_do_not_slow_down_the_reading_of_many_answers() -> None:
    schema = schema_of(a={**TEXT, "format": "email"}, b={**TEXT, "pattern": "(?!x)^a"})
    assert shapes_check(schema)


NAMES = st.sampled_from(["a", "b", "c"])
LEAVES = st.sampled_from(
    [
        *({"type": kind} for kind in ("string", "integer", "number", "boolean", "null", "object", "array")),
        *({"minimum": 1}, {"maxLength": 1}, {"minItems": 1}, {"required": ["a"]}, {"enum": [0, "a", None]}),
        *({"const": False}, {"const": [1]}, {"multipleOf": 2}, {"uniqueItems": True}, {"minProperties": 1}, {}),
        *({"type": ["string", "null"]}, {"dependentRequired": {"a": ["b"]}}, {"pattern": "^a"}, True, False),
    ]
)


def nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    several, named = st.lists(inner, min_size=1, max_size=2), st.dictionaries(NAMES, inner, min_size=1, max_size=2)
    words = {
        **dict.fromkeys(("anyOf", "oneOf", "allOf", "prefixItems"), several),
        **dict.fromkeys(
            ("items", "additionalProperties", "not", "if", "then", "contains", "propertyNames"), inner
        ),
        **dict.fromkeys(("properties", "dependentSchemas"), named),
        "type": st.sampled_from(["object", "array", "string", "integer", ["object", "null"]]),
        "required": st.lists(NAMES, unique=True, min_size=1, max_size=2),
    }
    return st.lists(st.sampled_from(sorted(words)), unique=True, min_size=1, max_size=3).flatmap(
        lambda chosen: st.fixed_dictionaries({word: words[word] for word in chosen})
    )


VALUES = st.recursive(
    st.sampled_from([0, 1, 2, False, True, "a", "b", "ab", 1.0, 1.5]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=4,
)


@given(st.recursive(LEAVES, nested, max_leaves=5), st.lists(VALUES, min_size=1, max_size=5))
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_schema_gives_the_same_verdict_as_another_validator(definition: Any, values: list[Any]) -> None:
    schema = schema_of(v=definition)
    validator = jsonschema.Draft202012Validator(schema)
    problems = OutputSchema(schema).columns(pa.array([json.dumps({"v": value}) for value in values]))[1]
    assert [problem is None for problem in problems] == [validator.is_valid({"v": value}) for value in values]


def test_the_formats_are_documented_and_checked_and_emulated_answers_have_them() -> None:
    docs = (Path(__file__).parents[3] / "docs" / "results.md").read_text("utf-8")
    sentence = docs.partition("These formats are checked: ")[2].partition(". Times need")[0]
    assert sorted(re.findall("`(.+?)`", sentence)) == sorted(FORMATS)
    for name in FORMATS:
        definition = {**TEXT, "format": name}
        values = [schema_instance(definition, seed) for seed in range(5)]
        assert problems_of(definition, [*values, "^(a %"])[:-1] == [None] * 5, name
        assert problems_of(definition, ["^(a %"]) != [None], name
