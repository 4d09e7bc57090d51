"""The base class of all blocks of a pipeline file."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from textwrap import shorten
from types import UnionType
from typing import Annotated, Any, ClassVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator


class ConfigBlock(BaseModel):
    """A block of a pipeline file. Unknown fields are errors, and its values cannot be changed.

    Attributes:
        may_be_empty: Fields whose empty text is not refused here.
    """

    may_be_empty: ClassVar[frozenset[str]] = frozenset()
    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _is_no_slip(cls, value: Any, info: ValidationInfo) -> Any:
        is_empty = isinstance(value, str) and not value
        if info.field_name is None or not (is_empty or isinstance(value, bool)):
            return value
        field = cls.model_fields[info.field_name]
        annotation: Any = field.annotation
        check_number(value, annotation)
        if is_empty and info.field_name not in cls.may_be_empty and str in kinds_of(annotation):
            remedy = "give one" if field.is_required() else "give one, or leave the field out"
            raise ValueError(f"the text is empty: {remedy}")
        return value


def check_number(value: Any, annotation: Any) -> None:
    """Refuse a boolean where a number is meant. Pydantic takes it for 0 or 1.

    Args:
        value: The value of a field.
        annotation: The type of the field.

    Raises:
        ValueError: When the value is one.
    """
    if isinstance(value, bool) and kinds_of(annotation) & {int, float} and bool not in kinds_of(annotation):
        raise ValueError(f"give a number, not {shown(value)}")


@cache
def kinds_of(annotation: Any) -> frozenset[Any]:
    """Return the types of a field: those of a union, or the one."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return kinds_of(inner[0])
    return frozenset().union(*map(kinds_of, inner)) if origin in (Union, UnionType) else frozenset([annotation])


def shown(value: object) -> str:
    """Return a value of a pipeline file as YAML reads it, for errors."""
    if value is None:
        return "nothing"
    if value == "":
        return "an empty text"
    if isinstance(value, bool):
        return "true (yes and on mean true too)" if value else "false (no and off mean false too)"
    if isinstance(value, Mapping):
        return "a map"
    return "a list" if isinstance(value, list | tuple) else shorten(str(value), 60)
