"""The parts of a JSON Schema: the schemas within it, and what its references point at."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

import orjson

# Keywords whose value is a schema, a list of schemas, or an object of schemas.
_ONE = frozenset(
    {
        *(
            "items",
            "additionalProperties",
            "unevaluatedProperties",
            "unevaluatedItems",
            "contains",
            "contentSchema",
        ),
        *("not", "if", "then", "else", "propertyNames"),
    }
)
_LISTS = frozenset({"anyOf", "oneOf", "allOf", "prefixItems"})
_MAPS = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})


def target(reference: Any, root: dict[str, Any]) -> Any:
    """Resolve a `$ref`; `None` if it points at nothing in the schema `root`."""
    if not isinstance(reference, str) or not (reference == "#" or reference.startswith("#/")):
        return None
    part: Any = root
    for step in reference.split("/")[1:]:
        name = unquote(step).replace("~1", "/").replace("~0", "~")
        if isinstance(part, list) and name.isdecimal() and int(name) < len(part):
            part = part[int(name)]
        else:
            part = part.get(name) if isinstance(part, dict) else None
    return part


def schemas_in(schema: Any) -> Iterator[dict[str, Any]]:
    """Yield a schema, and all schemas within it, that are objects."""
    if not isinstance(schema, dict):
        return
    yield schema
    for word, inner in schema.items():
        if word in _ONE:
            yield from schemas_in(inner)
        elif word in _LISTS and isinstance(inner, list):
            for part in inner:
                yield from schemas_in(part)
        elif word in _MAPS and isinstance(inner, dict):
            for part in inner.values():
                yield from schemas_in(part)


def has_one_root(schema: dict[str, Any]) -> bool:
    """Whether all references start at the whole schema. Those within a part that has its own `$id` start there."""
    return not any("$id" in part for part in schemas_in(schema) if part is not schema)


def as_json(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema as it is read from JSON: a date that YAML read becomes the text that is sent.

    Raises:
        ValueError: When it has a value that JSON does not have.
    """
    problem = "the schema cannot be written as JSON"
    for number in _floats(schema):
        if not math.isfinite(number):
            raise ValueError(f"{problem}: JSON has no {number}; write a finite number")
    try:
        value: dict[str, Any] = orjson.loads(orjson.dumps(schema))
    except TypeError as error:
        if "64-bit" in str(error):
            return schema
        raise ValueError(f"{problem}: {error}; put names and texts in quotes") from None
    return value


def _floats(value: Any) -> Iterator[float]:
    if isinstance(value, float):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _floats(inner)
