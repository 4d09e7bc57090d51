"""JSON Schema of the answers -> Arrow columns, and answers -> typed values."""

from __future__ import annotations

from typing import Any

import orjson
import pyarrow as pa

_NO_ARRAY = (pa.ArrowException, ArithmeticError, TypeError, ValueError)
_SCALARS = {
    "string": pa.string(),
    "integer": pa.int64(),
    "number": pa.float64(),
    "boolean": pa.bool_(),
    "null": pa.null(),
}


class OutputSchema:
    """One column for every top-level property of the answer, with the property's own type.

    Attributes:
        schema: the JSON Schema, as it is sent.
        names: the properties, in the schema's order.
        types: their Arrow types, by name. What has no Arrow type of its own (mixed types, recursion)
            becomes text holding JSON.

    Errors:
        ValueError: the schema does not describe an object with properties.
    """

    def __init__(self, schema: dict[str, Any]) -> None:
        self.schema = schema
        top = _resolve(schema, schema)
        properties = top.get("properties")
        if top.get("type") != "object" or not isinstance(properties, dict) or not properties:
            raise ValueError('the schema must be of "type": "object" with "properties", one a column')
        self.names = list(properties)
        fitting = {name: arrow_type(definition, schema) for name, definition in properties.items()}
        self.types: dict[str, pa.DataType] = {name: type_ or pa.string() for name, type_ in fitting.items()}
        self._as_json = [name for name, type_ in fitting.items() if type_ is None]
        self._with_numbers = [name for name, type_ in self.types.items() if _has_numbers(type_)]
        self._required = [name for name in top.get("required", []) if name in properties]
        self._struct = pa.struct([pa.field(name, type_) for name, type_ in self.types.items()])

    def columns(self, texts: list[str | None]) -> tuple[list[pa.Array], list[str | None]]:
        """Parses answers into one array a property.

        Args:
            texts: answers, None where there is none.

        Returns:
            The arrays in the order of `names`, and for each answer None or why it does not match the
            schema; a row that does not match is null in every column.
        """
        values: list[dict[str, Any] | None] = []
        problems: list[str | None] = []
        for text in texts:
            value, problem = self._parse(text) if text is not None else (None, None)
            values.append(value)
            problems.append(problem)
        try:
            array = pa.array(values, self._struct)
        except _NO_ARRAY:
            for position, value in enumerate(values):  # one answer must not take the others with it
                try:
                    pa.array([value], self._struct)
                except _NO_ARRAY as error:
                    values[position], problems[position] = None, f"the answer has no typed form: {error}"
            array = pa.array(values, self._struct)
        return array.flatten(), problems

    def _parse(self, text: str) -> tuple[dict[str, Any] | None, str | None]:
        try:
            value = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            return None, f"the answer is not valid JSON: {error}"
        if not isinstance(value, dict):
            return None, "the answer is not a JSON object"
        missing = [name for name in self._required if name not in value]
        if missing:
            return None, f"the answer lacks the property {missing[0]!r}"
        for name in self._as_json:
            if value.get(name) is not None:
                value[name] = orjson.dumps(value[name]).decode()
        for name, type_ in self.types.items():
            if not _holds(type_, value.get(name)):
                return None, f"the property {name!r} is not of the type {type_}"
        for name in self._with_numbers:
            if name in value:
                value[name] = _exact(self.types[name], value[name])
        return value, None


def _holds(type_: pa.DataType, value: Any) -> bool:
    """Whether a value fits an Arrow type without loss; pyarrow alone would cut 1.5 to 1."""
    if value is None:
        return True
    if pa.types.is_string(type_):
        return isinstance(value, str)
    if pa.types.is_boolean(type_):
        return isinstance(value, bool)
    if pa.types.is_int64(type_):
        whole = type(value) is int or (type(value) is float and value.is_integer())
        return whole and -(2**63) <= value < 2**63
    if pa.types.is_float64(type_):
        return type(value) in (int, float)
    if pa.types.is_list(type_):
        return isinstance(value, list) and all(_holds(type_.value_type, item) for item in value)
    if pa.types.is_struct(type_):
        return isinstance(value, dict) and all(_holds(field.type, value.get(field.name)) for field in type_)
    return False


def _has_numbers(type_: pa.DataType) -> bool:
    inner = [type_.field(position).type for position in range(type_.num_fields)]
    return pa.types.is_float64(type_) or pa.types.is_int64(type_) or any(map(_has_numbers, inner))


def _exact(type_: pa.DataType, value: Any) -> Any:
    """A value that fits its type, numbers in Python's matching type: pyarrow takes no 2**53 + 1 for a float."""
    if value is None:
        return None
    if pa.types.is_float64(type_):
        return float(value)
    if pa.types.is_int64(type_):
        return int(value)
    if pa.types.is_list(type_):
        return [_exact(type_.value_type, item) for item in value]
    if pa.types.is_struct(type_):
        return {field.name: _exact(field.type, value.get(field.name)) for field in type_}
    return value


def arrow_type(definition: Any, root: dict[str, Any], depth: int = 0) -> pa.DataType | None:
    """The Arrow type that holds every value of a JSON Schema, None where there is none."""
    definition = _without_null(_resolve(definition, root), root)
    kind = definition.get("type")
    if kind is None and "enum" in definition:
        kinds = {_kind_of(value) for value in definition["enum"] if value is not None}
        kind = kinds.pop() if len(kinds) == 1 else None
    if not isinstance(kind, str) or depth > 20:
        return None
    if kind == "array":
        items = arrow_type(definition.get("items"), root, depth + 1)
        return pa.list_(items) if items is not None else None
    if kind == "object":
        fields = [
            (name, arrow_type(sub, root, depth + 1)) for name, sub in definition.get("properties", {}).items()
        ]
        return pa.struct(fields) if fields and all(type_ is not None for _, type_ in fields) else None
    return _SCALARS.get(kind)


def _kind_of(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    return {str: "string", int: "integer", float: "number"}.get(type(value), "json")


def _resolve(definition: Any, root: dict[str, Any], hops: int = 0) -> dict[str, Any]:
    """Follows local references; an unusable one is an empty schema."""
    if not isinstance(definition, dict) or hops > 20:
        return {}
    reference = definition.get("$ref")
    if not isinstance(reference, str) or not reference.startswith("#/"):
        return definition
    target: Any = root
    for part in reference[2:].split("/"):
        target = target.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(target, dict) else None
    return _resolve(target, root, hops + 1)


def _without_null(definition: dict[str, Any], root: dict[str, Any]) -> dict[str, Any]:
    """The one alternative beside null of a nullable schema."""
    kind = definition.get("type")
    if isinstance(kind, list):
        kinds = [entry for entry in kind if entry != "null"]
        return {**definition, "type": kinds[0]} if len(kinds) == 1 else {}
    for word in ("anyOf", "oneOf"):
        options = definition.get(word)
        if isinstance(options, list):
            others = [o for o in (_resolve(option, root) for option in options) if o.get("type") != "null"]
            return _without_null(others[0], root) if len(others) == 1 else {}
    return definition
