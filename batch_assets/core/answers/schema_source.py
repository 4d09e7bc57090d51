"""Where the output schema comes from: the pipeline file, a file beside it, or a pydantic model."""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from batch_assets.core.answers.output_shapes import target
from batch_assets.core.answers.schema_rules import SchemaError, join_path, problem_at

_MODEL = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")


def load_schema(
    given: str | dict[str, Any], folder: Path, project: Path
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The JSON Schema that `output_schema` stands for, and of a model also the one with its bounds, which the API
    does not take.

    Args:
        given: the schema, the name of a file in `folder`, or `module:Model`.
        folder: of the pipeline file.
        project: where modules are looked for besides the Python path.

    Errors:
        ValueError: it is not to be had; says why and what to do.
    """
    if isinstance(given, dict):
        return given, None
    return _of_model(given, project) if _MODEL.fullmatch(given) else (_of_file(given, folder), None)


def _of_file(name: str, folder: Path) -> dict[str, Any]:
    path = (folder / name).resolve()
    if not path.is_relative_to(folder):
        raise ValueError(f"{name} lies outside the pipeline's folder")
    if not path.is_file():
        found = ", ".join(sorted(p.name for p in folder.glob("*.json"))) or "none"
        raise ValueError(f"{name} is not beside the pipeline file; JSON files there: {found}")
    try:
        schema = json.loads(path.read_text("utf-8-sig"))
    except ValueError as error:
        raise ValueError(f"{name} is not valid JSON: {error}") from None
    if not isinstance(schema, dict):
        raise ValueError(f"{name} must hold a JSON object")
    return schema


def _of_model(name: str, project: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The schema in the form in which the SDK sends models, what the API does not take being in descriptions, and
    pydantic's own.
    """
    module_name, _, attribute = name.partition(":")
    try:
        with _importing_from(project):
            module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise ValueError(f"importing {module_name} failed: {error}") from None
        raise ValueError(
            f"there is no module {error.name!r}: install the project that holds it (pip install -e .), or put it "
            f"into {project}"
        ) from None
    except Exception as error:  # whatever a user's module does when it is imported
        raise ValueError(f"importing {module_name} failed: {type(error).__name__}: {error}") from None
    model = getattr(module, attribute, None)
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        models = sorted(key for key, value in vars(module).items() if _is_model(value))
        raise ValueError(
            f"{attribute!r} of {module_name} is no pydantic model; models there: {', '.join(models) or 'none'}"
        )
    import anthropic  # takes over a second: only who names a model waits for it

    try:
        schema = model.model_json_schema()
        return anthropic.transform_schema(_for_the_sdk(schema, schema, "")), schema
    except SchemaError:
        raise
    except Exception as error:  # pydantic's and the SDK's, for types that JSON does not have
        raise ValueError(f"{name} has no JSON Schema for the API: {error}") from None


def _for_the_sdk(part: Any, root: dict[str, Any], path: str) -> Any:
    """A model's schema without what the SDK drops in silence: descriptions beside references are written into what
    these point at.

    Errors:
        SchemaError: objects with any names, of which the SDK makes objects that are always empty.
    """
    if not isinstance(part, dict):
        return part
    if "$ref" in part and "description" in part and isinstance(whole := target(part["$ref"], root), dict):
        part = {**whole, **{word: value for word, value in part.items() if word != "$ref"}}
    more = part.get("additionalProperties")
    if "patternProperties" in part or isinstance(more, dict) or (more is True and "properties" not in part):
        what = "the API takes no object of any names, as a dict is: write a list of models with a name and a value"
        raise problem_at(path, what)
    made = dict(part)
    for word in ("properties", "$defs"):
        if isinstance(part.get(word), dict):
            inner = join_path(path, word)
            made[word] = {
                name: _for_the_sdk(one, root, join_path(inner, name)) for name, one in part[word].items()
            }
    for word in ("anyOf", "oneOf", "allOf"):
        if isinstance(part.get(word), list):
            made[word] = [_for_the_sdk(one, root, path) for one in part[word]]
    if "items" in part:
        made["items"] = _for_the_sdk(part["items"], root, join_path(path, "items"))
    return made


def _is_model(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, BaseModel) and value is not BaseModel


@contextmanager
def _importing_from(project: Path) -> Iterator[None]:
    """Modules in the project's folder are found, too, as they are where `dagster dev` runs."""
    path = str(project)
    if path in sys.path:
        yield
        return
    sys.path.append(path)
    try:
        yield
    finally:
        sys.path.remove(path)
