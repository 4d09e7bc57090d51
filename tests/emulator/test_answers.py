"""Answers are deterministic, identify the text they answer, and satisfy the requested schema."""

import json
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch_assets.emulator import emulated_answer, text_digest
from batch_assets.emulator.schema_instance import UnsatisfiableSchemaError, schema_instance, schema_problem

from .conftest import params

TREE: dict[str, Any] = {
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "name": {"type": "string", "minLength": 3, "maxLength": 5},
                "children": {"type": "array", "items": {"$ref": "#/$defs/node"}},
                "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
            },
            "required": ["name", "children", "next"],
            "additionalProperties": False,
        }
    },
    "$ref": "#/$defs/node",
}
FORMATS = ["date", "date-time", "time", "email", "uri", "uuid", "ipv4", "ipv6", "hostname"]


numbers = st.integers(-50, 50)


def check(schema: Any, value: Any) -> None:
    jsonschema.Draft202012Validator(
        schema, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
    ).validate(value)


@st.composite
def bounded(draw: st.DrawFn) -> dict[str, Any]:
    """A schema for numbers with bounds that some numbers satisfy."""
    kind = draw(st.sampled_from(["integer", "number"]))
    low = draw(numbers)
    high = low + draw(st.integers(2, 40))
    schema: dict[str, Any] = {"type": kind}
    schema |= draw(st.sampled_from([{}, {"minimum": low}, {"exclusiveMinimum": low}]))
    schema |= draw(st.sampled_from([{}, {"maximum": high}, {"exclusiveMaximum": high}]))
    if draw(st.booleans()) and len(schema) < 3:
        schema["multipleOf"] = draw(st.sampled_from([1, 2, 7]))
    return schema


@st.composite
def sized_strings(draw: st.DrawFn) -> dict[str, Any]:
    """A schema for strings with lengths."""
    low = draw(st.integers(0, 40))
    return {"type": "string", "minLength": low} | draw(
        st.sampled_from([{}, {"maxLength": low + draw(st.integers(0, 9))}])
    )


leaves = st.one_of(
    st.sampled_from([{"type": kind} for kind in ("string", "integer", "number", "boolean", "null")]),
    st.lists(numbers | st.text(max_size=4), min_size=1, max_size=4).map(lambda values: {"enum": values}),
    st.sampled_from([{"type": "string", "format": name} for name in FORMATS]),
    st.sampled_from(["^[A-Z]{2}-\\d{3}$", "^(yes|no)$", "^[^a-c]+x?$", "\\w+@\\w+"]).map(
        lambda pattern: {"type": "string", "pattern": pattern}
    ),
    st.just({"const": {"fixed": [1, None]}}),
    bounded(),
    sized_strings(),
    st.just({"type": ["string", "null"]}),
)


@st.composite
def objects(draw: st.DrawFn, inner: st.SearchStrategy[Any]) -> dict[str, Any]:
    """A schema for objects. Some names are required, and some of those are not described."""
    properties = draw(st.dictionaries(st.sampled_from("abcdef"), inner, max_size=4))
    required = draw(st.lists(st.sampled_from("abcdef"), unique=True, max_size=3))
    schema: dict[str, Any] = {"type": "object", "properties": properties}
    if set(required) <= properties.keys():
        schema["additionalProperties"] = draw(st.sampled_from([False, True]))
    return schema | {"required": required}


@st.composite
def arrays(draw: st.DrawFn, inner: st.SearchStrategy[Any]) -> dict[str, Any]:
    """A schema for arrays."""
    low = draw(st.integers(0, 3))
    schema: dict[str, Any] = {"type": "array", "items": draw(inner), "minItems": low}
    if draw(st.booleans()):
        schema["maxItems"] = low + draw(st.integers(0, 3))
    if draw(st.booleans()):
        schema["prefixItems"] = draw(st.lists(inner, min_size=1, max_size=2))
    return schema


def combined(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    choices = st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"anyOf": parts})
    nullable = inner.map(lambda part: {"anyOf": [part, {"type": "null"}]})
    return st.one_of(objects(inner), arrays(inner), choices, nullable)


schemas = st.recursive(leaves, combined, max_leaves=12)


@settings(deadline=None, max_examples=60)
@given(schemas, st.integers(0, 2**64 - 1))
def test_instances_of_generated_schemas(schema: Any, seed: int) -> None:
    jsonschema.Draft202012Validator.check_schema(schema)
    value = schema_instance(schema, seed)
    check(schema, value)
    assert schema_instance(schema, seed) == value


@pytest.mark.parametrize(
    "schema",
    [
        TREE,
        True,
        {},
        {"type": "array", "items": {"enum": [1, 2, 3]}, "minItems": 3, "uniqueItems": True},
        {"type": "object", "additionalProperties": {"type": "integer"}, "minProperties": 2},
        {
            "allOf": [{"$ref": "#/$defs/a"}, {"required": ["y"]}],
            "$defs": {"a": {"properties": {"y": {"const": 1}}}},
        },
        {"oneOf": [{"type": "string"}, {"type": "object", "required": ["k"]}]},
        {"type": "object", "anyOf": [{"required": ["a"]}, {"required": ["b"]}], "properties": {"a": {}, "b": {}}},
        {"type": "integer", "allOf": [{"minimum": 3}, {"maximum": 3}]},
        {"type": "integer", "minimum": 2**63 - 1},
        {"type": "integer", "minimum": 2**53 + 1, "maximum": 2**53 + 1},
        {"type": ["string", "integer"], "not": {"type": "string"}},
        {"oneOf": [{"type": "integer", "multipleOf": 2}, {"type": "integer", "multipleOf": 3}]},
        {
            "type": "array",
            "items": {"type": "integer", "minimum": 0, "maximum": 9},
            "minItems": 2,
            "contains": {"const": 3},
        },
        {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "string"}},
            "if": {"required": ["a"]},
            "then": {"required": ["b"]},
        },
    ],
)
def test_instances_of_special_schemas(schema: Any) -> None:
    values = [schema_instance(schema, seed * 7919) for seed in range(50)]
    for value in values:
        check(schema, value)
    if schema == TREE:
        assert len({json.dumps(value) for value in values}) > 40


@pytest.mark.parametrize(
    "schema",
    [
        False,
        {"enum": []},
        {"type": "integer", "minimum": 2, "maximum": 1},
        {"$defs": {"a": {"type": "object", "required": ["a"], "properties": {"a": {"$ref": "#/$defs/a"}}}},
         "$ref": "#/$defs/a"},
        {"$ref": "#/$defs/missing"},
        {"$ref": "https://example.com/schema"},
        {"type": "string", "pattern": "["},
        {"type": "array", "items": {"const": 1}, "uniqueItems": True, "minItems": 2},
        {"properties": 7},
    ],
)  # fmt: skip
def test_schemas_without_instances(schema: Any) -> None:
    assert schema_problem(schema)
    with pytest.raises(UnsatisfiableSchemaError):
        schema_instance(schema, 1)


@pytest.mark.parametrize("field", ["output_config", "output_format"])
def test_structured_answers(field: str) -> None:
    format_: Any = {"type": "json_schema", "schema": TREE}
    request = params(
        "x", max_tokens=60_000, **{field: {"format": format_} if field == "output_config" else format_}
    )
    answer = emulated_answer(request)
    check(TREE, json.loads(answer["content"][0]["text"]))
    assert answer["stop_reason"] == "end_turn"


@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "second"}])
def test_a_forced_tool_is_called(choice: dict[str, str]) -> None:
    tools = [{"name": name, "input_schema": TREE} for name in ("first", "second")]
    answer = emulated_answer(params("x", max_tokens=60_000, tools=tools, tool_choice=choice))
    (block,) = answer["content"]
    assert (block["type"], answer["stop_reason"]) == ("tool_use", "tool_use")
    assert block["name"] in (["second"] if "name" in choice else ["first", "second"])
    check(TREE, block["input"])
    free = emulated_answer(params("x", tools=tools, tool_choice={"type": "auto"}))
    assert free["content"][0]["type"] == "text"


def test_answers_depend_on_all_params_and_on_nothing_else() -> None:
    request = params("Same question")
    assert emulated_answer(request) == emulated_answer(dict(reversed(request.items())))
    texts = {emulated_answer(params("Same question", system=f"s{at}"))["content"][0]["text"] for at in range(30)}
    assert len(texts) > 5
    assert all(text_digest("Same question") in text and "emulated" in text.lower() for text in texts)


def test_the_last_user_text_is_echoed() -> None:
    messages = [
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": "reply"},
        {"role": "user", "content": [{"type": "text", "text": "second"}, {"type": "text", "text": "third"}]},
    ]
    text = emulated_answer(params(messages=messages))["content"][0]["text"]
    assert "second\nthird" in text and "first" not in text and text_digest("second\nthird") in text


def test_max_tokens_and_stop_sequences_cut_the_answer() -> None:
    whole = emulated_answer(params("word " * 20))["content"][0]["text"]
    short = emulated_answer(params("word " * 20, max_tokens=5))
    assert (short["stop_reason"], short["usage"]["output_tokens"]) == ("max_tokens", 5)
    assert len(short["content"][0]["text"]) == 15
    stopped = emulated_answer(params("word " * 20, stop_sequences=["nowhere", "word"]))
    assert (stopped["stop_reason"], stopped["stop_sequence"]) == ("stop_sequence", "word")
    assert "word" in whole and "word" not in stopped["content"][0]["text"]
    tool = {
        "name": "t",
        "input_schema": {"type": "object", "required": ["a"], "properties": {"a": {"minLength": 90}}},
    }
    forced = emulated_answer(params("x", max_tokens=3, tools=[tool], tool_choice={"type": "any"}))
    assert (forced["stop_reason"], forced["content"][0]["input"]) == ("max_tokens", {})


def test_thinking_comes_first() -> None:
    answer = emulated_answer(params("x", thinking={"type": "enabled", "budget_tokens": 1024}))
    assert [block["type"] for block in answer["content"]] == ["thinking", "text"]


@pytest.mark.parametrize(("ttl", "key"), [("5m", "ephemeral_5m"), ("1h", "ephemeral_1h")])
def test_tokens_up_to_a_cache_mark_are_counted_as_cached(ttl: str, key: str) -> None:
    mark = {"cache_control": {"type": "ephemeral", "ttl": ttl}}
    long = emulated_answer(params("x", system=[{"type": "text", "text": "s" * 15_000} | mark]))["usage"]
    short = emulated_answer(params("x", system=[{"type": "text", "text": "s" * 150} | mark]))["usage"]
    assert long["cache_creation_input_tokens"] == long["cache_creation"][f"{key}_input_tokens"] > 4096
    assert sum(long["cache_creation"].values()) == long["cache_creation_input_tokens"]
    assert short["cache_creation_input_tokens"] == 0 and short["input_tokens"] > 50
    assert long["input_tokens"] < 20
