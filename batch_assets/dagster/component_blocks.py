"""The pipeline file as Dagster reads it: a class for each block, whose mistakes are told by file and field."""

from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Self

import dagster as dg
from pydantic import (
    BaseModel,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    ValidationError,
    model_validator,
)

from batch_assets.core.pipeline.automation import ScheduleConfig
from batch_assets.core.pipeline.blocks import BatchingConfig, RetentionConfig, RetryConfig, SinkConfig
from batch_assets.core.pipeline.dataset import CsvConfig, DatasetConfig
from batch_assets.core.pipeline.notify import EmailConfig, NotifyConfig, SlackConfig, WebhookConfig
from batch_assets.core.pipeline.op import OpConfig, RetryPolicyConfig, StageOpConfig
from batch_assets.core.pipeline.partitions import PartitionsConfig, TimeConfig


class Block(dg.Model, dg.Resolvable):
    """Mends the schema that Dagster derives: it leaves out the descriptions of optional fields, and applies
    the bounds of a number to the text of a Dagster template in its place as well.
    """

    @classmethod
    @cache
    def model(cls) -> type[BaseModel]:
        """The schema of a block; asked for once for every field of every pipeline, it is derived once a class."""
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


class CsvBlock(CsvConfig, Block):
    """How CSV and TSV files are written, where it is not in the usual way."""


class DatasetBlock(DatasetConfig, Block):
    """The input table: one of path, files and sql says where its rows are."""

    csv: CsvBlock | None = Field(default=None, description=DatasetConfig.model_fields["csv"].description)


class TimeBlock(TimeConfig, Block):
    """Which hours, days, weeks or months there are."""


def _keys(context: dg.ResolutionContext, given: Any) -> Any:
    """Only what is a template is read as one: Dagster's turn the key "2024" into a number."""
    if not isinstance(given, list | tuple):
        return given
    return [
        context.at_path(place).resolve_value(key) if is_templated(key) else key for place, key in enumerate(given)
    ]


def is_templated(given: Any) -> bool:
    return any(mark in str(given) for mark in ("{{", "{%"))


def _said(config: type[BaseModel], name: str) -> str | None:
    """What a block says of one of its fields."""
    return config.model_fields[name].description


class PartitionsBlock(PartitionsConfig, Block):
    """Which partitions there are: one of hourly to dynamic, and the column that rows are told apart by."""

    hourly: TimeBlock | None = Field(default=None, description=_said(PartitionsConfig, "hourly"))
    daily: TimeBlock | None = Field(default=None, description=_said(PartitionsConfig, "daily"))
    weekly: TimeBlock | None = Field(default=None, description=_said(PartitionsConfig, "weekly"))
    monthly: TimeBlock | None = Field(default=None, description=_said(PartitionsConfig, "monthly"))
    static: Annotated[
        list[str] | None,
        dg.Resolver(_keys, model_field_type=list[str] | None, description=_said(PartitionsConfig, "static")),
    ] = Field(default=None, description=_said(PartitionsConfig, "static"))


class ScheduleBlock(ScheduleConfig, Block):
    """When a pipeline is run."""


def resolve_schedule(context: dg.ResolutionContext, given: str | BaseModel) -> Any:
    if not isinstance(given, BaseModel):
        return context.resolve_value(given)
    return ScheduleBlock.resolve_from_model(context, given)


class BatchingBlock(BatchingConfig, Block):
    """How requests are cut into batches."""


class RetryBlock(RetryConfig, Block):
    """How often a request that failed for a passing reason is asked."""


class RetentionBlock(RetentionConfig, Block):
    """How long copies of requests and responses are kept where they are not needed; by default for ever."""


class WebhookBlock(WebhookConfig, Block):
    """An HTTP endpoint that gets a signed JSON message."""


class SlackBlock(SlackConfig, Block):
    """A channel of Slack, written to by a bot."""


class EmailBlock(EmailConfig, Block):
    """A message by e-mail, through an SMTP server."""


class NotifyBlock(NotifyConfig, Block):
    """Who is told, one of webhook, slack and email, and of what."""

    webhook: WebhookBlock | None = Field(default=None, description=_said(NotifyConfig, "webhook"))
    slack: SlackBlock | None = Field(default=None, description=_said(NotifyConfig, "slack"))
    email: EmailBlock | None = Field(default=None, description=_said(NotifyConfig, "email"))


class SinkBlock(SinkConfig, Block):
    """A table of a database that gets a copy of complete results: rows are inserted or updated by their key."""


class RetryPolicyBlock(RetryPolicyConfig, Block):
    """How often Dagster repeats a step that failed, within its run."""


def _tags(context: dg.ResolutionContext, given: Any) -> Any:
    """Values as they were written, but for templates: Dagster's turn the text "2" of a resource into a number."""
    if isinstance(given, Mapping):
        return {name: _tags(context.at_path(str(name)), value) for name, value in given.items()}
    if isinstance(given, list | tuple):
        return [_tags(context.at_path(place), value) for place, value in enumerate(given)]
    return context.resolve_value(given) if is_templated(given) else given


class StageOpBlock(StageOpConfig, Block):
    """How Dagster runs one stage."""

    tags: Annotated[
        dict[str, Any],
        dg.Resolver(_tags, model_field_type=dict[str, Any], description=_said(StageOpConfig, "tags")),
    ] = Field(default={}, description=_said(StageOpConfig, "tags"))
    retry_policy: RetryPolicyBlock | None = Field(default=None, description=_said(StageOpConfig, "retry_policy"))


class OpBlock(OpConfig, Block):
    """How Dagster runs each stage."""

    requests: StageOpBlock = Field(default=StageOpBlock(), description=_said(OpConfig, "requests"))
    batches: StageOpBlock = Field(default=StageOpBlock(), description=_said(OpConfig, "batches"))
    results: StageOpBlock = Field(default=StageOpBlock(), description=_said(OpConfig, "results"))


class Given(BaseModel):
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


# No methods of Given: a subclass of the component may have fields of any name.
def as_given(attributes: Given) -> Any:
    """What stands in the file."""
    return attributes._given


def mistake_in(attributes: Given) -> ValidationError | None:
    """What Dagster found wrong with it."""
    return attributes._found
