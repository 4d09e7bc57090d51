"""JSON Schema -> shapes: what each part of an answer must be, and the Arrow type that holds it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from batch_assets.core.answers.limits import Limits, limits_in
from batch_assets.core.answers.result_columns import TIMESTAMP

_SCALARS = {
    "string": pa.string(),
    "integer": pa.int64(),
    "number": pa.float64(),
    "boolean": pa.bool_(),
    "null": pa.null(),
}
_FORMATS = {"date": pa.date32(), "date-time": TIMESTAMP}
# Of a schema's words the ones that say nothing of the value.
_ABOUT = frozenset({"$schema", "$id", "$defs", "definitions", "title", "description", "default", "examples"})
_BIG = 2**63


@dataclass(frozen=True)
class Shape:
    """One part of an answer.

    Attributes:
        kind: string, integer, number, boolean, null, date, date-time, enum, array, object, union, or any.
        nullable: whether null is a value of it, too.
        values: members of an enum, null left out.
        items: of an array.
        fields, required: properties of an object, in the schema's order, and which of them must be there.
        closed: whether an object has no other properties.
        options: of a union.
        limits: what the schema demands of a value besides, by its words: see limits.py.
        raw: the Arrow type as JSON gives it: texts where `type` has a dictionary, a date or a timestamp.
        type: the Arrow type of the column; None, as `raw` is, where none holds every value.
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
    """The shape that a JSON Schema describes.

    Args:
        definition: the schema, or a part of it.
        root: the whole schema, which references point into.
    """
    return _Reader(root).shape(definition, frozenset())


def with_limits(shape: Shape, other: Shape) -> Shape:
    """A shape with the limits of another one as well, wherever the two are of the same kind."""
    if shape.kind != other.kind:
        return shape
    options = zip(shape.options, other.options, strict=True) if len(shape.options) == len(other.options) else ()
    return replace(
        shape,
        limits={**shape.limits, **other.limits},
        items=with_limits(shape.items, other.items) if shape.items and other.items else shape.items,
        fields={name: with_limits(part, other.fields.get(name, part)) for name, part in shape.fields.items()},
        options=tuple(with_limits(one, another) for one, another in options) or shape.options,
    )


def target(reference: Any, root: dict[str, Any]) -> Any:
    """What a `$ref` points at, None when that is nothing in this schema."""
    if not isinstance(reference, str) or not (reference == "#" or reference.startswith("#/")):
        return None
    found: Any = root
    for part in reference.split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(found, list) and name.isdecimal() and int(name) < len(found):
            found = found[int(name)]
        else:
            found = found.get(name) if isinstance(found, dict) else None
    return found


def typed(array: pa.Array, shape: Shape) -> pa.Array:
    """Values of the type `shape.raw` in `shape.type`; dictionaries are the schema's own, the same everywhere."""
    if array.type == shape.type:
        return array
    if pa.types.is_dictionary(shape.type):
        members = pa.array(shape.values, pa.string())
        return pa.DictionaryArray.from_arrays(pc.index_in(array, members), members)
    if shape.items is not None:
        items = typed(array.values, shape.items)
        return pa.ListArray.from_arrays(array.offsets, items, type=shape.type, mask=array.is_null())
    if shape.fields:
        inner = [typed(part, of) for part, of in zip(array.flatten(), shape.fields.values(), strict=True)]
        return pa.StructArray.from_arrays(inner, fields=list(shape.type), mask=array.is_null())
    return array.cast(shape.type)


class _Reader:
    def __init__(self, root: dict[str, Any]) -> None:
        self._root = root

    def shape(self, definition: Any, seen: frozenset[str]) -> Shape:
        """Args: seen: the references that lead here; one of them again is recursion, which no type holds."""
        while isinstance(definition, dict) and ("$ref" in definition or "allOf" in definition):
            parts = definition.get("allOf")
            if "$ref" in definition:
                if definition["$ref"] in seen:
                    return ANY
                seen |= {definition["$ref"]}
                inner, word = target(definition["$ref"], self._root), "$ref"
            elif isinstance(parts, list) and len(parts) == 1:
                inner, word = parts[0], "allOf"
            else:
                return ANY
            beside = {key: value for key, value in definition.items() if key != word and key not in _ABOUT}
            definition = {**inner, **beside} if isinstance(inner, dict) else None
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
        beside = {key: value for key, value in definition.items() if key != word and key not in _ABOUT}
        options = [
            self.shape({**beside, **option} if isinstance(option, dict) else option, seen)
            for option in definition[word]
        ]
        return _union(options)

    def _typed(self, definition: dict[str, Any], kind: Any, seen: frozenset[str]) -> Shape:
        if isinstance(kind, list):
            return _union([self._typed(definition, one, seen) for one in kind])
        if kind == "array":
            items = self.shape(definition.get("items"), seen)
            typed = items.raw is not None
            return Shape(
                "array",
                items=items,
                limits=limits_in(definition, kind),
                raw=pa.list_(items.raw) if typed else None,
                type=pa.list_(items.type) if typed else None,
            )
        if kind == "object":
            return self._object(definition, seen)
        if kind == "string" and definition.get("format") in _FORMATS:
            return Shape(definition["format"], raw=pa.string(), type=_FORMATS[definition["format"]])
        if isinstance(kind, str) and kind in _SCALARS:
            of_kind = _SCALARS[kind]
            limits = limits_in(definition, kind)
            return Shape(kind, nullable=kind == "null", limits=limits, raw=of_kind, type=of_kind)
        return ANY

    def _object(self, definition: dict[str, Any], seen: frozenset[str]) -> Shape:
        properties, required = definition.get("properties"), definition.get("required")
        named = properties if isinstance(properties, dict) else {}
        fields = {name: self.shape(part, seen) for name, part in named.items()}
        typed = bool(fields) and all(part.raw is not None for part in fields.values())
        return Shape(
            "object",
            fields=fields,
            closed=definition.get("additionalProperties") is False,
            required=frozenset(name for name in (required or ()) if name in fields),
            raw=pa.struct([pa.field(name, part.raw) for name, part in fields.items()]) if typed else None,
            type=pa.struct([pa.field(name, part.type) for name, part in fields.items()]) if typed else None,
        )


def _enum(members: list[Any], kind: Any) -> Shape:
    kinds = kind if isinstance(kind, list) else [kind]
    if kind is not None:
        members = [member for member in members if any(_is_a(one, member) for one in kinds)]
    values = tuple(member for member in members if member is not None)
    nullable = len(values) < len(members)
    if not values:
        return Shape("null", nullable=True, raw=pa.null(), type=pa.null())
    raw: pa.DataType | None = None
    if all(isinstance(value, str) for value in values):
        return _texts(values, nullable)
    if all(isinstance(value, bool) for value in values):
        raw = pa.bool_()
    elif all(_is_a("integer", value) and -_BIG <= value < _BIG for value in values) and "number" not in kinds:
        raw = pa.int64()
    elif all(_is_a("number", value) for value in values):
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
    """One shape for several: null beside a single other one makes that nullable, enums of texts become one."""
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


def _is_a(kind: Any, value: Any) -> bool:
    """Whether a value of an enum is of a JSON type."""
    if value is None or isinstance(value, bool):
        return bool(kind == ("null" if value is None else "boolean"))
    if isinstance(value, int | float):
        return kind == "number" or (kind == "integer" and float(value).is_integer())
    if isinstance(value, str):
        return bool(kind == "string")
    return bool(kind == ("array" if isinstance(value, list) else "object"))
