"""`MessageBatchComponent`: one YAML file -> the definitions of one pipeline."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

import dagster as dg
import pyarrow as pa
from pydantic import (
    BaseModel,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    StrictInt,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails

from batch_assets.core.automation_config import ScheduleConfig
from batch_assets.core.config import Pipeline, PipelineConfig
from batch_assets.core.config_blocks import BatchingConfig, RetentionConfig, RetryConfig, SinkConfig
from batch_assets.core.datasets.dataset_config import CsvConfig, DatasetConfig
from batch_assets.core.hooks import Hooks
from batch_assets.core.load import invalid, load_pipeline
from batch_assets.core.notify_config import EmailConfig, NotifyConfig, SlackConfig, WebhookConfig
from batch_assets.core.partition_config import PartitionsConfig, TimeConfig
from batch_assets.dagster.assets import assets_of
from batch_assets.dagster.checks import build_message_batch_checks
from batch_assets.dagster.dataset_sensor import build_message_batch_watch_sensors
from batch_assets.dagster.jobs import build_message_batch_jobs
from batch_assets.dagster.partition_sensor import build_message_batch_partitions_sensors
from batch_assets.dagster.schedule import build_message_batch_schedules
from batch_assets.dagster.sensor import build_message_batch_sensor
from batch_assets.dagster.specs import default_asset_spec
from batch_assets.scaffold import MessageBatchScaffolder


class _Block(dg.Model, dg.Resolvable):
    """Mends the schema that Dagster derives: it leaves out the descriptions of optional fields, and applies
    the bounds of a number to the text of a Dagster template in its place as well.
    """

    _derived: ClassVar[type[BaseModel]]

    @classmethod
    def model(cls) -> type[BaseModel]:
        """The schema of a block; asked for once for every field of every pipeline, it is derived once."""
        if "_derived" not in cls.__dict__:
            cls._derived = cls._derive()
        return cls._derived

    @classmethod
    def _derive(cls) -> type[BaseModel]:
        derived = super().model()
        for name, field in derived.model_fields.items():
            if field.description is None and name in cls.model_fields:
                field.description = cls.model_fields[name].description
            field.metadata = []
        derived.model_rebuild(force=True)
        return derived

    @classmethod
    def resolve_from_model(cls, context: dg.ResolutionContext, model: BaseModel) -> Self:
        """As Dagster does it, but what is wrong is placed by the whole path of the field."""
        try:
            made: Self = super().resolve_from_model(context, model)
        except ValidationError as error:
            outer = tuple(context.path[1:])  # without `attributes`
            inside = [{**found, "loc": (*outer, *found["loc"])} for found in error.errors()]
            raise ValidationError.from_exception_data(error.title, inside) from None  # type: ignore[arg-type]
        return made


class CsvBlock(CsvConfig, _Block):
    """How CSV and TSV files are written, where it is not in the usual way."""


class DatasetBlock(DatasetConfig, _Block):
    """The input table: one of path, files and sql says where its rows are."""

    csv: CsvBlock | None = Field(default=None, description=DatasetConfig.model_fields["csv"].description)


class TimeBlock(TimeConfig, _Block):
    """Which hours, days, weeks or months there are."""


def _keys(context: dg.ResolutionContext, given: Any) -> Any:
    """Only what is a template is read as one: Dagster's turn the key "2024" into a number."""
    if not isinstance(given, list | tuple):
        return given
    return [
        context.at_path(place).resolve_value(key) if _is_templated(key) else key for place, key in enumerate(given)
    ]


def _is_templated(given: Any) -> bool:
    return any(mark in str(given) for mark in ("{{", "{%"))


def _partitions(name: str) -> str | None:
    return PartitionsConfig.model_fields[name].description


class PartitionsBlock(PartitionsConfig, _Block):
    """Which partitions there are: one of hourly to dynamic, and the column that rows are told apart by."""

    hourly: TimeBlock | None = Field(default=None, description=_partitions("hourly"))
    daily: TimeBlock | None = Field(default=None, description=_partitions("daily"))
    weekly: TimeBlock | None = Field(default=None, description=_partitions("weekly"))
    monthly: TimeBlock | None = Field(default=None, description=_partitions("monthly"))
    static: Annotated[
        list[str] | None,
        dg.Resolver(_keys, model_field_type=list[str | StrictInt] | None, description=_partitions("static")),
    ] = Field(default=None, description=_partitions("static"))


class ScheduleBlock(ScheduleConfig, _Block):
    """When a pipeline is run."""


def _schedule(context: dg.ResolutionContext, given: str | BaseModel) -> Any:
    if isinstance(given, str):
        return context.resolve_value(given)
    return ScheduleBlock.resolve_from_model(context, given)


class BatchingBlock(BatchingConfig, _Block):
    """How requests are cut into batches."""


class RetryBlock(RetryConfig, _Block):
    """How often a request that failed for a passing reason is asked."""


class RetentionBlock(RetentionConfig, _Block):
    """How long copies of requests and responses are kept where they are not needed; by default for ever."""


class WebhookBlock(WebhookConfig, _Block):
    """An HTTP endpoint that gets a signed JSON message."""


class SlackBlock(SlackConfig, _Block):
    """A channel of Slack, written to by a bot."""


class EmailBlock(EmailConfig, _Block):
    """A message by e-mail, through an SMTP server."""


def _notify(name: str) -> str | None:
    return NotifyConfig.model_fields[name].description


class NotifyBlock(NotifyConfig, _Block):
    """Who is told, one of webhook, slack and email, and of what."""

    webhook: WebhookBlock | None = Field(default=None, description=_notify("webhook"))
    slack: SlackBlock | None = Field(default=None, description=_notify("slack"))
    email: EmailBlock | None = Field(default=None, description=_notify("email"))


class SinkBlock(SinkConfig, _Block):
    """A table of a database that gets a copy of complete results: rows are inserted or updated by their key."""


class _Given(BaseModel):
    """What Dagster checks before any of our code knows the file: it is kept, with what was found wrong."""

    _given: Any = PrivateAttr(default=None)
    _found: ValidationError | None = PrivateAttr(default=None)

    @model_validator(mode="wrap")
    @classmethod
    def _keep(cls, given: Any, check: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            made = check(given)
        except ValidationError as error:
            made = cls.model_construct()
            made._found = error
        made._given = given
        return made


def _described(name: str) -> str | None:
    return PipelineConfig.model_fields[name].description


@dg.scaffold_with(MessageBatchScaffolder)
class MessageBatchComponent(PipelineConfig, dg.Component, _Block):
    """Asks one question of every row of a dataset, through the Anthropic Message Batches API.

    Three assets come of it: `<name>/requests`, `<name>/batches` and `<name>/results`, the jobs `<name>_cancel`,
    `<name>_retry_failed` and `<name>_refresh`, and the sensor that brings the results back. Customize it by
    overriding a method, `get_asset_spec`, `render_request` or `parse_message`:

        class OwnedComponent(MessageBatchComponent):
            def get_asset_spec(self, pipeline, stage):
                return super().get_asset_spec(pipeline, stage).replace_attributes(owners=["team:reviews"])
    """

    _given_model: ClassVar[type[BaseModel]]
    output_columns: ClassVar[pa.Schema | None] = None
    """The columns that `parse_message` makes; without it `output_schema` says them."""

    # PipelineConfig's fields: here are only those that Dagster needs to know more about.
    dataset: DatasetBlock = Field(description=_described("dataset"))
    partitions: PartitionsBlock | None = Field(default=None, description=_described("partitions"))
    schedule: Annotated[
        ScheduleBlock | None,
        dg.Resolver(
            _schedule, model_field_type=str | ScheduleBlock.model() | None, description=_described("schedule")
        ),
    ] = Field(default=None, description=_described("schedule"))
    batching: BatchingBlock = Field(default=BatchingBlock(), description=_described("batching"))
    retry: RetryBlock = Field(default=RetryBlock(), description=_described("retry"))
    retention: RetentionBlock = Field(default=RetentionBlock(), description=_described("retention"))
    sink: SinkBlock | None = Field(default=None, description=_described("sink"))
    notify: list[NotifyBlock] = Field(default=[], description=_described("notify"))  # type: ignore[assignment]
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
            if isinstance(attributes, _Given) and attributes._found is not None:
                raise attributes._found
            return super().load(attributes, context)
        except Exception as error:  # Dagster's own, with the reason somewhere within
            errors = cls._mistakes(attributes) or _within(error)
            if not errors:
                raise
            raise invalid(_pipeline_file(context), errors) from None

    @classmethod
    def get_model_cls(cls) -> type[BaseModel]:
        """The schema of the attributes; a mistake in them is raised by `load`, which knows the file."""
        if "_given_model" not in cls.__dict__:
            derived = cls.model()
            cls._given_model = type(derived.__name__, (_Given, derived), {"__module__": __name__})
        return cls._given_model

    @classmethod
    def _mistakes(cls, attributes: BaseModel | None) -> list[ErrorDetails]:
        """What is wrong with the attributes as they stand in the file. Dagster's own schema takes a text in the
        place of anything, so its errors name both.
        """
        if not isinstance(attributes, _Given):
            return []
        try:
            cls.model_validate(attributes._given)
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
        if error["type"] != "missing" and _is_templated(error["input"]):
            return False
        name = str(error["loc"][0]) if error["loc"] else ""
        ours, own = MessageBatchComponent.model_fields.get(name), cls.model_fields.get(name)
        return ours is not None and own is not None and own.annotation == ours.annotation

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """The pipeline's assets with their checks and jobs, and the sensor that all pipelines of the code location
        share.
        """
        assets = assets_of(self.build_pipeline(context), self.get_asset_spec)
        return dg.Definitions(
            assets=assets,
            asset_checks=build_message_batch_checks(assets),
            jobs=build_message_batch_jobs(assets),
            schedules=build_message_batch_schedules(assets),
            sensors=[
                build_message_batch_sensor(),
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
