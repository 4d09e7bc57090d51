"""Compile a JSON Schema into shapes: what each part of an answer must be, and the Arrow type that holds it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from batch_assets.core.answers.limits import Limits, limits_in
from batch_assets.core.answers.result_columns import TIMESTAMP
from batch_assets.core.answers.schema_keywords import ANNOTATIONS
from batch_assets.core.answers.schema_parts import has_one_root, target

_SCALARS = {
    "string": pa.string(),
    "integer": pa.int64(),
    "number": pa.float64(),
    "boolean": pa.bool_(),
    "null": pa.null(),
}
_FORMATS = {"date": pa.date32(), "date-time": TIMESTAMP}
_NAMES = frozenset({"properties", "patternProperties", "additionalProperties"})
_INT64_LIMIT = 2**63


@dataclass(frozen=True)
class Shape:
    """One part of an answer.

    Attributes:
        kind: string, integer, number, boolean, null, date, date-time, enum, array, object, union, or any.
        nullable: Whether null is also allowed.
        values: The members of an enum, without null.
        items: The shape of the items of an array.
        fields: The shapes of the properties of an object, by name, in the schema's order.
        required: The names of the properties that an object must have.
        closed: Whether an object may have no other properties.
        options: The shapes of which a value of a union must match one.
        limits: The limits of the value; see limits.py.
        raw: The Arrow type of the values as parsed from JSON. It has strings where `type` has a dictionary, a date
            or a timestamp.
        type: The Arrow type of the column. `None`, like `raw`, if no Arrow type can hold every value.
    """

    kind: str
    nullable: bool = False
    values: tuple[Any, ...] = ()
    items: Shape | None = None
    fields: dict[str, Shape] = field(default_factory=dict)
    required: frozenset[str] = frozenset()
    closed: bool = False
    options: tuple[Shape, ...] = ()
    limits: Limits = field(default_factory=dict)
    raw: Any = None
    type: Any = None


ANY = Shape("any", nullable=True)


def shape_of(definition: Any, root: dict[str, Any]) -> Shape:
    """Compile a JSON Schema into a shape.

    Args:
        definition: The schema, or a part of it.
        root: The whole schema, which references point into.
    """
    return _Reader(root).shape(definition, frozenset())


def with_limits(shape: Shape, other: Shape) -> Shape:
    """Add the limits of another shape to a shape, wherever both are of the same kind."""
    if shape.kind != other.kind:
        return shape
    options = zip(shape.options, other.options, strict=True) if len(shape.options) == len(other.options) else ()
    return replace(
        shape,
        limits={**shape.limits, **other.limits},
        items=with_limits(shape.items, other.items) if shape.items and other.items else shape.items,
        fields={name: with_limits(part, other.fields.get(name, part)) for name, part in shape.fields.items()},
        options=tuple(with_limits(option, other_option) for option, other_option in options) or shape.options,
    )


def typed(array: pa.Array, shape: Shape) -> pa.Array:
    """Convert values from the type `shape.raw` to `shape.type`.

    Dictionaries have the members of the enum in the schema's order, so they are the same in every array.

    Args:
        array: The raw values, shape (n,).
        shape: The shape of the values.
    """
    if array.type == shape.type:
        return array
    if pa.types.is_dictionary(shape.type):
        members = pa.array(shape.values, pa.string())
        return pa.DictionaryArray.from_arrays(pc.index_in(array, members), members)
    if shape.items is not None:
        items = typed(array.values, shape.items)
        return pa.ListArray.from_arrays(array.offsets, items, type=shape.type, mask=array.is_null())
    if shape.fields:
        fields = [typed(part, field) for part, field in zip(array.flatten(), shape.fields.values(), strict=True)]
        return pa.StructArray.from_arrays(fields, fields=list(shape.type), mask=array.is_null())
    return array.cast(shape.type)


class _Reader:
    """Compiles the parts of one schema.

    In all methods, `seen` are the references that led to the part. Meeting one of them again means recursion, for
    which there is no Arrow type.
    """

    def __init__(self, root: dict[str, Any]) -> None:
        self._root = root
        self._has_one_root = has_one_root(root)

    def shape(self, definition: Any, seen: frozenset[str]) -> Shape:
        """Compile any part of the schema."""
        while isinstance(definition, dict) and ("$ref" in definition or "allOf" in definition):
            parts = definition.get("allOf")
            if "$ref" in definition:
                if str(definition["$ref"]) in seen or not self._has_one_root:
                    return ANY
                seen |= {str(definition["$ref"])}
                inner, word = target(definition["$ref"], self._root), "$ref"
            elif isinstance(parts, list) and len(parts) == 1:
                inner, word = parts[0], "allOf"
            else:
                return ANY
            siblings = {key: value for key, value in definition.items() if key not in (word, *ANNOTATIONS)}
            definition = _merged(inner, siblings) if isinstance(inner, dict) else None
        if not isinstance(definition, dict):
            return ANY
        if "const" in definition:
            return _enum([definition["const"]], definition.get("type"))
        if isinstance(definition.get("enum"), list):
            return _enum(definition["enum"], definition.get("type"))
        for word in ("anyOf", "oneOf"):
            if isinstance(definition.get(word), list):
                return self._one_of(definition, word, seen)
        return self._typed(definition, definition.get("type"), seen)

    def _one_of(self, definition: dict[str, Any], word: str, seen: frozenset[str]) -> Shape:
        siblings = {key: value for key, value in definition.items() if key not in (word, *ANNOTATIONS)}
        options = [
            self.shape(_merged(siblings, option) if isinstance(option, dict) else option, seen)
            for option in definition[word]
        ]
        return _union(options)

    def _typed(self, definition: dict[str, Any], kind: Any, seen: frozenset[str]) -> Shape:
        if isinstance(kind, list):
            return _union([self._typed(definition, option, seen) for option in kind])
        if kind == "array":
            items = ANY if "prefixItems" in definition else self.shape(definition.get("items"), seen)
            has_type = items.raw is not None
            return Shape(
                "array",
                items=items,
                limits=limits_in(definition, kind),
                raw=pa.list_(items.raw) if has_type else None,
                type=pa.list_(items.type) if has_type else None,
            )
        if kind == "object":
            return self._object(definition, seen)
        if kind == "string" and str(definition.get("format")) in _FORMATS:
            return Shape(definition["format"], raw=pa.string(), type=_FORMATS[definition["format"]])
        if isinstance(kind, str) and kind in _SCALARS:
            type_ = _SCALARS[kind]
            limits = limits_in(definition, kind)
            return Shape(kind, nullable=kind == "null", limits=limits, raw=type_, type=type_)
        return ANY

    def _object(self, definition: dict[str, Any], seen: frozenset[str]) -> Shape:
        properties, required = definition.get("properties"), definition.get("required")
        definitions = properties if isinstance(properties, dict) else {}
        required = [name for name in required if isinstance(name, str)] if isinstance(required, list) else []
        fields = {name: self.shape(part, seen) for name, part in definitions.items()}
        has_type = bool(fields) and all(part.raw is not None for part in fields.values())
        return Shape(
            "object",
            fields=fields,
            closed=definition.get("additionalProperties") is False and "patternProperties" not in definition,
            required=frozenset(name for name in required if name in fields),
            raw=pa.struct([pa.field(name, part.raw) for name, part in fields.items()]) if has_type else None,
            type=pa.struct([pa.field(name, part.type) for name, part in fields.items()]) if has_type else None,
        )


def _merged(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Merge two schemas into one that accepts every value that matches both.

    Of a keyword that both have, only the value of the second counts. `additionalProperties` counts only where it
    knows all properties.
    """
    merged = {**first, **second}
    if _NAMES & first.keys() and _NAMES & second.keys():
        merged.pop("additionalProperties", None)
    return merged


def _enum(members: list[Any], kind: Any) -> Shape:
    kinds = kind if isinstance(kind, list) else [kind]
    if kind is not None:
        members = [member for member in members if any(is_a(name, member) for name in kinds)]
    values = tuple(member for member in members if member is not None)
    nullable = len(values) < len(members)
    if not values:
        return Shape("null", nullable=True, raw=pa.null(), type=pa.null())
    raw: pa.DataType | None = None
    if all(isinstance(value, str) for value in values):
        return _texts(values, nullable)
    if all(isinstance(value, bool) for value in values):
        raw = pa.bool_()
    elif (
        all(is_a("integer", value) and -_INT64_LIMIT <= value < _INT64_LIMIT for value in values)
        and "number" not in kinds
    ):
        raw = pa.int64()
    elif all(is_a("number", value) and _is_exact(value) for value in values):
        raw = pa.float64()
    return Shape("enum", nullable=nullable, values=values, raw=raw, type=raw)


def _texts(values: tuple[str, ...], nullable: bool) -> Shape:
    distinct = tuple(dict.fromkeys(values))
    return Shape(
        "enum",
        nullable=nullable,
        values=distinct,
        raw=pa.string(),
        type=pa.dictionary(pa.int32(), pa.string()),
    )


def _union(options: list[Shape]) -> Shape:
    """Combine shapes. One shape and null give a nullable shape, enums of texts one enum, numbers one number."""
    others = [option for option in options if option.kind != "null"]
    nullable = len(others) < len(options) or any(option.nullable for option in others)
    if not others:
        return Shape("null", nullable=True, raw=pa.null(), type=pa.null())
    if len(others) == 1:
        return replace(others[0], nullable=nullable)
    if all(option.kind == "enum" and option.raw == pa.string() for option in others):
        return _texts(tuple(value for option in others for value in option.values), nullable)
    limits = others[0].limits
    if all(option.kind in ("integer", "number") and option.limits == limits for option in others):
        return Shape("number", nullable=nullable, limits=limits, raw=pa.float64(), type=pa.float64())
    return Shape("union", nullable=nullable, options=tuple(others))


def is_a(kind: Any, value: Any) -> bool:
    """Whether a member of an enum has the JSON type `kind`."""
    if value is None or isinstance(value, bool):
        return bool(kind == ("null" if value is None else "boolean"))
    if isinstance(value, int | float):
        return kind == "number" or (kind == "integer" and (isinstance(value, int) or value.is_integer()))
    if isinstance(value, str):
        return bool(kind == "string")
    return bool(kind == ("array" if isinstance(value, list) else "object"))


def _is_exact(value: int | float) -> bool:
    """Whether a float is exactly this number."""
    try:
        return float(value) == value
    except OverflowError:
        return False
