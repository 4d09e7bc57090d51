"""Load the output schema from the pipeline file, from a file beside it, or from a pydantic model."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from batch_assets.core.answers.model_validators import model_validators
from batch_assets.core.answers.schema_parts import target
from batch_assets.core.answers.schema_rules import SchemaError, join_path, problem_at
from batch_assets.core.repeated_keys import RepeatedKeyError, load_json

_MODEL = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")


@dataclass(frozen=True)
class LoadedSchema:
    """An output schema.

    Attributes:
        schema: The JSON Schema to send.
        bounded: For a model its full schema, with the limits that the API does not accept; otherwise `None`.
        validators: The model's own validators, which no schema shows.
    """

    schema: dict[str, Any]
    bounded: dict[str, Any] | None = None
    validators: Sequence[str] = ()


def load_schema(source: str | dict[str, Any], folder: Path, project: Path) -> LoadedSchema:
    """Load the schema that the field `output_schema` names.

    Args:
        source: The schema itself, the name of a file in `folder`, or `module:Model`.
        folder: The folder of the pipeline file.
        project: The folder in which modules are looked for, in addition to the Python path.

    Raises:
        ValueError: When the schema cannot be loaded. Says why and what to do.
    """
    if isinstance(source, dict):
        return LoadedSchema(source)
    return _from_model(source, project) if _MODEL.fullmatch(source) else LoadedSchema(_from_file(source, folder))


def _from_file(name: str, folder: Path) -> dict[str, Any]:
    path = (folder / name).resolve()
    if not path.is_relative_to(folder):
        raise ValueError(f"{name} is outside the pipeline's folder")
    if not path.is_file():
        names = ", ".join(sorted(p.name for p in folder.glob("*.json"))) or "none"
        raise ValueError(f"{name} is not beside the pipeline file; JSON files there: {names}")
    try:
        schema = load_json(path.read_text("utf-8-sig"))
    except RepeatedKeyError as error:
        raise ValueError(f"{name}: {error}") from None
    except ValueError as error:
        raise ValueError(f"{name} is not valid JSON: {error}") from None
    if not isinstance(schema, dict):
        raise ValueError(f"{name} must hold a JSON object")
    return schema


def _from_model(name: str, project: Path) -> LoadedSchema:
    """Return a model's schema as the SDK sends it, pydantic's own schema and the names of its validators.

    The SDK's form has what the API does not accept in descriptions.
    """
    module_name, _, attribute = name.partition(":")
    try:
        with _importing_from(project):
            module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise ValueError(f"importing {module_name} failed: {error}") from None
        raise ValueError(
            f"there is no module {error.name!r}: install the project that contains it (pip install -e .), or put "
            f"it into {project}"
        ) from None
    except Exception as error:  # importing a user's module may raise anything
        raise ValueError(f"importing {module_name} failed: {type(error).__name__}: {error}") from None
    model = getattr(module, attribute, None)
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        models = sorted(key for key, value in vars(module).items() if _is_model(value))
        raise ValueError(
            f"{attribute!r} of {module_name} is not a pydantic model; models there: {', '.join(models) or 'none'}"
        )
    import anthropic  # takes over a second, so it is imported only for models

    try:
        schema = model.model_json_schema()
        sent = anthropic.transform_schema(_for_the_sdk(schema, schema, ""))
        return LoadedSchema(sent, schema, model_validators(model))
    except SchemaError:
        raise
    except Exception as error:  # errors of pydantic and the SDK, for types that JSON does not have
        raise ValueError(f"{name} cannot be converted to a JSON Schema for the API: {error}") from None


def _for_the_sdk(part: Any, root: dict[str, Any], path: str) -> Any:
    """Rewrite a model's schema so that the SDK loses nothing.

    The SDK silently drops a description beside a reference. Such references are replaced by what they point at.

    Raises:
        SchemaError: When an object may have properties of any name. The SDK would turn it into an object that is
            always empty.
    """
    if not isinstance(part, dict):
        return part
    if "$ref" in part and "description" in part and isinstance(referenced := target(part["$ref"], root), dict):
        part = {**referenced, **{word: value for word, value in part.items() if word != "$ref"}}
    extra = part.get("additionalProperties")
    if "patternProperties" in part or isinstance(extra, dict) or (extra is True and "properties" not in part):
        raise problem_at(
            path,
            "the API does not accept an object with arbitrary names, such as a dict: write a list of models with "
            "a name and a value",
        )
    rewritten = dict(part)
    for word in ("properties", "$defs"):
        if isinstance(part.get(word), dict):
            inner = join_path(path, word)
            rewritten[word] = {
                name: _for_the_sdk(member, root, join_path(inner, name)) for name, member in part[word].items()
            }
    for word in ("anyOf", "oneOf", "allOf"):
        if isinstance(part.get(word), list):
            rewritten[word] = [_for_the_sdk(option, root, path) for option in part[word]]
    if "items" in part:
        rewritten["items"] = _for_the_sdk(part["items"], root, join_path(path, "items"))
    return rewritten


def _is_model(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, BaseModel) and value is not BaseModel


@contextmanager
def _importing_from(project: Path) -> Iterator[None]:
    """Also find modules in the project's folder, as `dagster dev` does."""
    path = str(project)
    if path in sys.path:
        yield
        return
    sys.path.append(path)
    try:
        yield
    finally:
        sys.path.remove(path)
