"""Decide whether shapes check all that a schema demands, or whether its answers need the validator as well.

Shapes check the keywords that nearly all schemas use, many answers at once. They never refuse what a schema
allows, so a schema with any other keyword is checked by both.
"""

from __future__ import annotations

from typing import Any

from batch_assets.core.answers.limits import limits_in
from batch_assets.core.answers.output_shapes import Shape, is_a
from batch_assets.core.answers.schema_keywords import ANNOTATIONS, FORMATS, OF_ALL_TYPES, OF_TYPE, TYPES
from batch_assets.core.answers.schema_parts import has_one_root, target

_CHECKED = {
    "string": {"minLength", "maxLength", "pattern", "format"},
    "integer": OF_TYPE["integer"],
    "number": OF_TYPE["number"],
    "array": {"items", "minItems", "maxItems"},
    "object": {"properties", "required", "additionalProperties"},
    "boolean": frozenset(),
    "null": frozenset(),
}


def shapes_check(schema: dict[str, Any]) -> bool:
    """Whether the shape of a schema checks everything that the schema demands."""
    return has_one_root(schema) and _Coverage(schema).covers(schema, frozenset())


def same_parts(shape: Shape, other: Shape) -> bool:
    """Whether two shapes are made of the same parts, so that the limits of one can be added to the other."""
    inner = [(shape.items, other.items), *((part, other.fields.get(name)) for name, part in shape.fields.items())]
    return (
        shape.kind == other.kind
        and len(shape.fields) == len(other.fields)
        and len(shape.options) == len(other.options)
        and all(same_parts(*pair) for pair in zip(shape.options, other.options, strict=True))
        and all(
            ours is None if theirs is None else ours is not None and same_parts(ours, theirs)
            for ours, theirs in inner
        )
    )


class _Coverage:
    """Walks through one schema in the way in which its shape is compiled.

    In all methods, `references` are those that led to the part.
    """

    def __init__(self, root: dict[str, Any]) -> None:
        self._root = root

    def covers(self, part: Any, references: frozenset[str]) -> bool:
        """Whether the shape of any part checks everything that the part demands."""
        if not isinstance(part, dict):
            return part is True
        words = part.keys() - ANNOTATIONS
        demands = words & OF_ALL_TYPES
        if not demands and "type" not in part:
            return not words & frozenset().union(*OF_TYPE.values())
        if demands == {"$ref"} and "type" not in part:
            return self._reference(part["$ref"], words, references)
        if demands == {"allOf"} and words == demands:
            parts = part["allOf"]
            return isinstance(parts, list) and len(parts) == 1 and self.covers(parts[0], references)
        if demands in ({"anyOf"}, {"oneOf"}) and words == demands:
            (word,) = demands
            return self._one_of(part[word], word, references)
        if demands in ({"enum"}, {"const"}) and words <= {"enum", "const", "type"}:
            return _enum(part["enum"] if "enum" in part else [part["const"]], part.get("type"))
        kinds = part["type"] if isinstance(part.get("type"), list) else [part.get("type")]
        return not demands and bool(kinds) and all(self._typed(part, kind, references) for kind in kinds)

    def _reference(self, reference: Any, words: Any, references: frozenset[str]) -> bool:
        if len(words) > 1 or not isinstance(reference, str) or reference in references:
            return False
        inner = target(reference, self._root)
        return inner is not None and self.covers(inner, references | {reference})

    def _one_of(self, options: Any, word: str, references: frozenset[str]) -> bool:
        if not isinstance(options, list) or not options:
            return False
        if not all(self.covers(option, references) for option in options):
            return False
        if word == "anyOf":
            return True
        kinds = [kind for option in options for kind in self._kinds(option)]  # of oneOf, exactly one may match
        return len(kinds) == len(set(kinds))

    def _kinds(self, option: Any) -> list[str]:
        """The types that an option of oneOf allows, with integers as numbers; all of them if it names none."""
        while isinstance(option, dict) and "$ref" in option:
            option = target(option["$ref"], self._root)
        kind = option.get("type") if isinstance(option, dict) else None
        if kind is None:
            return ["number", *TYPES]
        return ["number" if name == "integer" else name for name in (kind if isinstance(kind, list) else [kind])]

    def _typed(self, part: dict[str, Any], kind: Any, references: frozenset[str]) -> bool:
        if kind not in TYPES:
            return False
        demands = part.keys() & OF_TYPE[kind]
        if not demands <= _CHECKED[kind]:
            return False
        if kind == "array":
            has_limits = limits_in(part, kind).keys() == demands - {"items"}
            return has_limits and self.covers(part.get("items", True), references)
        if kind == "object":
            return self._object(part, references)
        if kind == "string" and part.get("format") in ("date", "date-time"):
            return demands == {"format"}
        unknown = {"format"} if part.get("format") not in FORMATS else set()
        return limits_in(part, kind).keys() == demands - unknown

    def _object(self, part: dict[str, Any], references: frozenset[str]) -> bool:
        properties, required = part.get("properties", {}), part.get("required", [])
        return (
            isinstance(properties, dict)
            and isinstance(required, list)
            and all(isinstance(name, str) and name in properties for name in required)
            and part.get("additionalProperties", True) in (True, False, {})
            and all(self.covers(inner, references) for inner in properties.values())
        )


def _enum(members: Any, kind: Any) -> bool:
    kinds = kind if isinstance(kind, list) else [kind]
    return isinstance(members, list) and any(
        kind is None or any(is_a(name, member) for name in kinds) for member in members
    )
