"""Check which parts of JSON Schema the API accepts, for structured output and for strict tools.

Sources: https://platform.claude.com/docs/en/build-with-claude/structured-outputs (JSON Schema limitations), and
the rewriting of schemas in the SDK: anthropic/lib/_parse/_transform.py.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from typing import Any

from batch_assets.core.answers.schema_parts import as_json, target
from batch_assets.core.answers.shape_coverage import shapes_check

# Limits for a whole schema: the number of optional properties, and of properties with anyOf or several types.
MAX_OPTIONAL = 24
MAX_UNIONS = 16

_TYPES = ("object", "array", "string", "integer", "number", "boolean", "null")
_FORMATS = ("date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid")
_DESCRIBE = "remove it, and put it into the description"
_REFUSED = {
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"), _DESCRIBE),
    **dict.fromkeys(("minLength", "maxLength", "maxItems", "uniqueItems", "contains"), _DESCRIBE),
    **dict.fromkeys(("minContains", "maxContains", "minProperties", "maxProperties", "propertyNames"), _DESCRIBE),
    **dict.fromkeys(("not", "if", "then", "else", "dependentRequired", "dependentSchemas"), _DESCRIBE),
    "oneOf": "write anyOf",
    "prefixItems": "write an object with a property for each item",
    "patternProperties": "list the properties, or write a list of objects with a name and a value",
    "unevaluatedProperties": 'write "additionalProperties": false',
    "unevaluatedItems": "remove it",
}
# Keywords that the API accepts, annotations included.
_ACCEPTED = (
    *("type", "properties", "required", "additionalProperties", "items", "minItems", "pattern", "format", "enum"),
    *("const", "anyOf", "allOf", "$ref", "$defs", "definitions", "$schema", "$id", "$comment", "title"),
    *("description", "default", "examples"),
)
_SIMILAR = 0.8
_NOT_IN_PATTERNS = (
    (re.compile(r"\(\?(=|!|<=|<!)"), "lookaround"),
    (re.compile(r"(?<!\\)(?:\\\\)*\\(?:[1-9]|k<)"), "back-references"),
    (re.compile(r"(?<!\\)(?:\\\\)*\\[bB]"), "\\b and \\B"),
)


class SchemaError(ValueError):
    """The API refuses the schema. The text names the path in the schema and says what to do."""


def check_schema(schema: dict[str, Any]) -> None:
    """Check that the API accepts a schema.

    Args:
        schema: The schema as it will be sent.

    Raises:
        SchemaError: When the API refuses the schema. Names the first problem.
    """
    check = _Check(schema)
    check.at(schema, "")
    if check.optional > MAX_OPTIONAL:
        raise SchemaError(
            f"{check.optional} properties are optional, but the API allows at most {MAX_OPTIONAL} in all: "
            'list more of them in "required", and allow null where a value may be absent'
        )
    if check.unions > MAX_UNIONS:
        raise SchemaError(
            f"{check.unions} properties have anyOf or several types, but the API allows at most {MAX_UNIONS} in "
            "all: give more of them a single type, for example a text that may be empty"
        )


def check_draft(schema: dict[str, Any]) -> None:
    """Check that a schema is JSON Schema, draft 2020-12. The API refuses any other, also for tools.

    Args:
        schema: The schema as it will be sent.

    Raises:
        SchemaError: When it is not. Names the first problem.
    """
    try:
        schema = as_json(schema)
    except ValueError as error:
        raise SchemaError(str(error)) from None
    if shapes_check(schema):
        return
    # The library takes 0.1 s to import, so it is imported only for schemas with rarer keywords.
    from batch_assets.core.answers.schema_validator import schema_faults

    for fault in schema_faults(schema):
        if fault.is_refused:
            raise problem_at(fault.path, fault.reason)


class _Check:
    """Walks through a schema, following references.

    Args:
        root: The whole schema, which references point into.

    Attributes:
        optional: The number of optional properties seen so far.
        unions: The number of properties with anyOf or several types seen so far.
    """

    def __init__(self, root: dict[str, Any]) -> None:
        self._root = root
        self._open: list[str] = ["#"]
        self._checked: set[str] = set()
        self.optional = self.unions = 0

    def at(self, part: Any, path: str) -> None:
        """Check a part of the schema, and everything it contains or refers to.

        Raises:
            SchemaError: When the API refuses it.
        """
        if not isinstance(part, dict):
            raise problem_at(path, 'this is not a schema: write an object such as {"type": "string"}')
        for word, remedy in _REFUSED.items():
            if word in part:
                raise problem_at(path, f"the API does not accept `{word}`: {remedy}")
        _check_words(part, path)
        for word in ("$defs", "definitions"):
            for name, inner in _object(part, word, path):
                self._once(f"#{_pointer(path)}/{word}/{name}", inner, join_path(path, f"{word}.{name}"))
        if "$ref" in part:
            self._reference(part["$ref"], path)
            return
        self._one_of_several(part, path)
        type_ = part.get("type")
        kinds = type_ if isinstance(type_, list) else [] if type_ is None else [type_]
        for kind in kinds:
            if kind not in _TYPES:
                raise problem_at(path, f"there is no type {kind!r}; types are {', '.join(_TYPES)}")
        if not kinds and not {"enum", "const", "anyOf", "allOf"} & part.keys():
            raise problem_at(path, 'it needs a "type" (or an enum, const, anyOf or $ref)')
        if "object" in kinds or "properties" in part:
            self._properties(part, path)
        if "array" in kinds and "items" not in part:
            raise problem_at(path, 'an array needs "items", the schema of its items')
        if "items" in part:
            if isinstance(part["items"], list):
                raise problem_at(path, "the API does not accept a list of `items`: write one schema for all")
            self.at(part["items"], join_path(path, "items"))
        if part.get("minItems", 0) not in (0, 1):
            raise problem_at(path, f"the API accepts only 0 and 1 for `minItems`: {_DESCRIBE}")
        _check_text(part, path)

    def _once(self, pointer: str, part: Any, path: str) -> None:
        if pointer not in self._checked:
            self._open.append(pointer)
            self.at(part, path)
            self._open.remove(pointer)
            self._checked.add(pointer)

    def _reference(self, reference: Any, path: str) -> None:
        part = target(reference, self._root)
        if not isinstance(reference, str) or not reference.startswith("#"):
            raise problem_at(
                path,
                f"the API does not follow references to other documents: write here what {reference!r} refers to",
            )
        if part is None:
            raise problem_at(path, f"{reference!r} points at nothing in this schema")
        if reference in self._open:
            problem = f"{reference!r} refers to itself, and the API does not accept recursion"
            raise problem_at(path, f"{problem}: write out as many levels as needed")
        self._once(reference, part, reference.removeprefix("#").strip("/").replace("/", "."))

    def _one_of_several(self, part: dict[str, Any], path: str) -> None:
        for word in ("anyOf", "allOf"):
            options = part.get(word, [])
            if not isinstance(options, list) or (word in part and not options):
                raise problem_at(path, f"`{word}` must be a list of schemas")
            for number, option in enumerate(options):
                if word == "allOf" and isinstance(option, dict) and "$ref" in option:
                    raise problem_at(path, "the API does not accept `$ref` within `allOf`: write the `$ref` alone")
                self.at(option, join_path(path, f"{word}[{number}]"))
        members = part.get("enum", [None])
        if not isinstance(members, list) or not members:
            raise problem_at(path, "`enum` must be a list of values")
        for member in [*members, part.get("const")]:
            if not (member is None or isinstance(member, str | int | float)):
                allowed = "texts, numbers, true, false and null"
                raise problem_at(path, f"the API accepts {allowed} in `enum` and `const`, not {member!r}")

    def _properties(self, part: dict[str, Any], path: str) -> None:
        if part.get("additionalProperties") is not False:
            state = "has another value" if "additionalProperties" in part else "is missing"
            raise problem_at(
                path, f'the API requires "additionalProperties": false in every object; here it {state}'
            )
        properties, required = dict(_object(part, "properties", path)), part.get("required", [])
        if not isinstance(required, list):
            raise problem_at(path, "`required` must be a list of names")
        for name in required:
            if name not in properties:
                raise problem_at(path, f"{name!r} is required, but is not one of the properties")
        self.optional += len(properties) - len(set(required))
        for name, inner in properties.items():
            if isinstance(inner, dict) and ("anyOf" in inner or isinstance(inner.get("type"), list)):
                self.unions += 1
            self.at(inner, join_path(path, f"properties.{name}"))


def _check_words(part: dict[str, Any], path: str) -> None:
    """Refuse misspelled keywords. Other unknown keywords pass, because they may be notes."""
    if "nullable" in part:
        raise problem_at(path, 'JSON Schema has no `nullable`: write "type": [..., "null"]')
    for word in part:
        known = [*_ACCEPTED, *_REFUSED]
        if word not in known:
            by_lower_case = {keyword.lower(): keyword for keyword in known}
            close = difflib.get_close_matches(str(word).lower(), by_lower_case, n=1, cutoff=_SIMILAR)
            if close:
                raise problem_at(path, f"JSON Schema has no `{word}`: did you mean `{by_lower_case[close[0]]}`?")


def _check_text(part: dict[str, Any], path: str) -> None:
    if "format" in part and part["format"] not in _FORMATS:
        known = ", ".join(_FORMATS)
        raise problem_at(path, f"the API does not accept the format {part['format']!r}, only {known}: {_DESCRIBE}")
    pattern = part.get("pattern", "")
    for form, name in _NOT_IN_PATTERNS:
        if isinstance(pattern, str) and form.search(pattern):
            raise problem_at(
                path, f"the API does not accept {name} in `pattern`: write it without, or {_DESCRIBE}"
            )


def _object(part: dict[str, Any], word: str, path: str) -> Iterator[tuple[str, Any]]:
    inner = part.get(word, {})
    if not isinstance(inner, dict):
        raise problem_at(path, f"`{word}` must be an object of names and their schemas")
    yield from inner.items()


def _pointer(path: str) -> str:
    return f"/{path.replace('.', '/')}" if path else ""


def join_path(path: str, more: str) -> str:
    """Extend a path in a schema, as errors show it. "" is the path of the whole schema."""
    return f"{path}.{more}" if path else more


def problem_at(path: str, problem: str) -> SchemaError:
    """Make the error for a problem at a path in a schema."""
    return SchemaError(f"{path}: {problem}" if path else problem)
