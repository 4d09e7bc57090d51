"""What the API takes of JSON Schema, for structured output and for strict tools.

Rules: https://platform.claude.com/docs/en/build-with-claude/structured-outputs (JSON Schema limitations), and what
the SDK rewrites before it sends a schema: anthropic/lib/_parse/_transform.py.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from typing import Any

from batch_assets.core.answers.output_shapes import target

# Over all objects of a schema: properties that are not required, and properties with anyOf or several types.
MAX_OPTIONAL = 24
MAX_UNIONS = 16

_TYPES = ("object", "array", "string", "integer", "number", "boolean", "null")
_FORMATS = ("date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid")
_SAY_IT = "remove it, and say it in the description"
_REFUSED = {
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"), _SAY_IT),
    **dict.fromkeys(("minLength", "maxLength", "maxItems", "uniqueItems", "contains"), _SAY_IT),
    **dict.fromkeys(("minContains", "maxContains", "minProperties", "maxProperties", "propertyNames"), _SAY_IT),
    **dict.fromkeys(("not", "if", "then", "else", "dependentRequired", "dependentSchemas"), _SAY_IT),
    "oneOf": "write anyOf",
    "prefixItems": "write an object with a property for each place",
    "patternProperties": "write the properties out, or a list of objects with a name and a value",
    "unevaluatedProperties": 'write "additionalProperties": false',
    "unevaluatedItems": "remove it",
}
# What the API takes, and what tells of a value only.
_TAKEN = (
    *("type", "properties", "required", "additionalProperties", "items", "minItems", "pattern", "format", "enum"),
    *("const", "anyOf", "allOf", "$ref", "$defs", "definitions", "$schema", "$id", "$comment", "title"),
    *("description", "default", "examples"),
)
_LIKE_ENOUGH = 0.8
_NOT_IN_PATTERNS = (
    (re.compile(r"\(\?(=|!|<=|<!)"), "lookaround"),
    (re.compile(r"(?<!\\)(?:\\\\)*\\(?:[1-9]|k<)"), "references back"),
    (re.compile(r"(?<!\\)(?:\\\\)*\\[bB]"), "\\b and \\B"),
)


class SchemaError(ValueError):
    """A schema that the API refuses; the text names the place in the schema and what to do."""


def check_schema(schema: dict[str, Any]) -> None:
    """Looks for what the API refuses in a schema.

    Args:
        schema: as it is to be sent.

    Errors:
        SchemaError: the first thing found.
    """
    check = _Check(schema)
    check.at(schema, "")
    if check.optional > MAX_OPTIONAL:
        raise SchemaError(
            f"{check.optional} properties are optional, and the API takes at most {MAX_OPTIONAL} in all: "
            'name more of them in "required", and let be null what may be absent'
        )
    if check.unions > MAX_UNIONS:
        raise SchemaError(
            f"{check.unions} properties have anyOf or several types, the API takes at most {MAX_UNIONS} in all: "
            "give more of them one type, a text that may be empty for example"
        )


class _Check:
    """Attributes: optional, unions: properties found that are not required; that have anyOf or several types."""

    def __init__(self, root: dict[str, Any]) -> None:
        self._root = root
        self._open: list[str] = ["#"]
        self._done: set[str] = set()
        self.optional = self.unions = 0

    def at(self, part: Any, path: str) -> None:
        """Raises a SchemaError for what is wrong with a part of the schema, or in what it refers to."""
        if not isinstance(part, dict):
            raise problem_at(path, 'this is no schema: write an object such as {"type": "string"}')
        for word, remedy in _REFUSED.items():
            if word in part:
                raise problem_at(path, f"the API does not take `{word}`: {remedy}")
        _check_words(part, path)
        for word in ("$defs", "definitions"):
            for name, inner in _object(part, word, path):
                self._once(f"#{_pointer(path)}/{word}/{name}", inner, join_path(path, f"{word}.{name}"))
        if "$ref" in part:
            self._reference(part["$ref"], path)
            return
        self._one_of_several(part, path)
        kinds = part.get("type")
        named = kinds if isinstance(kinds, list) else [] if kinds is None else [kinds]
        for kind in named:
            if kind not in _TYPES:
                raise problem_at(path, f"there is no type {kind!r}; types are {', '.join(_TYPES)}")
        if not named and not {"enum", "const", "anyOf", "allOf"} & part.keys():
            raise problem_at(path, 'it needs a "type" (or an enum, const, anyOf or $ref)')
        if "object" in named or "properties" in part:
            self._properties(part, path)
        if "array" in named and "items" not in part:
            raise problem_at(path, 'an array needs "items": the schema of what is in it')
        if "items" in part:
            if isinstance(part["items"], list):
                raise problem_at(path, "the API does not take a list of `items`: write one schema for all")
            self.at(part["items"], join_path(path, "items"))
        if part.get("minItems", 0) not in (0, 1):
            raise problem_at(path, f"the API takes `minItems` 0 and 1 only: {_SAY_IT}")
        _check_text(part, path)

    def _once(self, pointer: str, part: Any, path: str) -> None:
        if pointer not in self._done:
            self._open.append(pointer)
            self.at(part, path)
            self._open.remove(pointer)
            self._done.add(pointer)

    def _reference(self, reference: Any, path: str) -> None:
        found = target(reference, self._root)
        if not isinstance(reference, str) or not reference.startswith("#"):
            raise problem_at(
                path, f"the API follows no reference out of the schema: write what {reference!r} holds"
            )
        if found is None:
            raise problem_at(path, f"{reference!r} points at nothing in this schema")
        if reference in self._open:
            what = f"{reference!r} refers to itself, and the API takes no recursion"
            raise problem_at(path, f"{what}: write out as many levels as are needed")
        self._once(reference, found, reference.removeprefix("#").strip("/").replace("/", "."))

    def _one_of_several(self, part: dict[str, Any], path: str) -> None:
        for word in ("anyOf", "allOf"):
            options = part.get(word, [])
            if not isinstance(options, list) or (word in part and not options):
                raise problem_at(path, f"`{word}` holds a list of schemas")
            for number, option in enumerate(options):
                if word == "allOf" and isinstance(option, dict) and "$ref" in option:
                    raise problem_at(
                        path, "the API does not take `$ref` within `allOf`: write the reference alone"
                    )
                self.at(option, join_path(path, f"{word}[{number}]"))
        members = part.get("enum", [None])
        if not isinstance(members, list) or not members:
            raise problem_at(path, "`enum` holds a list of values")
        for member in [*members, part.get("const")]:
            if not (member is None or isinstance(member, str | int | float)):
                takes = "texts, numbers, true, false and null"
                raise problem_at(path, f"the API takes {takes} in `enum` and `const`, not {member!r}")

    def _properties(self, part: dict[str, Any], path: str) -> None:
        if part.get("additionalProperties") is not False:
            has = "is something else" if "additionalProperties" in part else "is absent"
            raise problem_at(
                path, f'the API wants the line "additionalProperties": false in every object; it {has}'
            )
        properties, required = dict(_object(part, "properties", path)), part.get("required", [])
        if not isinstance(required, list):
            raise problem_at(path, "`required` holds a list of names")
        for name in required:
            if name not in properties:
                raise problem_at(path, f"{name!r} is required, and is not among the properties")
        self.optional += len(properties) - len(set(required))
        for name, inner in properties.items():
            if isinstance(inner, dict) and ("anyOf" in inner or isinstance(inner.get("type"), list)):
                self.unions += 1
            self.at(inner, join_path(path, f"properties.{name}"))


def _check_words(part: dict[str, Any], path: str) -> None:
    """Names words that are none of JSON Schema's, and plainly meant for one; others pass, as notes do."""
    if "nullable" in part:
        raise problem_at(path, 'JSON Schema has no `nullable`: write "type": [..., "null"]')
    for word in part:
        known = [*_TAKEN, *_REFUSED]
        if word not in known:
            alike = {one.lower(): one for one in known}
            close = difflib.get_close_matches(str(word).lower(), alike, n=1, cutoff=_LIKE_ENOUGH)
            if close:
                raise problem_at(path, f"JSON Schema has no `{word}`: did you mean `{alike[close[0]]}`?")


def _check_text(part: dict[str, Any], path: str) -> None:
    if "format" in part and part["format"] not in _FORMATS:
        known = ", ".join(_FORMATS)
        raise problem_at(path, f"the API does not take the format {part['format']!r}, only {known}: {_SAY_IT}")
    pattern = part.get("pattern", "")
    for form, what in _NOT_IN_PATTERNS:
        if isinstance(pattern, str) and form.search(pattern):
            raise problem_at(path, f"the API takes no {what} in `pattern`: write it without, or {_SAY_IT}")


def _object(part: dict[str, Any], word: str, path: str) -> Iterator[tuple[str, Any]]:
    inner = part.get(word, {})
    if not isinstance(inner, dict):
        raise problem_at(path, f"`{word}` holds an object, a name and a schema each")
    yield from inner.items()


def _pointer(path: str) -> str:
    return f"/{path.replace('.', '/')}" if path else ""


def join_path(path: str, more: str) -> str:
    """A place in a schema, as errors name it, below another one; "" is the schema itself."""
    return f"{path}.{more}" if path else more


def problem_at(path: str, what: str) -> SchemaError:
    """The error that names a place in a schema."""
    return SchemaError(f"{path}: {what}" if path else what)
