"""What a pipeline is: the validated form of one YAML file or one Python call."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import orjson
from pydantic import BaseModel, Field, ValidationError, field_validator

from batch_assets.core.columns import name_clash
from batch_assets.core.config_block import ConfigBlock
from batch_assets.core.config_blocks import (
    KEEP_EVERYTHING,
    BatchingConfig,
    RetentionConfig,
    RetryConfig,
    SinkConfig,
)
from batch_assets.core.datasets.dataset_config import DatasetConfig
from batch_assets.core.errors import ConfigError
from batch_assets.core.output.answers import Answers
from batch_assets.core.output.forced_tool import ForcedTool, forced_tool, has_schema, strict_schemas
from batch_assets.core.output.output_schema import OutputSchema
from batch_assets.core.output.schema_rules import SchemaError, check_schema
from batch_assets.core.output.schema_source import load_schema
from batch_assets.core.templates.batch_rules import OLD_VERSION, refused, refused_value, sampling
from batch_assets.core.templates.betas import Betas
from batch_assets.core.templates.params_check import check_params
from batch_assets.core.templates.row_values import row_checks
from batch_assets.core.templates.template import Template


class PipelineConfig(ConfigBlock):
    """The attributes of a pipeline file, field by field."""

    name: str = Field(description="Asset keys are name/requests, name/batches, name/results.")
    dataset: DatasetConfig = Field(description="The input table.")
    params: dict[str, Any] = Field(
        description="The Messages API body; every string is a Jinja template over the row."
    )
    output_schema: str | dict[str, Any] | None = Field(
        default=None,
        description="JSON Schema, a file beside the pipeline, inline or module:PydanticModel: typed columns.",
    )
    batching: BatchingConfig = Field(default=BatchingConfig(), description="How requests are cut into batches.")
    retry: RetryConfig = Field(default=RetryConfig(), description="How often a failed request is asked.")
    retention: RetentionConfig = Field(
        default=KEEP_EVERYTHING, description="How long batches and request files are kept: for ever."
    )
    sink: SinkConfig | None = Field(
        default=None, description="A table of a database that gets a copy of complete results."
    )
    max_failed: float = Field(default=0.01, ge=0, le=1, description="Share of rows that may fail.")
    max_invalid: float = Field(
        default=0.01,
        ge=0,
        le=1,
        description="Share of answers that may be refused, cut off, or not match the output schema.",
    )
    betas: list[str] = Field(
        default=[],
        description="Beta features, sent as the anthropic-beta header; each may be a Jinja template over the row.",
    )
    anthropic_version: str | None = Field(default=None, description="Pins the anthropic-version header.")
    allow_unknown_params: bool = Field(
        default=False, description="Lets params through that the installed SDK does not know yet."
    )

    @field_validator("name")
    @classmethod
    def _name_is_an_asset_key(cls, name: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9_]{1,100}", name):
            raise ValueError("use letters, digits and underscores only, at most 100")
        return name

    @field_validator("anthropic_version", mode="before")
    @classmethod
    def _version_is_a_date(cls, version: Any) -> Any:
        text = version.isoformat() if isinstance(version, date) else version  # YAML makes a date of it
        if isinstance(text, str) and not re.fullmatch(r"\d{4}-\d{2}-\d{2}", text):
            raise ValueError(f"a version of the API is a date like {OLD_VERSION}")
        return text


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
    def query(self) -> str:
        """The query of `dataset.sql`."""
        name = self.config.dataset.query_file
        query = self.config.dataset.sql or ""
        if name is not None:
            path = (self.folder / name).resolve()
            if not path.is_relative_to(self.folder):
                raise self.error("dataset.sql", f"{name} lies outside the pipeline's folder")
            if not path.is_file():
                found = ", ".join(sorted(p.name for p in self.folder.glob("*.sql"))) or "none"
                raise self.error(
                    "dataset.sql", f"{name} is not beside the pipeline file; SQL files there: {found}"
                )
            try:
                query = path.read_text("utf-8-sig")
            except ValueError as error:
                raise self.error("dataset.sql", f"{name} is not UTF-8: {error}") from None
        query = query.strip().rstrip(";").rstrip()
        if not query:
            raise self.error("dataset.sql", "the query is empty")
        return query

    @cached_property
    def output(self) -> OutputSchema | None:
        """What answers look like: the output schema, or that of the tool they all call. None for plain text."""
        given = self.config.output_schema
        if given is None:
            return OutputSchema(self.tool.schema) if self.tool else None
        try:
            schema = load_schema(given, self.folder, self.project)
            output = OutputSchema(schema)
            check_schema(schema)
        except ValueError as error:
            place = f"{given}: " if isinstance(given, str) and isinstance(error, SchemaError) else ""
            raise self.error("output_schema", f"{place}{error}") from None
        return output

    @cached_property
    def tool(self) -> ForcedTool | None:
        """The tool that every answer calls and whose input gives the typed columns."""
        found = forced_tool(self.config.params) if self.config.output_schema is None else None
        if found is not None:
            try:
                OutputSchema(found.schema)
            except ValueError:
                return None  # a tool without input of its own: its calls are listed
        return found

    @property
    def has_tool_calls(self) -> bool:
        """Whether results list the tools that a response called."""
        return self.tool is None and "tools" in self.config.params

    @cached_property
    def answers(self) -> Answers:
        """The columns of results that hang on what is asked."""
        return Answers(self.output, self.tool.name if self.tool else None, self.has_tool_calls)

    @cached_property
    def template(self) -> Template:
        """The compiled params, with the output schema as the API's structured output."""
        params = dict(self.config.params)
        if self.output is not None and self.tool is None:
            output_config = dict(params.get("output_config") or {})
            # A fragment, because the schema's strings are data: nothing in it is a template.
            fragment = orjson.Fragment(orjson.dumps(self.output.schema))
            output_config["format"] = {"type": "json_schema", "schema": fragment}
            params["output_config"] = output_config
        return Template(params, self.folder, self.source)

    @cached_property
    def betas(self) -> Betas:
        """The compiled betas."""
        return Betas(self.config.betas, self.folder, self.source)

    @property
    def headers(self) -> dict[str, str]:
        """Headers of every request that change what it means, and so are part of its identity."""
        return self.headers_with(self.betas.constant)

    def headers_with(self, betas: str | None) -> dict[str, str]:
        """The same headers of a request that asks for these betas; None for none."""
        headers = {}
        if betas is not None:
            headers["anthropic-beta"] = betas
        if self.config.anthropic_version:
            headers["anthropic-version"] = self.config.anthropic_version
        return headers

    def fit(self, columns: list[str]) -> None:
        """Settles `reads`, given the names of the dataset's columns in order.

        Errors:
            ConfigError: a template reads a column that Jinja cannot read by its name.
        """
        self.template.fit(columns)
        self.betas.fit(columns)

    @property
    def reads(self) -> set[str]:
        """The dataset columns that the templates read."""
        return self.template.columns | self.betas.columns

    def where(self, column: str) -> str:
        """The first field whose template reads the column."""
        return (self.template if column in self.template.columns else self.betas).where(column)

    def check_columns(self, key: str, carried: dict[str, str]) -> None:
        """Raises a ConfigError when two columns of results would have one name."""
        clash = name_clash(
            key,
            carried,
            self.output.names if self.output else [],
            typed_by=self.tool.field if self.tool else "output_schema",
            tool_calls=self.has_tool_calls,
        )
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
    _ = pipeline.betas
    if config.dataset.sql is not None:
        _ = pipeline.query
    outline, version = pipeline.template.outline(), pipeline.config.anthropic_version
    betas, also, allow_unknown = bool(config.betas), sampling(version), config.allow_unknown_params
    problem = check_params(outline, betas=betas, also=also, allow_unknown=allow_unknown)
    if problem := problem or refused_value(outline, version):
        field, said = problem
        raise pipeline.error(pipeline.template.place(field), said)
    checks = row_checks(outline, betas=betas, also=also, allow_unknown=allow_unknown)
    pipeline.template.check_rows_with(checks)
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
        kinds = [kind for kind in get_args(annotation) or (annotation,) if isinstance(kind, type)]
        inner = next((kind for kind in kinds if issubclass(kind, BaseModel)), None)
        if inner is None:
            break
        model = inner
    return ", ".join(model.model_fields)


def _check_params(pipeline: Pipeline) -> None:
    params, version = pipeline.config.params, pipeline.config.anthropic_version
    if problem := refused(params, version):
        raise pipeline.error(*problem)
    for field, schema in strict_schemas(params):
        try:
            check_schema(schema)
        except SchemaError as error:
            raise pipeline.error(field, str(error)) from None
    output_config = params.get("output_config") or {}
    if pipeline.config.output_schema is None and has_schema(output_config):
        remedy = "write it under `output_schema`, beside `params`: it is checked there and gives typed columns"
        raise pipeline.error("params.output_config.format", f"the schema does not go here: {remedy}")
    if pipeline.output is None or pipeline.tool is not None:
        return
    if not isinstance(output_config, Mapping):
        raise pipeline.error("params.output_config", "write its fields out: output_schema adds `format` to them")
    if output_config.get("format"):
        raise pipeline.error("params.output_config.format", "remove it: output_schema sets it")


def _check_names(pipeline: Pipeline) -> None:
    """What can be said of column names without the dataset: the rest is said before anything is sent."""
    columns = pipeline.config.dataset.columns or {}
    carried = columns if isinstance(columns, dict) else {name: name for name in columns}
    pipeline.check_columns(pipeline.config.dataset.key or pipeline.config.dataset.default_key, carried)
