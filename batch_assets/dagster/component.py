"""`MessageBatchComponent`: one YAML file -> the definitions of one pipeline."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

import dagster as dg
import pyarrow as pa
from pydantic import BaseModel, Field, ValidationError
from pydantic_core import ErrorDetails

from batch_assets.core.pipeline.config import PipelineConfig
from batch_assets.core.pipeline.load import invalid, load_pipeline
from batch_assets.core.pipeline.pipeline import Hooks, Pipeline
from batch_assets.dagster.assets.build import assets_of
from batch_assets.dagster.assets.specs import default_asset_spec
from batch_assets.dagster.checks.build import build_message_batch_checks
from batch_assets.dagster.component_blocks import (
    BatchingBlock,
    Block,
    DatasetBlock,
    Given,
    NotifyBlock,
    OpBlock,
    PartitionsBlock,
    RetentionBlock,
    RetryBlock,
    ScheduleBlock,
    SinkBlock,
    as_given,
    is_templated,
    mistake_in,
    resolve_schedule,
)
from batch_assets.dagster.jobs import build_message_batch_jobs
from batch_assets.dagster.scaffold import MessageBatchScaffolder
from batch_assets.dagster.schedule import build_message_batch_schedules
from batch_assets.dagster.sensors.dataset_sensor import build_message_batch_watch_sensors
from batch_assets.dagster.sensors.partition_sensor import build_message_batch_partitions_sensors
from batch_assets.dagster.sensors.results_sensor import build_message_batch_sensor


def _described(name: str) -> str | None:
    return PipelineConfig.model_fields[name].description


@dg.scaffold_with(MessageBatchScaffolder)
class MessageBatchComponent(PipelineConfig, dg.Component, Block):
    """Asks one question of every row of a dataset, through the Anthropic Message Batches API.

    Three assets come of it: `<name>/requests`, `<name>/batches` and `<name>/results`, the jobs `<name>_cancel`,
    `<name>_retry_failed` and `<name>_refresh`, and the sensor that brings the results back. Customize it by
    overriding a method, `get_asset_spec`, `render_request` or `parse_message`:

        class OwnedComponent(MessageBatchComponent):
            def get_asset_spec(self, pipeline, stage):
                return super().get_asset_spec(pipeline, stage).replace_attributes(owners=["team:reviews"])
    """

    output_columns: ClassVar[pa.Schema | None] = None
    """The columns that `parse_message` makes; without it `output_schema` says them."""

    # PipelineConfig's fields: here are only those that Dagster needs to know more about.
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
    sink: SinkBlock | None = Field(default=None, description=_described("sink"))
    notify: list[NotifyBlock] = Field(default=[], description=_described("notify"))  # type: ignore[assignment]
    op: OpBlock = Field(default=OpBlock(), description=_described("op"))
    # Templates over the row and data of the API's: Dagster's own templating leaves them as they are.
    params: Annotated[dict[str, Any], dg.Resolver.passthrough(description=_described("params"))]
    betas: Annotated[list[str], dg.Resolver.passthrough(description=_described("betas"))] = Field(
        default=[], description=_described("betas")
    )
    output_schema: Annotated[
        str | dict[str, Any] | None, dg.Resolver.passthrough(description=_described("output_schema"))
    ] = None

    @classmethod
    def load(cls, attributes: BaseModel | None, context: dg.ComponentLoadContext) -> Self:
        """Makes the component of its YAML.

        Errors:
            ConfigError: a value of the wrong kind, naming the file and the field.
        """
        try:
            if isinstance(attributes, Given) and (mistake := mistake_in(attributes)) is not None:
                raise mistake
            return super().load(attributes, context)
        except Exception as error:  # Dagster's own, with the reason somewhere within
            errors = cls._mistakes(attributes) or _within(error)
            if not errors:
                raise
            raise invalid(_pipeline_file(context), errors) from None

    @classmethod
    @cache
    def get_model_cls(cls) -> type[BaseModel]:
        """The schema of the attributes; a mistake in them is raised by `load`, which knows the file."""
        derived = cls.model()
        return type(derived.__name__, (Given, derived), {"__module__": __name__})

    @classmethod
    def _mistakes(cls, attributes: BaseModel | None) -> list[ErrorDetails]:
        """What is wrong with the attributes as they stand in the file. Dagster's own schema takes a text in the
        place of anything, so its errors name both.
        """
        if not isinstance(attributes, Given):
            return []
        try:
            cls.model_validate(as_given(attributes))
        except ValidationError as error:
            return [found for found in error.errors() if cls._is_meant(found)]
        return []

    @classmethod
    def _is_meant(cls, error: ErrorDetails) -> bool:
        """Whether it is neither of a template that is not filled in yet, nor of a field that a subclass reads in a
        way of its own.
        """
        if error["type"] == "extra_forbidden" and len(error["loc"]) == 1:
            return error["loc"][0] not in cls.model().model_fields
        if error["type"] != "missing" and is_templated(error["input"]):
            return False
        name = str(error["loc"][0]) if error["loc"] else ""
        ours, own = MessageBatchComponent.model_fields.get(name), cls.model_fields.get(name)
        if ours is None or own is None:
            return False
        return (own.annotation, own.metadata) == (ours.annotation, ours.metadata)

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """The pipeline's assets with their checks and jobs, and the sensor that all of its root share."""
        assets = assets_of(self.build_pipeline(context), self.get_asset_spec)
        return dg.Definitions(
            assets=assets,
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
        """The pipeline as the core runs it.

        Errors:
            ConfigError: a mistake in the pipeline file, naming the file and the field.
        """
        return load_pipeline(
            self.model_dump(include=set(PipelineConfig.model_fields)),
            folder=_folder(context),
            project=context.project_root,
            source=_pipeline_file(context),
            hooks=self._hooks(),
        )

    def _hooks(self) -> Hooks:
        """What a subclass overrides; what it leaves as it is costs nothing."""
        own = type(self)
        renders = own.render_request is not MessageBatchComponent.render_request
        parses = own.parse_message is not MessageBatchComponent.parse_message
        return Hooks(
            self.render_request if renders else None, self.parse_message if parses else None, own.output_columns
        )

    def get_asset_spec(self, pipeline: Pipeline, stage: str) -> dg.AssetSpec:
        """How one asset presents itself: override it to change key, group, owners, description and the like.

        Args:
            stage: requests, batches or results.
        """
        return default_asset_spec(pipeline, stage)

    def render_request(
        self, pipeline: Pipeline, row: dict[str, Any], params: dict[str, Any]
    ) -> dict[str, Any] | None:
        """The params to send for one row: override it to change them, or to leave rows out.

        Equal bytes are one request: what it returns should depend on the row alone, not on the time or on chance.

        Args:
            row: every column of the dataset.
            params: as the templates of the pipeline file render them; they may be changed in place and returned.

        Returns:
            None to reject the row; raising `RowRejected` does so with a message. Whatever else it raises rejects
            the row as well.
        """
        return params

    def parse_message(self, message: dict[str, Any]) -> Mapping[str, Any]:
        """The typed columns of one answer: override it where answers are not JSON.

        The columns are declared by `output_columns` or by `output_schema`, which is not sent then. It is called
        whenever the table is written, for every answer of it: after a change materialize results, nothing is
        asked again.

        Args:
            message: as the API sent it, with `content`, `stop_reason` and `usage`.

        Returns:
            Values by column. Whatever it raises makes the answer an `invalid_output`; ValueError with its own
            message.
        """
        raise NotImplementedError


def _within(error: BaseException | None) -> list[ErrorDetails]:
    """What pydantic found wrong, of an error that Dagster has put into one of its own."""
    while error is not None:
        if isinstance(error, ValidationError):
            found = error.errors()
            return [one for one in found if one["loc"][-1:] != ("str",)] or found
        error = error.__cause__ or error.__context__
    return []


def _folder(context: dg.ComponentLoadContext) -> Path:
    return context.path if context.path.is_dir() else context.path.parent


def _pipeline_file(context: dg.ComponentLoadContext) -> str:
    """The pipeline file as the user would open it, from the project's folder."""
    folder, project = _folder(context), context.project_root
    names = ("defs.yaml", "defs.yml", "component.py")
    path = folder / next((name for name in names if (folder / name).is_file()), names[0])
    return str(path.relative_to(project)) if path.is_relative_to(project) else str(path)
