"""Load a pipeline, and find every mistake that can be found without reading the dataset."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel, ValidationError

from batch_assets.core.answers.forced_tool import has_schema, strict_schemas, tool_schemas
from batch_assets.core.answers.schema_rules import SchemaError, check_draft, check_schema
from batch_assets.core.config_block import kinds_of, shown
from batch_assets.core.errors import ConfigError
from batch_assets.core.pipeline.bounded_cost import no_bound
from batch_assets.core.pipeline.config import SHORT_FORMS, PipelineConfig
from batch_assets.core.pipeline.partitions import Partitions
from batch_assets.core.pipeline.pipeline import NO_HOOKS, Hooks, Pipeline
from batch_assets.core.pipeline.rules import (
    gathering_problem,
    partitions_problem,
    rescue_problem,
    rescue_warning,
    watch_problem,
)
from batch_assets.core.pipeline.tool_rules import tools_problem
from batch_assets.core.template.batch_rules import refused, refused_value, sampling
from batch_assets.core.template.cache_control import useless_cache_control
from batch_assets.core.template.params_check import check_params
from batch_assets.core.text import nearest

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_log = logging.getLogger("batch_assets")
_NUMBERS = {"int_type", "int_parsing", "int_from_float", "float_type", "float_parsing"}
# How pydantic names the types of a field that takes several, as the last but one or last part of a location.
_KINDS = {
    "str": "a text",
    "int": "a whole number",
    "list[str]": "a list",
    "dict[str,str]": "a map",
    "dict[str,any]": "a map",
}
_OF_NO_KIND = "batch_assets_of_no_kind"
_BOUNDS = {
    "greater_than": "more than",
    "greater_than_equal": "at least",
    "less_than": "less than",
    "less_than_equal": "at most",
}


def load_pipeline(
    attributes: Mapping[str, Any],
    *,
    folder: Path,
    project: Path | None = None,
    source: str | None = None,
    partitions: Partitions | None = None,
    hooks: Hooks = NO_HOOKS,
) -> Pipeline:
    """Validate a pipeline, compile its templates and read its schema.

    Args:
        attributes: The fields of `PipelineConfig`, as read from YAML.
        folder: The folder of included files and of the schema file.
        project: The folder that a relative dataset path starts from; `folder` by default.
        source: The name of the pipeline file in errors; the folder's defs.yaml by default.
        partitions: Replaces the field `partitions`.
        hooks: The pipeline's own functions.

    Raises:
        ConfigError: When there is a mistake that can be found without reading the dataset. Names the file and the
            field.
    """
    source = source or str(folder / "defs.yaml")
    try:
        config = PipelineConfig.model_validate(dict(attributes))
    except ValidationError as error:
        raise invalid(source, error.errors()) from None
    pipeline = Pipeline(config, folder.resolve(), (project or folder).resolve(), source, partitions, hooks)
    _check_hooks(pipeline)
    _check_params(pipeline)
    _check_names(pipeline)
    _ = pipeline.betas
    _ = pipeline.priority
    if config.dataset.sql is not None:
        _ = pipeline.query
    if problem := partitions_problem(pipeline):
        raise pipeline.error(*problem)
    if reason := gathering_problem(pipeline):
        raise pipeline.error("batching.across_partitions", reason)
    if config.retry.invalid and pipeline.output is None:
        raise pipeline.error(
            "retry.invalid", "any text is a valid answer here: add output_schema, or leave it out"
        )
    if problem := tools_problem(pipeline) or rescue_problem(pipeline):
        raise pipeline.error(*problem)
    if reason := watch_problem(pipeline):
        raise pipeline.error("watch", reason)
    outline, version = pipeline.template.outline(), pipeline.config.anthropic_version
    betas, also, allow_unknown = bool(config.betas), sampling(version), config.allow_unknown_params
    problem = check_params(outline, betas=betas, also=also, allow_unknown=allow_unknown)
    if problem := problem or refused_value(outline, version) or no_bound(pipeline, outline):
        field, text = problem
        raise pipeline.error(pipeline.template.field_with_file(field), text)
    for warning in _warnings(pipeline, outline):
        _log_once(f"{source}: {warning}")
    return pipeline


def _check_hooks(pipeline: Pipeline) -> None:
    """Refuse a hook that is not a function. Otherwise it would reject all rows, and the run would succeed."""
    hooks = pipeline.hooks
    for field, hook in (("render_request", hooks.render_request), ("parse_message", hooks.parse_message)):
        if hook is not None and not callable(hook):
            raise pipeline.error(field, f"give a function, not {hook!r}")


def _warnings(pipeline: Pipeline, outline: dict[str, Any]) -> Iterator[str]:
    """Yield what a user should know about a pipeline that is valid, each with its field."""
    if problem := useless_cache_control(outline):
        field, text = problem
        yield f"{pipeline.template.field_with_file(field)}: {text}"
    if warning := rescue_warning(pipeline):
        yield f"rescue: {warning}"
    for field, text in pipeline.unchecked:
        yield f"{field}: answers are not checked against {text}"


@cache
def _log_once(text: str) -> None:
    """Log a warning. A process loads a pipeline many times."""
    _log.warning(text)


def invalid(source: str, errors: Sequence[ErrorDetails]) -> ConfigError:
    """Return the errors that pydantic found in a pipeline's fields as one readable error.

    It is the first one, with the others in `also`. A misspelled field comes first: it explains why the field that
    was meant is missing.

    Args:
        source: The pipeline file.
        errors: The errors that pydantic found.
    """
    errors = _without_kinds(errors)
    misspelled = [error for error in errors if _meant(error) is not None]
    meant = {(*error["loc"][:-1], _meant(error)) for error in misspelled}
    others = [
        error
        for error in errors
        if error not in misspelled and not (error["type"] == "missing" and error["loc"] in meant)
    ]
    first, *also = (
        ConfigError(source, ".".join(str(part) for part in error["loc"]), _as_text(error))
        for error in (*misspelled, *others)
    )
    return ConfigError(source, first.field, first.problem, also)


def _without_kinds(errors: Sequence[ErrorDetails]) -> list[ErrorDetails]:
    """Return one error for a field that takes several types: pydantic gives one for each type that it tried."""
    groups: dict[tuple[int | str, ...], list[ErrorDetails]] = {}
    for error in errors:
        location = error["loc"]
        position = next((at for at in range(1, len(location)) if _is_kind(location, at)), len(location))
        groups.setdefault(location[:position], []).append(error)
    merged: list[ErrorDetails] = []
    for field, group in groups.items():
        if len(group[0]["loc"]) == len(field):
            merged += group
            continue
        inner = [error for error in group if len(error["loc"]) > len(field) + 1]
        if inner:  # of the type that was meant
            merged += [{**error, "loc": (*field, *error["loc"][len(field) + 1 :])} for error in inner]
            continue
        kinds = " or ".join(_KINDS[str(error["loc"][-1])] for error in group)
        merged.append({**group[0], "loc": field, "type": _OF_NO_KIND, "ctx": {"kinds": kinds}})
    return merged


def _is_kind(location: tuple[int | str, ...], position: int) -> bool:
    """Return whether a part of a location is a type of the field before it."""
    if location[position] not in _KINDS:
        return False
    field = _model_of(location[:position]).model_fields.get(str(location[position - 1]))
    annotation: Any = field.annotation if field is not None else None
    return len(kinds_of(annotation) - {NoneType}) > 1


def _meant(error: ErrorDetails) -> str | None:
    """Return the field whose name is like that of an unknown one; `None` if there is none, or it is known."""
    if error["type"] != "extra_forbidden":
        return None
    return nearest(str(error["loc"][-1]), _known_fields(error["loc"]))


def _as_text(error: ErrorDetails) -> str:
    kind, location, value = error["type"], error["loc"], error["input"]
    if kind == "extra_forbidden":
        meant = _meant(error)
        hint = f": did you mean `{meant}`?" if meant is not None else f"; fields here: {_listed(location)}"
        if meant is None and len(location) > 1 and location[-1] in PipelineConfig.model_fields:
            hint = f" here: it is a field of the pipeline, so indent it like `{location[0]}`"
        return f"there is no such field{hint}"
    if kind == "missing":
        return "this field is required"
    if kind == "model_type":
        short = SHORT_FORMS.get(str(location[0])) if len(location) == 1 else None
        form = f"{short} or a map of its fields" if short is not None else "a map of its fields"
        return f"give {form}, not {shown(value)}; fields here: {_listed((*location, ''))}"
    if kind == "dict_type":
        return f"give a map, not {shown(value)}"
    if kind == "list_type":
        return f"give a list, as in [one, two], not {shown(value)}"
    if kind == "string_type":
        quotes = "" if isinstance(value, Mapping | list) or value is None else "; put it in quotes if it is one"
        return f"give a text, not {shown(value)}{quotes}"
    if kind in _NUMBERS:
        whole = "a whole number" if kind.startswith("int") else "a number"
        return f"give {whole}, not {shown(value)}"
    if kind in _BOUNDS:
        (bound,) = error["ctx"].values()
        bound = int(bound) if float(bound).is_integer() else bound
        return f"give {_BOUNDS[kind]} {bound}, not {shown(value)}"
    if kind == _OF_NO_KIND:
        kinds = error["ctx"]["kinds"]
        quotes = "; put a text in quotes" if _KINDS["str"] in kinds and isinstance(value, int | float) else ""
        return f"give {kinds}, not {shown(value)}{quotes}"
    if kind in ("bool_type", "bool_parsing"):
        return f"give true or false, not {shown(value)}"
    if kind == "literal_error":
        quoted = " in quotes; without quotes, it gives no value" if value == "null" else ""
        return f"give one of {error['ctx']['expected']}, not {shown(value)}{quoted}"
    return error["msg"].removeprefix("Value error, ")


def _listed(location: tuple[int | str, ...]) -> str:
    return ", ".join(_known_fields(location))


def _known_fields(location: tuple[int | str, ...]) -> list[str]:
    return list(_model_of(location).model_fields)


def _model_of(location: tuple[int | str, ...]) -> type[BaseModel]:
    """Return the block that has the field of a location, or the innermost block around it."""
    model: type[BaseModel] = PipelineConfig
    for part in location[:-1]:
        if isinstance(part, int):  # an entry of a list
            continue
        field = model.model_fields.get(str(part))
        annotation = field.annotation if field else None
        kinds = [kind for kind in get_args(annotation) or (annotation,) if isinstance(kind, type)]
        inner = next((kind for kind in kinds if issubclass(kind, BaseModel)), None)
        if inner is None:
            break
        model = inner
    return model


def _check_params(pipeline: Pipeline) -> None:
    params, version = pipeline.config.params, pipeline.config.anthropic_version
    if problem := refused(params, version):
        raise pipeline.error(*problem)
    for field, schema in strict_schemas(params):
        try:
            check_schema(schema)
        except SchemaError as error:
            raise pipeline.error(field, str(error)) from None
    for field, schema in tool_schemas(params):
        try:
            check_draft(schema)
        except SchemaError as error:
            raise pipeline.error(field, str(error)) from None
    output_config = params.get("output_config") or {}
    parses = pipeline.hooks.parse_message is not None
    if pipeline.config.output_schema is None and not parses and has_schema(output_config):
        remedy = "write it under `output_schema`, beside `params`: there it is checked and gives typed columns"
        raise pipeline.error("params.output_config.format", f"the schema does not go here: {remedy}")
    if parses and pipeline.output is None:
        remedy = "declare them by output_schema, which is then not sent, or by output_columns, a pyarrow schema"
        raise pipeline.error("parse_message", f"its columns are not declared: {remedy}")
    if pipeline.sent_schema is None or pipeline.tool is not None:
        return
    if not isinstance(output_config, Mapping):
        raise pipeline.error("params.output_config", "write its fields out: output_schema adds `format` to them")
    if output_config.get("format"):
        raise pipeline.error("params.output_config.format", "remove it: output_schema sets it")
    choice = params.get("tool_choice")
    if isinstance(choice, Mapping) and choice.get("type") in ("any", "tool"):
        remedy = "leave out output_schema (a tool that `tool_choice` names gives the columns) or tool_choice"
        raise pipeline.error("params.tool_choice", f"every answer is then a tool call without text: {remedy}")


def _check_names(pipeline: Pipeline) -> None:
    """Check column names as far as possible without the dataset. The rest is checked before anything is sent."""
    columns = pipeline.config.dataset.columns or {}
    carried = columns if isinstance(columns, dict) else {name: name for name in columns}
    pipeline.check_columns(carried)
    for warning in pipeline.column_warnings(carried):
        _log_once(warning)
