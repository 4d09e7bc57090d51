"""Check answers against a whole JSON Schema with jsonschema-rs, where shapes do not check all of it."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import jsonschema_rs
from jsonschema_rs import ValidationErrorKind

from batch_assets.core.answers.answer_parser import shortened, shown
from batch_assets.core.answers.json_schema import build, is_too_slow
from batch_assets.core.answers.patterns import translated
from batch_assets.core.answers.schema_parts import has_one_root, schemas_in

_MOST_FAULTS = 100
_UNKNOWN_NAMES = ("additionalProperties", "unevaluatedProperties")


@dataclass(frozen=True)
class Fault:
    """A part of a schema that cannot be checked.

    Attributes:
        path: The path of the part in the schema, such as "properties.a.maximum".
        reason: What is wrong with it, as text.
        is_refused: Whether the API refuses it as well, unlike a pattern that only the validator cannot read.
    """

    path: str
    reason: str
    is_refused: bool


class SchemaValidator:
    """Checks values against one schema.

    Args:
        schema: The schema.

    Attributes:
        faults: The parts of the schema that are not checked.
    """

    def __init__(self, schema: dict[str, Any]) -> None:
        self._schema = schema
        self.faults: list[Fault] = []
        self._validator = _build(_prepared(schema), self.faults)

    def problem(self, value: Any) -> str | None:
        """Say why a value does not match the schema; `None` if it does.

        Args:
            value: A parsed answer.
        """
        if self._validator is None or self._validator.is_valid(value):
            return None
        error = next(iter(self._validator.iter_errors(value)))
        return self._as_text(error, _located(error.instance_path, value))

    def _as_text(self, error: jsonschema_rs.ValidationError, location: list[str | int]) -> str:
        path, kind = _joined(location), error.kind
        if kind.name == "required":
            return f"the answer lacks the property {_joined([*location, kind.as_dict()['property']])!r}"
        if kind.name in _UNKNOWN_NAMES:
            (name, *_) = kind.as_dict()["unexpected"]
            return f"the schema has no property {_joined([*location, name])!r}"
        subject = f"the property {path!r} is {shown(error.instance)}, which" if path else "the answer"
        if is_too_slow(error):
            return f"{subject} takes too long to compare with its pattern"
        if kind.name == "falseSchema":
            return f"{subject} is not allowed"
        word = error.schema_path[-1]
        return f"{subject} breaks {word}{self._limit(error.schema_path)}"

    def _limit(self, path: list[str | int]) -> str:
        """The value of a keyword as errors show it, or "" if it is not a text or a number."""
        # Where a part has its own `$id`, the path may start there.
        part: Any = self._schema if has_one_root(self._schema) else {}
        for step in path:
            try:
                part = part[step]
            except (KeyError, IndexError, TypeError):
                return ""
        return f" {shown(part)}" if isinstance(part, str | int | float) and not isinstance(part, bool) else ""


def schema_faults(schema: dict[str, Any]) -> list[Fault]:
    """Find the parts of a schema that are not JSON Schema, draft 2020-12, or refer to nothing."""
    return SchemaValidator(schema).faults


def _prepared(schema: dict[str, Any]) -> dict[str, Any]:
    """Copy a schema, with its patterns translated and without its own choice of a draft."""
    prepared = copy.deepcopy(schema)
    for part in schemas_in(prepared):
        part.pop("$schema", None)
        if isinstance(part.get("pattern"), str):
            part["pattern"] = translated(part["pattern"])
        if isinstance(part.get("patternProperties"), dict):
            part["patternProperties"] = {
                translated(str(name)): inner for name, inner in part["patternProperties"].items()
            }
    return prepared


def _build(schema: dict[str, Any], faults: list[Fault]) -> jsonschema_rs.Draft202012Validator | None:
    """Build the validator without the parts of a schema that it cannot read; `None` if nothing is left.

    Args:
        schema: The schema. Changed in place.
        faults: Where the parts that were left out are added.
    """
    while len(faults) < _MOST_FAULTS:
        try:
            return build(schema)
        except jsonschema_rs.ValidationError as error:
            if isinstance(error.kind, ValidationErrorKind.Referencing):
                reason = error.message.partition(" and retrieving")[0]
                faults.append(Fault("", f"{reason}; other documents are not read", is_refused=True))
                return None
            path = _keyword(schema, error.instance_path)
            faults.append(_fault(_joined(path), error))
            if not path:
                return None
            part = schema
            for step in path[:-1]:
                part = part[step]
            del part[path[-1]]
    return None


def _fault(path: str, error: jsonschema_rs.ValidationError) -> Fault:
    if error.kind.name == "format":
        return Fault(path, f"the pattern cannot be read: {shown(error.instance)}", is_refused=False)
    reason = f"this is not JSON Schema, draft 2020-12: {shortened(error.message)}"
    return Fault(path, reason, is_refused=True)


def _keyword(schema: Any, path: list[str | int]) -> list[Any]:
    """The path of the innermost object's member that an error's path leads through."""
    keyword: list[Any] = []
    steps: list[Any] = []
    for step in path:
        if isinstance(schema, dict):
            if step not in schema:
                break
            keyword = [*steps, step]
        steps.append(step)
        schema = schema[step]
    return keyword


def _located(path: list[str | int], value: Any) -> list[str | int]:
    """A path in a value with its names as texts. The library returns names of digits as numbers."""
    location: list[str | int] = []
    for step in path:
        location.append(step if isinstance(value, list) else str(step))
        value = value[location[-1]]
    return location


def _joined(path: list[Any]) -> str:
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else str(step)
    return text
