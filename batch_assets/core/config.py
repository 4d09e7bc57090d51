"""What a pipeline is: the validated form of one YAML file or one Python call."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from batch_assets.core.columns import name_clash
from batch_assets.core.errors import ConfigError
from batch_assets.core.output_schema import OutputSchema
from batch_assets.core.template import Template

# Limits of the API: 100,000 requests or 256 MB a batch, whichever is reached first.
# https://platform.claude.com/docs/en/build-with-claude/batch-processing
MAX_REQUESTS = 100_000
MAX_MB = 256.0

# Message params that a batch refuses, one line each time. Same source, and the migration guide for the
# sampling params, which API version 2026-10-21 (the SDK's default) refuses.
_REFUSED = {
    "stream": "batches answer as a whole, not as a stream",
    "speed": "fast mode is not available in batches",
    "fallbacks": "server-side fallbacks are not available in batches",
    "store": "threads are not available in batches",
    "previous_thread_event_id": "threads are not available in batches",
    "betas": "put it beside `params`, it is sent as a header",
    "extra_headers": "not part of the API's body",
    "extra_query": "not part of the API's body",
    "extra_body": "not part of the API's body",
    "timeout": "not part of the API's body",
}
_SAMPLING = ("temperature", "top_p", "top_k")
_OLD_VERSION = "2023-06-01"


class _Block(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DatasetConfig(_Block):
    """The input table."""

    path: str = Field(description="CSV, TSV, JSON Lines or Parquet: a file, folder, glob or fsspec URL.")
    key: str | None = Field(
        default=None, description="Column that names a row, unique. Default: row_number, from 0."
    )
    columns: list[str] | dict[str, str] | None = Field(
        default=None, description="Columns carried into results, or a map {column: new name}. Default: all."
    )
    types: dict[str, str] = Field(default={}, description="Arrow types by column, for example {zip: string}.")


class BatchingConfig(_Block):
    """How requests are cut into batches."""

    max_requests: int = Field(default=MAX_REQUESTS, ge=1, le=MAX_REQUESTS, description="Requests in one batch.")
    max_mb: float = Field(default=250.0, gt=0, le=MAX_MB, description="Megabytes (10^6 bytes) in one batch.")


class RetryConfig(_Block):
    """How often a request that failed for a passing reason is asked."""

    max_attempts: int = Field(default=3, ge=1, le=100, description="Attempts a request, the first one included.")


class RetentionConfig(_Block):
    """How long copies of requests and responses are kept where they are not needed; by default for ever."""

    batches_days: float | None = Field(
        default=None, ge=0, description="Delete a batch at the API so many days after it was collected."
    )
    request_files_days: float | None = Field(
        default=None, ge=0, description="Remove the request files of submissions that are so many days old."
    )


KEEP_EVERYTHING = RetentionConfig()


class PipelineConfig(_Block):
    """The attributes of a pipeline file, field by field."""

    name: str = Field(description="Asset keys are name/requests, name/batches, name/results.")
    dataset: DatasetConfig = Field(description="The input table.")
    params: dict[str, Any] = Field(
        description="The Messages API body; every string is a Jinja template over the row."
    )
    output_schema: str | dict[str, Any] | None = Field(
        default=None, description="JSON Schema, a file beside the pipeline or inline: typed columns."
    )
    batching: BatchingConfig = Field(default=BatchingConfig(), description="How requests are cut into batches.")
    retry: RetryConfig = Field(default=RetryConfig(), description="How often a failed request is asked.")
    retention: RetentionConfig = Field(
        default=KEEP_EVERYTHING, description="How long batches and request files are kept: for ever."
    )
    max_failed: float = Field(default=0.01, ge=0, le=1, description="Share of rows that may fail.")
    betas: list[str] = Field(default=[], description="Beta features, sent as the anthropic-beta header.")
    anthropic_version: str | None = Field(default=None, description="Pins the anthropic-version header.")

    @field_validator("name")
    @classmethod
    def _name_is_an_asset_key(cls, name: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9_]{1,100}", name):
            raise ValueError("use letters, digits and underscores only, at most 100")
        return name


@dataclass(frozen=True)
class Pipeline:
    """One pipeline, ready to run.

    Attributes:
        config: the validated fields.
        folder: where templates, prompts and schema files are looked up: the pipeline file's folder.
        project: what a relative dataset path is relative to.
        source: the pipeline file as the user would open it, for errors.
    """

    config: PipelineConfig
    folder: Path
    project: Path
    source: str

    @property
    def name(self) -> str:
        return self.config.name

    @cached_property
    def output(self) -> OutputSchema | None:
        """The output schema, None for plain text."""
        schema = self.config.output_schema
        if schema is None:
            return None
        if isinstance(schema, str):
            schema = _read_schema(self, schema)
        try:
            return OutputSchema(schema)
        except ValueError as error:
            raise self.error("output_schema", str(error)) from None

    @cached_property
    def template(self) -> Template:
        """The compiled params, with the output schema as the API's structured output."""
        params = dict(self.config.params)
        if self.output is not None:
            output_config = dict(params.get("output_config") or {})
            # A fragment, because the schema's strings are data: nothing in it is a template.
            fragment = orjson.Fragment(orjson.dumps(self.output.schema))
            output_config["format"] = {"type": "json_schema", "schema": fragment}
            params["output_config"] = output_config
        return Template(params, self.folder, self.source)

    @property
    def headers(self) -> dict[str, str]:
        """Request headers that change what a request means, and so are part of its identity."""
        headers = {}
        if self.config.betas:
            headers["anthropic-beta"] = ",".join(self.config.betas)
        if self.config.anthropic_version:
            headers["anthropic-version"] = self.config.anthropic_version
        return headers

    def check_columns(self, key: str, carried: dict[str, str]) -> None:
        """Raises a ConfigError when two columns of results would have one name."""
        clash = name_clash(key, carried, self.output.names if self.output else [])
        if clash is not None:
            raise self.error(*clash)

    def error(self, field: str, problem: str) -> ConfigError:
        return ConfigError(self.source, field, problem)


def load_pipeline(
    attributes: Mapping[str, Any], *, folder: Path, project: Path | None = None, source: str | None = None
) -> Pipeline:
    """Validates a pipeline, compiles its template and reads its schema.

    Args:
        attributes: the fields of `PipelineConfig`, as YAML gives them.
        folder: where included files and the schema file lie.
        project: what a relative dataset path is relative to; default `folder`.
        source: how errors name the pipeline file; default the folder's defs.yaml.

    Errors:
        ConfigError: any mistake that shows without reading the dataset, naming file and field.
    """
    source = source or str(folder / "defs.yaml")
    try:
        config = PipelineConfig.model_validate(dict(attributes))
    except ValidationError as error:
        raise invalid(source, error) from None
    pipeline = Pipeline(config, folder.resolve(), (project or folder).resolve(), source)
    _check_params(pipeline)
    _check_names(pipeline)
    _ = pipeline.template
    return pipeline


def invalid(source: str, error: ValidationError) -> ConfigError:
    """The first thing that pydantic found wrong with a pipeline's fields, as an error for people."""
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"])
    problem = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        problem = f"there is no such field; fields here: {_known_fields(first['loc'])}"
    elif first["type"] == "missing":
        problem = "this field is required"
    return ConfigError(source, field, problem)


def _known_fields(location: tuple[int | str, ...]) -> str:
    model: type[BaseModel] = PipelineConfig
    for part in location[:-1]:
        field = model.model_fields.get(str(part))
        annotation = field.annotation if field else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            break
        model = annotation
    return ", ".join(model.model_fields)


def _check_params(pipeline: Pipeline) -> None:
    params = pipeline.config.params
    for name in ("model", "max_tokens", "messages"):
        if name not in params:
            raise pipeline.error(f"params.{name}", "this field is required by the Messages API")
    for name, why in _REFUSED.items():
        if name in params:
            raise pipeline.error(f"params.{name}", f"a batch refuses it: {why}")
    if params["max_tokens"] == 0:
        raise pipeline.error("params.max_tokens", "a batch refuses 0: give at least 1")
    if pipeline.config.anthropic_version != _OLD_VERSION:
        for name in _SAMPLING:
            if name in params:
                remedy = f"remove it, or add anthropic_version: {_OLD_VERSION}"
                raise pipeline.error(f"params.{name}", f"the API's default version refuses it: {remedy}")
    if pipeline.output is not None and (params.get("output_config") or {}).get("format"):
        raise pipeline.error("params.output_config.format", "remove it: output_schema sets it")


def _check_names(pipeline: Pipeline) -> None:
    """What can be said of column names without the dataset: the rest is said before anything is sent."""
    columns = pipeline.config.dataset.columns or {}
    carried = columns if isinstance(columns, dict) else {name: name for name in columns}
    pipeline.check_columns(pipeline.config.dataset.key or "row_number", carried)


def _read_schema(pipeline: Pipeline, name: str) -> dict[str, Any]:
    path = (pipeline.folder / name).resolve()
    if not path.is_relative_to(pipeline.folder):
        raise pipeline.error("output_schema", f"{name} lies outside the pipeline's folder")
    if not path.is_file():
        found = ", ".join(sorted(p.name for p in pipeline.folder.glob("*.json"))) or "none"
        raise pipeline.error("output_schema", f"{name} is not beside the pipeline file; JSON files there: {found}")
    try:
        schema = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise pipeline.error("output_schema", f"{name} is not valid JSON: {error}") from None
    if not isinstance(schema, dict):
        raise pipeline.error("output_schema", f"{name} must hold a JSON object")
    return schema
