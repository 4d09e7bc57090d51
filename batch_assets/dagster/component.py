"""`MessageBatchComponent`: one YAML file -> the definitions of one pipeline."""

from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

import dagster as dg
import pyarrow as pa
import yaml
from pydantic import BaseModel, Field, PrivateAttr, ValidationError
from pydantic_core import ErrorDetails

from batch_assets.core.errors import ConfigError
from batch_assets.core.pipeline.config import PipelineConfig
from batch_assets.core.pipeline.faults import repeated_key
from batch_assets.core.pipeline.hooks import ToolFunctions
from batch_assets.core.pipeline.load import invalid, load_pipeline
from batch_assets.core.pipeline.pipeline import Hooks, Pipeline
from batch_assets.dagster.assets.build import assets_of
from batch_assets.dagster.assets.specs import default_asset_spec
from batch_assets.dagster.assets.spend import build_message_batch_spend
from batch_assets.dagster.broken.claims import Claim, Claimant, claims_of
from batch_assets.dagster.broken.known import file_of, yaml_text
from batch_assets.dagster.broken.lacks import lack_of
from batch_assets.dagster.broken.load_as_broken import load_as_broken, note_broken, source_of
from batch_assets.dagster.checks.build import build_message_batch_checks
from batch_assets.dagster.component_blocks import (
    BatchingBlock,
    Block,
    BudgetBlock,
    ClientBlock,
    DatasetBlock,
    KeptAttributes,
    NotifyBlock,
    OpBlock,
    PartitionsBlock,
    PilotBlock,
    RescueBlock,
    RetentionBlock,
    RetryBlock,
    ScheduleBlock,
    SinkBlock,
    as_written,
    is_templated,
    mistake_in,
    only_templates,
    resolve_pilot,
    resolve_rescue,
    resolve_schedule,
)
from batch_assets.dagster.jobs import build_message_batch_jobs
from batch_assets.dagster.scaffold import MessageBatchScaffolder
from batch_assets.dagster.schedule import build_message_batch_schedules
from batch_assets.dagster.sensors.dataset_sensor import build_message_batch_watch_sensors
from batch_assets.dagster.sensors.partition_sensor import build_message_batch_partitions_sensors
from batch_assets.dagster.sensors.results_sensor import build_message_batch_sensor
from batch_assets.dagster.template_variables import unset_variable, variable_without_value

# Their templates are over the row.
_PASSED_THROUGH = ("params", "betas", "output_schema")


def _described(name: str) -> str | None:
    return PipelineConfig.model_fields[name].description


@dg.scaffold_with(MessageBatchScaffolder)
class MessageBatchComponent(PipelineConfig, dg.Component, Block):
    """Asks one question of every row of a dataset, through the Anthropic Message Batches API.

    It defines the assets `<name>/requests`, `<name>/batches` and `<name>/results`, the jobs `<name>_cancel`,
    `<name>_retry_failed` and `<name>_refresh`, and the sensor that brings the results back. To customize it,
    override `get_asset_spec`, `render_request`, `parse_message` or `tool_functions`:

        class OwnedComponent(MessageBatchComponent):
            def get_asset_spec(self, pipeline, stage):
                return super().get_asset_spec(pipeline, stage).replace_attributes(owners=["team:reviews"])
    """

    output_columns: ClassVar[pa.Schema | None] = None
    """The columns that `parse_message` returns. If it is None, `output_schema` defines them."""
    _mistake: Exception | None = PrivateAttr(default=None)  # why the pipeline file does not load

    # The other fields are in PipelineConfig. Dagster needs to know more about these.
    name: Annotated[
        str,
        dg.Resolver(
            only_templates, model_field_type=str, description=_described("name"), inject_before_resolve=False
        ),
    ]
    dataset: DatasetBlock = Field(description=_described("dataset"))
    partitions: PartitionsBlock | None = Field(default=None, description=_described("partitions"))
    schedule: Annotated[
        ScheduleBlock | None,
        dg.Resolver(
            resolve_schedule,
            model_field_type=str | ScheduleBlock.model() | None,
            description=_described("schedule"),
        ),
    ] = Field(default=None, description=_described("schedule"))
    batching: BatchingBlock = Field(default=BatchingBlock(), description=_described("batching"))
    retry: RetryBlock = Field(default=RetryBlock(), description=_described("retry"))
    retention: RetentionBlock = Field(default=RetentionBlock(), description=_described("retention"))
    budget: BudgetBlock | None = Field(default=None, description=_described("budget"))
    pilot: Annotated[
        PilotBlock | None,
        dg.Resolver(
            resolve_pilot,
            model_field_type=int | PilotBlock.model() | None,
            description=_described("pilot"),
        ),
    ] = Field(default=None, description=_described("pilot"))
    rescue: Annotated[
        RescueBlock | None,
        dg.Resolver(
            resolve_rescue,
            model_field_type=str | RescueBlock.model() | None,
            description=_described("rescue"),
        ),
    ] = Field(default=None, description=_described("rescue"))
    sink: SinkBlock | None = Field(default=None, description=_described("sink"))
    notify: list[NotifyBlock] = Field(default=[], description=_described("notify"))  # type: ignore[assignment]
    client: ClientBlock = Field(default=ClientBlock(), description=_described("client"))
    op: OpBlock = Field(default=OpBlock(), description=_described("op"))
    # Dagster's own templating must not touch templates over the row and data for the API.
    params: Annotated[dict[str, Any], dg.Resolver.passthrough(description=_described("params"))]
    betas: Annotated[list[str], dg.Resolver.passthrough(description=_described("betas"))] = Field(
        default=[], description=_described("betas")
    )
    output_schema: Annotated[
        str | dict[str, Any] | None, dg.Resolver.passthrough(description=_described("output_schema"))
    ] = None

    @classmethod
    def load(cls, attributes: BaseModel | None, context: dg.ComponentLoadContext) -> Self:
        """Create the component from its YAML.

        A file with a mistake loads too: the component then defines assets that fail with it.
        """
        claims, claimant = claims_of(context.component_tree), _claimant(context)
        try:
            component = cls._load(attributes, context)
        except Exception as error:
            note_broken(claimant, context.project_root, claims)
            broken = cls.model_construct()
            broken._mistake = error
            return broken
        claims.note(claimant, Claim(component.name, _pipeline_file(context), is_valid=True))
        return component

    @classmethod
    def _load(cls, attributes: BaseModel | None, context: dg.ComponentLoadContext) -> Self:
        """Create the component from its YAML.

        Raises:
            ConfigError: When a value has the wrong type, or a map has a key twice. The error names the file and
                the field or line.
        """
        _check_keys(context)
        try:
            if isinstance(attributes, KeptAttributes) and (mistake := mistake_in(attributes)) is not None:
                raise mistake
            if problem := cls._without_value(attributes, context):
                raise ConfigError(_pipeline_file(context), *problem)
            return super().load(attributes, context)
        except ConfigError:
            raise
        except Exception as error:  # Dagster wraps the reason in errors of its own
            errors = cls._mistakes(attributes) or _within(error)
            if not errors:
                raise
            written = as_written(attributes) if isinstance(attributes, KeptAttributes) else {}
            if problem := unset_variable(written, [details["loc"] for details in errors]):
                raise ConfigError(_pipeline_file(context), *problem) from None
            raise invalid(_pipeline_file(context), errors) from None

    @classmethod
    @cache
    def get_model_cls(cls) -> type[BaseModel]:
        """Return the schema of the attributes. It raises no mistakes: `load` does, which knows the file."""
        derived = cls.model()
        return type(derived.__name__, (KeptAttributes, derived), {"__module__": __name__})

    @classmethod
    def _without_value(
        cls, attributes: BaseModel | None, context: dg.ComponentLoadContext
    ) -> tuple[str, str] | None:
        """Return the field with a variable of Dagster's templates that has no value, and what is wrong with it."""
        written = as_written(attributes) if isinstance(attributes, KeptAttributes) else None
        if not isinstance(written, Mapping) or not is_templated(written):
            return None
        rendered = {
            name: value
            for name, value in written.items()
            if name not in _PASSED_THROUGH and cls._is_inherited(name)
        }
        return variable_without_value(rendered, context.resolution_context.scope)

    @classmethod
    def _mistakes(cls, attributes: BaseModel | None) -> list[ErrorDetails]:
        """Return what is wrong with the attributes as the file has them.

        Dagster's own schema accepts a text in place of any value, so each of its errors comes twice.
        """
        if not isinstance(attributes, KeptAttributes):
            return []
        try:
            cls.model_validate(as_written(attributes))
        except ValidationError as error:
            return [details for details in error.errors() if cls._is_meant(details)]
        return []

    @classmethod
    def _is_meant(cls, error: ErrorDetails) -> bool:
        """Return whether an error is a real mistake.

        It is not if the value is a template that Dagster has not rendered yet, or if a subclass redefines the
        field.
        """
        if error["type"] == "extra_forbidden" and len(error["loc"]) == 1:
            return error["loc"][0] not in cls.model().model_fields
        if error["type"] != "missing" and is_templated(error["input"]):
            return False
        return cls._is_inherited(str(error["loc"][0]) if error["loc"] else "")

    @classmethod
    def _is_inherited(cls, name: str) -> bool:
        """Return whether a field is of every pipeline, and not one that a subclass adds or redefines."""
        base_field, field = MessageBatchComponent.model_fields.get(name), cls.model_fields.get(name)
        if base_field is None or field is None:
            return False
        return (field.annotation, field.metadata) == (base_field.annotation, base_field.metadata)

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Return the assets, checks, jobs and schedule of the pipeline, and the sensors.

        If the pipeline file has a mistake, they are assets and a check that fail with it, and the sensor.
        """
        claims, claimant = claims_of(context.component_tree), _claimant(context)
        try:
            if self._mistake is not None:
                raise self._mistake
            if others := claims.others(claimant, self.name):
                raise ConfigError(_pipeline_file(context), "name", _taken(self.name, others))
            if lack := lack_of(self):
                raise ConfigError(_pipeline_file(context), *lack)
            return self._build_defs(context)
        except Exception as error:
            return load_as_broken(error, claimant, context.project_root, claims)

    def _build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        assets = assets_of(self.build_pipeline(context), self.get_asset_spec)
        return dg.Definitions(
            assets=[*assets, build_message_batch_spend(resource_key=self.resource_key)],
            asset_checks=build_message_batch_checks(assets),
            jobs=build_message_batch_jobs(assets),
            schedules=build_message_batch_schedules(assets),
            sensors=[
                build_message_batch_sensor(resource_key=self.resource_key),
                *build_message_batch_partitions_sensors(assets),
                *build_message_batch_watch_sensors(assets),
            ],
        )

    def build_pipeline(self, context: dg.ComponentLoadContext) -> Pipeline:
        """Return the pipeline as the core runs it.

        Raises:
            ConfigError: When the pipeline file has a mistake. The error names the file and the field.
        """
        return load_pipeline(
            self.model_dump(include=set(PipelineConfig.model_fields)),
            folder=_folder(context),
            project=context.project_root,
            source=_pipeline_file(context),
            hooks=self._hooks(),
        )

    def _hooks(self) -> Hooks:
        """Return the methods that a subclass overrides. The others are not called for each row."""
        component = type(self)
        renders = component.render_request is not MessageBatchComponent.render_request
        parses = component.parse_message is not MessageBatchComponent.parse_message
        return Hooks(
            self.render_request if renders else None,
            self.parse_message if parses else None,
            component.output_columns,
            self.tool_functions(),
        )

    def get_asset_spec(self, pipeline: Pipeline, stage: str) -> dg.AssetSpec:
        """Return the spec of one asset. Override it to change key, group, owners, description and the like.

        Args:
            pipeline: The pipeline that the asset belongs to.
            stage: `requests`, `batches` or `results`.
        """
        return default_asset_spec(pipeline, stage)

    def render_request(
        self, pipeline: Pipeline, row: dict[str, Any], params: dict[str, Any]
    ) -> dict[str, Any] | None:
        """Return the params to send for one row. Override it to change them or to reject rows.

        Params with equal bytes are one request, so the return value should depend on the row alone, not on the
        time or on chance.

        Args:
            pipeline: The pipeline that the row belongs to.
            row: Every column of the dataset.
            params: The params that the templates of the pipeline file render. You may change and return them.

        Returns:
            The params, or None to reject the row. Any exception also rejects the row; the text of a `RowRejected`
            becomes the reason.
        """
        return params

    def parse_message(self, message: dict[str, Any]) -> Mapping[str, Any]:
        """Return the typed columns of one answer. Override it if answers are not JSON.

        `output_columns` or `output_schema` declares the columns; an `output_schema` is then not sent. The method
        is called for every answer each time the table is written. After you change it, materialize `results`;
        no request is sent again.

        Args:
            message: The message as the API sent it, with `content`, `stop_reason` and `usage`.

        Returns:
            A map of column to value. Any exception makes the answer an `invalid_output`; the text of a
            `ValueError` becomes the reason.
        """
        raise NotImplementedError

    def tool_functions(self) -> ToolFunctions:
        """Return functions that give the results of tools, by the names of the tools. Override it to have some.

        An answer that calls only these tools is followed by a request with their results, at most `retry.paused`
        times in a chain. A call of any other tool ends the turn. `batches` calls the functions, and calls them
        again after an interruption and for a request that failed. So they should change nothing, or use the `id`
        of the call to do it once.

        Returns:
            A map of tool to function. A function takes a `ToolCall`, and returns a text or a list of content
            blocks. Its `ToolFailed` goes to the model. With any other exception the answer waits for the next run.
        """
        return {}


def _within(error: BaseException | None) -> list[ErrorDetails]:
    """Return what pydantic found wrong, from an error that Dagster has wrapped."""
    while error is not None:
        if isinstance(error, ValidationError):
            errors = error.errors()
            return [details for details in errors if details["loc"][-1:] != ("str",)] or errors
        error = error.__cause__ or error.__context__
    return []


def _folder(context: dg.ComponentLoadContext) -> Path:
    return context.path if context.path.is_dir() else context.path.parent


def _taken(name: str, others: list[str]) -> str:
    return f"{name!r} is also the name of the pipeline in {', '.join(others)}: give each a name of its own"


def _claimant(context: dg.ComponentLoadContext) -> Claimant:
    key = context.component_path.instance_key
    return Claimant(context.path, key if isinstance(key, int) else 0)


def _check_keys(context: dg.ComponentLoadContext) -> None:
    """Check that no map of the pipeline file has a key twice. Dagster would read the last and forget the others.

    Raises:
        ConfigError: When a map has one. The error names the file and the line.
    """
    text = yaml_text(file_of(context.path))
    if text is None:
        return
    with suppress(yaml.YAMLError):  # Dagster has read it
        if (repeated := repeated_key(_pipeline_file(context), text)) is not None:
            raise repeated


def _pipeline_file(context: dg.ComponentLoadContext) -> str:
    return source_of(context.path, context.project_root)
