"""Make valid instances of a JSON schema from a seed.

A schema is compiled once into nested functions, which are then called once per answer, because a batch of 100,000
requests usually has the same schema 100,000 times. Supported: type (also as a list), enum, const, properties,
required, additionalProperties, minProperties, maxProperties, items, prefixItems, minItems, maxItems, uniqueItems,
minimum and maximum in both forms, multipleOf, lengths, pattern, format, limits in a description, anyOf, oneOf,
allOf, $ref into the same document (also recursive), boolean schemas. With other keywords, such as not, if or
contains, instances are made until one fits; after some attempts the last one is taken.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import orjson

from batch_assets.emulator.described_limits import with_described_limits
from batch_assets.emulator.draws import Draws
from batch_assets.emulator.number_instance import compile_number
from batch_assets.emulator.schema_merge import UnsatisfiableSchemaError, merge, resolve
from batch_assets.emulator.schema_trial import trial
from batch_assets.emulator.string_instance import compile_string

Make = Callable[[Draws, int], Any]
"""A function that makes one instance. The integer is the current depth of nesting."""

_DEEP = 4  # from this depth on, optional parts are left out, so that recursion ends
_TOO_DEEP = 60
_ATTEMPTS = 100
_STRUCTURE = {
    "object": ("properties", "required", "additionalProperties", "minProperties", "maxProperties"),
    "array": ("items", "prefixItems", "minItems", "maxItems"),
}


def schema_instance(schema: Any, seed: int) -> Any:
    """Make an instance of a schema. It depends only on the schema and the seed.

    Args:
        schema: The JSON schema, as parsed JSON.
        seed: Any integer.

    Raises:
        UnsatisfiableSchemaError: When no instance could be made; exactly when `schema_problem` returns a reason.
    """
    text = orjson.dumps(schema)
    try:
        return _instance(text, Draws(seed))
    except _FAILURES:  # another seed may still succeed, such as the one that `schema_problem` tries
        problem = _problem(text)
        if problem is not None:
            raise UnsatisfiableSchemaError(problem) from None
        return _instance(text, Draws(0))


def schema_problem(schema: Any) -> str | None:
    """Say why no instance of a schema can be made; `None` if one can be made."""
    return _problem(orjson.dumps(schema))


@lru_cache(maxsize=64)
def _problem(schema: bytes) -> str | None:
    try:
        _instance(schema, Draws(0))
    except _FAILURES as error:
        return str(error) or type(error).__name__
    return None


def _instance(schema: bytes, draws: Draws) -> Any:
    make, fits = _compiled(schema)
    instance = make(draws, 0)
    for _ in range(_ATTEMPTS if fits is not None else 0):
        if fits is None or fits(instance):
            break
        instance = make(draws, 0)
    return instance


# A malformed schema can raise any of these.
_FAILURES = (ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RecursionError, re.error)


@lru_cache(maxsize=64)
def _compiled(schema: bytes) -> tuple[Make, Callable[[Any], bool] | None]:
    root = orjson.loads(schema)
    return _Compiler(root).compile(root), trial(root)


class _Compiler:
    """Compiles the parts of one schema."""

    def __init__(self, root: Any) -> None:
        self._root = root
        self._references: dict[str, Make] = {}

    def compile(self, schema: Any) -> Make:
        if schema is False:
            return _nothing
        if schema is True or not isinstance(schema, dict):
            return _anything
        if "$ref" in schema:
            siblings = {key: value for key, value in schema.items() if key not in ("$ref", "$defs", "definitions")}
            if not siblings.keys() - {"description", "title", "default", "examples"}:
                return self._reference(schema["$ref"])
            return self.compile(merge(resolve(self._root, schema["$ref"]), siblings))
        if "allOf" in schema:
            merged: Any = {key: value for key, value in schema.items() if key != "allOf"}
            for part in schema["allOf"]:
                while isinstance(part, dict) and "$ref" in part:
                    siblings = {key: value for key, value in part.items() if key != "$ref"}
                    part = merge(resolve(self._root, part["$ref"]), siblings)
                merged = merge(merged, part)
            return self.compile(merged)
        for word in ("anyOf", "oneOf"):
            if word in schema:
                return self._choice(schema, word)
        if "const" in schema:
            return _constant([schema["const"]])
        if "enum" in schema:
            return _constant(schema["enum"])
        return self._typed(schema)

    def _reference(self, pointer: str) -> Make:
        """Make a function that looks up its target on each call, because the target may contain the reference."""
        if pointer not in self._references:
            self._references[pointer] = lambda draws, depth: self._references[pointer](draws, depth)
            self._references[pointer] = self.compile(resolve(self._root, pointer))
        references = self._references

        def call(draws: Draws, depth: int) -> Any:
            if depth > _TOO_DEEP:
                raise UnsatisfiableSchemaError(f"{pointer} never ends")
            return references[pointer](draws, depth + 1)

        return call

    def _choice(self, schema: Mapping[str, Any], word: str) -> Make:
        base = {key: value for key, value in schema.items() if key != word}
        bare = not base.keys() - {"description", "title", "default", "$defs", "definitions", "$schema"}
        branches = []
        for branch in schema[word]:
            if bare:
                branches.append((_weight(branch), self.compile(branch)))
                continue
            while isinstance(branch, dict) and "$ref" in branch:
                siblings = {key: value for key, value in branch.items() if key != "$ref"}
                branch = merge(resolve(self._root, branch["$ref"]), siblings)
            merged = merge(base, branch)
            if merged is not False:
                branches.append((_weight(merged), self.compile(merged)))
        if not branches:
            return _nothing
        makes = [make for _, make in branches]
        simplest = min(branches, key=lambda branch: branch[0])[1]
        return lambda draws, depth: (simplest if depth >= _DEEP else draws.pick(makes))(draws, depth)

    def _typed(self, schema: dict[str, Any]) -> Make:
        schema = with_described_limits(schema)
        kinds = schema.get("type")
        if isinstance(kinds, list):
            if not kinds:
                return _nothing
            makes = [self._typed(schema | {"type": kind}) for kind in kinds]
            scalar = next(
                (make for kind, make in zip(kinds, makes, strict=True) if kind not in _STRUCTURE), makes[0]
            )
            return lambda draws, depth: (scalar if depth >= _DEEP else draws.pick(makes))(draws, depth)
        if kinds is None:
            kinds = next(
                (kind for kind, words in _STRUCTURE.items() if any(word in schema for word in words)), None
            )
        match kinds:
            case "object":
                return self._object(schema)
            case "array":
                return self._array(schema)
            case "integer" | "number":
                return compile_number(schema, integral=kinds == "integer")
            case "boolean":
                return lambda draws, depth: bool(draws.bits() & 1)
            case "null":
                return lambda draws, depth: None
            case _:
                return compile_string(schema)

    def _object(self, schema: Mapping[str, Any]) -> Make:
        required = set(schema.get("required", ()))
        properties = {name: self.compile(part) for name, part in schema.get("properties", {}).items()}
        extra_schema = schema.get("additionalProperties", True)
        extra = self.compile(extra_schema)
        for name in schema.get("required", ()):
            properties.setdefault(name, extra)
        least = schema.get("minProperties", 0)
        most = schema.get("maxProperties", 1 << 30)
        free = isinstance(extra_schema, dict) and most > len(properties)
        items = list(properties.items())

        def make(draws: Draws, depth: int) -> dict[str, Any]:
            optional = most - len(required)
            instance: dict[str, Any] = {}
            for name, make_value in items:
                if name not in required:
                    # An optional property is left out one time in four, and always from the depth _DEEP on.
                    if optional <= 0 or depth >= _DEEP or not draws.bits() & 3:
                        continue
                    optional -= 1
                instance[name] = make_value(draws, depth + 1)
            for name, make_value in items:
                if len(instance) < least and name not in instance:
                    instance[name] = make_value(draws, depth + 1)
            more = draws.below(3) if free and depth < _DEEP and not items else 0
            size = max(least, len(instance) + more)
            while len(instance) < min(size, most):
                instance[f"key_{len(instance) + 1}"] = extra(draws, depth + 1)
            return instance

        return make

    def _array(self, schema: Mapping[str, Any]) -> Make:
        first = [self.compile(part) for part in schema.get("prefixItems", ())]
        item_schema = schema.get("items", True)
        make_item = self.compile(item_schema)
        least = schema.get("minItems", 0)
        most = schema.get("maxItems", max(least, len(first)) + 3)
        if item_schema is False:
            most = min(most, len(first))
        unique = bool(schema.get("uniqueItems"))

        def make(draws: Draws, depth: int) -> list[Any]:
            low = max(least, min(len(first), most))
            size = low if depth >= _DEEP else draws.between(low, max(low, min(most, low + 3)))
            instance: list[Any] = []
            keys: set[bytes] = set()
            for _ in range(20 * size):  # duplicates are drawn again, up to a limit
                if len(instance) == size:
                    break
                item = (first[len(instance)] if len(instance) < len(first) else make_item)(draws, depth + 1)
                key = _equality_key(item) if unique else b""
                if unique and key in keys:
                    continue
                keys.add(key)
                instance.append(item)
            if len(instance) < least:
                raise UnsatisfiableSchemaError(f"fewer than {least} different items found")
            return instance

        return make


def _nothing(draws: Draws, depth: int) -> Any:
    raise UnsatisfiableSchemaError("the schema excludes every value")


def _anything(draws: Draws, depth: int) -> Any:
    return f"any-{draws.below(1000)}"


def _constant(values: list[Any]) -> Make:
    return lambda draws, depth: draws.pick(values) if values else _nothing(draws, depth)


def _weight(schema: Any) -> int:
    """Rank a branch by how deep it may lead: fixed values, then scalars, then anything else."""
    if not isinstance(schema, dict):
        return 1
    if schema.get("type") == "null" or "const" in schema or "enum" in schema:
        return 0
    return 1 if schema.get("type") in ("string", "integer", "number", "boolean") else 2 + ("$ref" in schema)


def _equality_key(item: Any) -> bytes:
    """Make a key that is the same for items that JSON schema considers equal, such as 1 and 1.0."""
    if isinstance(item, float) and item.is_integer():
        item = int(item)
    return orjson.dumps(item, option=orjson.OPT_SORT_KEYS)
