"""Check what a schema demands beyond shapes, and name what is not checked at all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batch_assets.core.answers.answer_parser import load
from batch_assets.core.answers.output_shapes import Shape, shape_of
from batch_assets.core.answers.schema_keywords import FORMATS
from batch_assets.core.answers.schema_parts import schemas_in
from batch_assets.core.answers.shape_coverage import same_parts, shapes_check

if TYPE_CHECKING:
    from batch_assets.core.answers.schema_validator import SchemaValidator


class SchemaChecks:
    """The checks of answers that a shape does not make. There are none for most schemas.

    Args:
        shape: The shape of the schema, with the limits of the second schema.
        schema: The schema.
        bounded: The same schema with limits that the API does not accept; `None` if there are none.

    Attributes:
        unchecked: What is not checked, as texts.
    """

    def __init__(self, shape: Shape, schema: dict[str, Any], bounded: dict[str, Any] | None) -> None:
        self._shape = shape
        covered = {
            "sent": shapes_check(schema),
            "bounded": bounded is None
            or (shapes_check(bounded) and same_parts(shape, shape_of(bounded, bounded))),
        }
        schemas = {"sent": schema, "bounded": bounded}
        self._validators = [_validator(schemas[name]) for name, is_covered in covered.items() if not is_covered]
        faults = {fault.path: fault.reason for validator in self._validators for fault in validator.faults}
        self.unchecked = [f"{path or 'the schema'}: {reason}" for path, reason in faults.items()]
        if formats := _unknown_formats(schema, bounded):
            self.unchecked.append(f"the format{'s' * (len(formats) > 1)} {', '.join(formats)}")

    def __bool__(self) -> bool:
        return bool(self._validators)

    def problem(self, text: str) -> str | None:
        """Say why an answer that matches the shape does not match the schema; `None` if it does.

        Args:
            text: The answer.
        """
        value = load(text)
        problem = self._problem(value)
        # A null for an optional property means the same as leaving it out.
        return self._problem(_without_optional_nulls(value, self._shape)) if problem is not None else None

    def _problem(self, value: Any) -> str | None:
        problems = (validator.problem(value) for validator in self._validators)
        return next((problem for problem in problems if problem is not None), None)


def _validator(schema: Any) -> SchemaValidator:
    # The library takes 0.1 s to import, so it is imported only for schemas that need it.
    from batch_assets.core.answers.schema_validator import SchemaValidator

    return SchemaValidator(schema)


def _unknown_formats(*schemas: dict[str, Any] | None) -> list[str]:
    formats = {str(part["format"]) for schema in schemas for part in schemas_in(schema) if "format" in part}
    return sorted(formats.difference(FORMATS))


def _without_optional_nulls(value: Any, shape: Shape) -> Any:
    if isinstance(value, list) and shape.items is not None:
        return [_without_optional_nulls(item, shape.items) for item in value]
    if isinstance(value, dict):
        for option in shape.options:
            value = _without_optional_nulls(value, option)
        return {
            name: _without_optional_nulls(inner, shape.fields[name]) if name in shape.fields else inner
            for name, inner in value.items()
            if inner is not None or name not in shape.fields or name in shape.required
        }
    return value
