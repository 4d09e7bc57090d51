"""A pipeline: the validated form of one YAML file or one Python call."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa

from batch_assets.core.answers.answers import Answers
from batch_assets.core.answers.follow_up_rules import FollowUpRules
from batch_assets.core.answers.forced_tool import ForcedTool, forced_tool
from batch_assets.core.answers.output_schema import OutputSchema
from batch_assets.core.answers.parsed_answers import ArrowColumns, ParseMessage
from batch_assets.core.answers.result_columns import name_clash, ways_to_have_both
from batch_assets.core.answers.schema_keywords import ANNOTATIONS
from batch_assets.core.answers.schema_rules import SchemaError, check_draft, check_schema
from batch_assets.core.answers.schema_source import load_schema
from batch_assets.core.api.rescue_rule import RescueRule
from batch_assets.core.errors import ConfigError
from batch_assets.core.io.json_text import dump
from batch_assets.core.pipeline.config import PipelineConfig
from batch_assets.core.pipeline.hooks import Params, Row, ToolFunctions, name_of
from batch_assets.core.pipeline.partitions import Partitions
from batch_assets.core.pipeline.time_span import seconds_of
from batch_assets.core.prices.budget import Budget
from batch_assets.core.template.batch_rules import sampling
from batch_assets.core.template.betas import Betas
from batch_assets.core.template.priority import Priority
from batch_assets.core.template.rendering import CURRENT, Rendering
from batch_assets.core.template.row_files import ReadFile
from batch_assets.core.template.row_templates import RowTemplates
from batch_assets.core.template.row_values import RowCheck, row_checks
from batch_assets.core.template.template import Template
from batch_assets.core.urls import secret_in_query

RenderRequest = Callable[["Pipeline", Row, Params], Params | None]
"""Takes (pipeline, whole row, its rendered params), and returns the params to send or `None` to reject the row."""


@dataclass(frozen=True)
class Hooks:
    """A pipeline's own functions; `None` for each that it does not have.

    Attributes:
        render_request: Changes or rejects rendered requests.
        parse_message: Makes typed columns from messages, instead of from JSON answers.
        output_columns: The columns that `parse_message` makes, if there is no `output_schema`.
        tool_functions: Give the results of tools, by the names of the tools.
    """

    render_request: RenderRequest | None = None
    parse_message: ParseMessage | None = None
    output_columns: pa.Schema | None = None
    tool_functions: ToolFunctions = field(default_factory=dict)


NO_HOOKS = Hooks()


@dataclass(frozen=True)
class Pipeline:
    """One pipeline, ready to run.

    Attributes:
        config: The validated fields.
        folder: The pipeline file's folder, which has the templates, prompts and schema files.
        project: The folder that a relative dataset path starts from.
        source: The pipeline file as the user would open it, for errors.
        given_partitions: Partitions that are not declared in the fields.
        hooks: The pipeline's own functions.
    """

    config: PipelineConfig
    folder: Path
    project: Path
    source: str
    given_partitions: Partitions | None = None
    hooks: Hooks = NO_HOOKS

    @property
    def name(self) -> str:
        return self.config.name

    @property
    def partitions(self) -> Partitions | None:
        """The partitions; `None` if there are none."""
        return self.given_partitions or self.config.partitions

    @property
    def budget(self) -> Budget | None:
        """The budget; `None` if there is none."""
        return self.config.budget.budget if self.config.budget is not None else None

    @property
    def rescue_rule(self) -> RescueRule | None:
        """When and how rows without an answer are asked by live calls; `None` if they are not."""
        deadline, rescue = self.config.deadline, self.config.rescue
        if deadline is None or rescue is None:
            return None
        return RescueRule(seconds_of(deadline), rescue.live.max_in_flight)

    @cached_property
    def query(self) -> str:
        """The query of `dataset.sql`."""
        name = self.config.dataset.query_file
        query = self.config.dataset.sql or ""
        if name is not None:
            path = (self.folder / name).resolve()
            if not path.is_relative_to(self.folder):
                raise self.error("dataset.sql", f"{name} is outside the pipeline's folder")
            if not path.is_file():
                files = ", ".join(sorted(p.name for p in self.folder.glob("*.sql"))) or "none"
                raise self.error(
                    "dataset.sql", f"{name} is not beside the pipeline file; SQL files there: {files}"
                )
            try:
                query = path.read_text("utf-8-sig")
            except ValueError as error:
                raise self.error("dataset.sql", f"{name} is not UTF-8: {error}") from None
        query = query.strip().rstrip(";").rstrip()
        if not query:
            raise self.error("dataset.sql", "the query is empty")
        if (secret := secret_in_query(query)) is not None:
            raise self.error(
                "dataset.sql",
                f"the query contains {secret}, which would be written to manifests, metadata and errors. Leave it "
                "out, and let the database know it, for example by a stored secret",
            )
        return query

    @cached_property
    def output(self) -> OutputSchema | ArrowColumns | None:
        """The typed columns; `None` if answers are plain text.

        They come from the output schema, from the tool that all answers call, or from `parse_message`.
        """
        schema_source = self.config.output_schema
        if self.hooks.output_columns is not None:
            return self._output_columns(self.hooks.output_columns)
        if schema_source is None:
            return OutputSchema(self.tool.schema) if self.tool else None
        try:
            loaded = load_schema(schema_source, self.folder, self.project)
            output = OutputSchema(loaded.schema, loaded.bounded, loaded.validators)
            if self.hooks.parse_message is None:
                check_schema(loaded.schema)
                check_draft(loaded.schema)
        except ValueError as error:
            is_named = isinstance(schema_source, str) and isinstance(error, SchemaError)
            raise self.error("output_schema", f"{schema_source}: {error}" if is_named else str(error)) from None
        return output

    def _output_columns(self, schema: Any) -> ArrowColumns:
        if self.hooks.parse_message is None:
            raise self.error(
                "output_columns", "these are columns from parse_message, but there is no parse_message"
            )
        if self.config.output_schema is not None:
            raise self.error("output_columns", "output_schema declares the columns too: leave out one of the two")
        try:
            return ArrowColumns(schema)
        except ValueError as error:
            raise self.error("output_columns", str(error)) from None

    @property
    def sent_schema(self) -> dict[str, Any] | None:
        """The JSON Schema that answers must match; `None` if `parse_message` reads the answers."""
        output = self.output
        return output.schema if isinstance(output, OutputSchema) and self.hooks.parse_message is None else None

    @property
    def bounded_schema(self) -> dict[str, Any] | None:
        """The sent schema with a pydantic model's limits, which the API does not support; `None` without any."""
        output = self.output
        return output.bounded if isinstance(output, OutputSchema) and self.sent_schema is not None else None

    @cached_property
    def tool(self) -> ForcedTool | None:
        """The tool that every answer calls, whose input gives the typed columns; `None` if there is none."""
        if self.config.output_schema is not None or self.hooks.parse_message is not None:
            return None
        tool = forced_tool(self.config.params)
        if tool is not None:
            try:
                OutputSchema(tool.schema)
            except ValueError:
                return None  # a tool without typed input, so results list its calls
        return tool

    @property
    def unchecked(self) -> list[tuple[str, str]]:
        """What answers are not checked against, as (field, text)."""
        if self.hooks.parse_message is not None:
            return []
        output = self.output
        if isinstance(output, OutputSchema):
            field = self.tool.field if self.tool is not None else "output_schema"
            return [(field, reason) for reason in output.unchecked]
        tool = forced_tool(self.config.params)
        if tool is None or not tool.schema.keys() - {"type", *ANNOTATIONS}:
            return []
        return [(tool.field, "anything: without properties there are no typed columns")]

    @property
    def has_tool_calls(self) -> bool:
        """Whether results list the tools that a response called."""
        return self.tool is None and "tools" in self.config.params

    @cached_property
    def answers(self) -> Answers:
        """The columns of results that depend on the params."""
        tool = self.tool.name if self.tool else None
        return Answers(self.output, tool, self.has_tool_calls, self.hooks.parse_message)

    @property
    def own_answers(self) -> Answers | None:
        """`answers` if `parse_message` makes them, because a manifest cannot describe them; else `None`."""
        return self.answers if self.hooks.parse_message is not None else None

    @property
    def follow_ups(self) -> FollowUpRules | None:
        """Which answers are followed by another request; `None` if none are."""
        return self.config.retry.follow_ups(self.hooks.tool_functions)

    @cached_property
    def template(self) -> Template:
        """The compiled params, with the output schema as the API's structured output."""
        params = dict(self.config.params)
        if self.sent_schema is not None and self.tool is None:
            output_config = dict(params.get("output_config") or {})
            # A fragment, because the schema's strings are data and not templates.
            fragment = orjson.Fragment(dump(self.sent_schema).encode())
            output_config["format"] = {"type": "json_schema", "schema": fragment}
            params["output_config"] = output_config
        return Template(params, self.folder, self.source)

    @cached_property
    def betas(self) -> Betas:
        """The compiled betas."""
        return Betas(self.config.betas, self.folder, self.source)

    @cached_property
    def priority(self) -> Priority | None:
        """The compiled `batching.priority`; `None` without it."""
        entry = self.config.batching.priority
        return Priority(entry, self.folder, self.source) if entry is not None else None

    @property
    def prompt_digest(self) -> str:
        """The digest of the question that every row asks.

        It covers params, the schema that is sent, files that templates read, betas, the API version, and the name
        of the pipeline's own function that changes requests. It covers neither that function's code nor the
        dataset, batching or retries.
        """
        renders = self.hooks.render_request
        question = [
            self.config.params,
            self.sent_schema,
            sorted((self.template.files | self.betas.files).items()),
            self.config.betas,
            self.config.anthropic_version,
            name_of(renders) if renders is not None else None,
        ]
        try:
            content = orjson.dumps(question, option=orjson.OPT_NON_STR_KEYS)
        except TypeError:  # integers beyond 64 bits, in the schema of a tool
            content = json.dumps(question, default=str).encode()
        return hashlib.blake2b(content, digest_size=16).hexdigest()

    @property
    def headers(self) -> dict[str, str]:
        """The headers of every request that change its meaning, and so are part of its digest."""
        return self.headers_with(self.betas.constant)

    def headers_with(self, betas: str | None) -> dict[str, str]:
        """Return the `headers` of a request with certain betas.

        Args:
            betas: The betas, separated by commas; `None` for no betas.
        """
        headers = {}
        if betas is not None:
            headers["anthropic-beta"] = betas
        if self.config.anthropic_version:
            headers["anthropic-version"] = self.config.anthropic_version
        return headers

    @cached_property
    def row_checks(self) -> dict[str, RowCheck]:
        """The checks of values from rows, by field."""
        also = sampling(self.config.anthropic_version)
        allow_unknown = self.config.allow_unknown_params
        outline, betas = self.template.outline(), bool(self.config.betas)
        return row_checks(outline, betas=betas, also=also, allow_unknown=allow_unknown)

    def templates_for(
        self,
        columns: Sequence[str],
        read_file: ReadFile | None = None,
        rendering: Rendering = CURRENT,
        shapes: Collection[frozenset[str]] = (),
    ) -> RowTemplates:
        """Return the templates compiled for a dataset.

        Args:
            columns: The names of the dataset's columns in order.
            read_file: Reads files for the filter `file_base64`.
            rendering: The version of the rendering.
            shapes: The keys that objects of the dataset have, for each of their locations.

        Raises:
            ConfigError: When a template reads a column by a name that Jinja reserves.
        """
        params = self.template.fitted(columns, self.row_checks, read_file, rendering, shapes)
        return RowTemplates(params, self.betas.fitted(columns, rendering, shapes))

    @property
    def picks_files(self) -> bool:
        """See `RowTemplates.picks_files`."""
        return RowTemplates(self.template, self.betas).picks_files

    @property
    def reads(self) -> set[str]:
        """The columns that templates and priority read, as far as they are known without a dataset."""
        of_priority = self.priority.columns if self.priority is not None else set[str]()
        return RowTemplates(self.template, self.betas).reads | of_priority

    def check_columns(self, carried: dict[str, str]) -> None:
        """Check that no two columns of results have the same name.

        Args:
            carried: The carried columns: names in the dataset to names in results.

        Raises:
            ConfigError: When two columns have the same name.
        """
        clash = name_clash(
            self.config.dataset.key_name,
            self.config.dataset.key_column,
            carried,
            self.output.names if self.output else [],
            typed_by=self._typed_by,
            tool_calls=self.has_tool_calls,
        )
        if clash is not None:
            raise self.error(*clash)

    def column_warnings(self, carried: dict[str, str]) -> list[str]:
        """Return a text for each column that results lack because the pipeline has one of its own with the name.

        Args:
            carried: The carried columns: names in the dataset to names in results.
        """
        dataset, typed = self.config.dataset, self.output.names if self.output else []
        ways = ways_to_have_both(dataset.key_name, dataset.key_column, carried, typed)
        return [f"{self.source}: {way}" for way in ways]

    @property
    def _typed_by(self) -> str:
        """The field that defines the typed columns."""
        if self.tool is not None:
            return self.tool.field
        return "output_schema" if self.hooks.output_columns is None else "output_columns"

    def error(self, field: str, problem: str) -> ConfigError:
        """Make the error for a field of the pipeline file."""
        return ConfigError(self.source, field, problem)
