"""Find the validators of a pydantic model, which its JSON Schema does not show."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, PlainValidator, WrapValidator

_ANNOTATED = (AfterValidator, BeforeValidator, PlainValidator, WrapValidator)
_KINDS = ("validators", "field_validators", "root_validators", "model_validators")


def model_validators(model: type[BaseModel]) -> list[str]:
    """Name the validators of a model and of the models in its fields, such as "Line.check_amount"."""
    names: dict[str, None] = {}
    for part in _models(model, set()):
        decorators = part.__pydantic_decorators__
        for kind in _KINDS:
            names.update(dict.fromkeys(f"{part.__name__}.{name}" for name in getattr(decorators, kind)))
        for name, field in part.model_fields.items():
            annotations = [*field.metadata, *_metadata(field.annotation)]
            if any(isinstance(annotation, _ANNOTATED) for annotation in annotations):
                names[f"{part.__name__}.{name}"] = None
    return list(names)


def _models(type_: Any, visited: set[Any]) -> Iterator[type[BaseModel]]:
    """Yield the models within a type, each once."""
    if isinstance(type_, type) and issubclass(type_, BaseModel):
        if type_ in visited:
            return
        visited.add(type_)
        yield type_
        for field in type_.model_fields.values():
            yield from _models(field.annotation, visited)
    for argument in get_args(type_):
        yield from _models(argument, visited)


def _metadata(type_: Any) -> Iterator[Any]:
    """Yield what `Annotated` adds to the types within a type."""
    yield from getattr(type_, "__metadata__", ())
    for argument in get_args(type_):
        yield from _metadata(argument)
