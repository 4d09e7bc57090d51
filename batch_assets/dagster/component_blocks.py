"""The pipeline file as Dagster reads it: a class for each block. Errors in a block name the file and the field."""

from collections.abc import Mapping
from functools import cache, partial
from types import NoneType, UnionType
from typing import Annotated, Any, Self, Union, get_args, get_origin

import dagster as dg
from dagster.components.resolved.base import resolve_fields
from pydantic import (
    BaseModel,
    BeforeValidator,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    ValidationError,
    model_validator,
)
from pydantic.fields import FieldInfo

from batch_assets.core.answers.follow_up_rules import TruncatedRule
from batch_assets.core.config_block import check_number
from batch_assets.core.pipeline.automation import ScheduleConfig
from batch_assets.core.pipeline.blocks import (
    BatchingConfig,
    BudgetConfig,
    ClientConfig,
    LiveConfig,
    PilotConfig,
    RescueConfig,
    RetentionConfig,
    RetryConfig,
    SinkConfig,
)
from batch_assets.core.pipeline.dataset import CsvConfig, DatasetConfig
from batch_assets.core.pipeline.notify import EmailConfig, NotifyConfig, SlackConfig, WebhookConfig
from batch_assets.core.pipeline.op import OpConfig, RetryPolicyConfig, StageOpConfig
from batch_assets.core.pipeline.partitions import PartitionsConfig, TimeConfig


class Block(dg.Model, dg.Resolvable):
    """Repairs the schema that Dagster derives from a block.

    Dagster leaves out the descriptions of optional fields. It also applies the bounds of a number to a Dagster
    template that is written in place of the number.
    """

    @classmethod
    @cache
    def model(cls) -> type[BaseModel]:
        """Return the schema of a block. It is cached: Dagster asks for it for every field of every pipeline."""
        derived = super().model()
        for name, field in derived.model_fields.items():
            if field.description is None and name in cls.model_fields:
                field.description = cls.model_fields[name].description
            # Pydantic would take true for 1 before the block sees it.
            field.metadata = [BeforeValidator(partial(_checked, annotation=field.annotation))]
        derived.model_rebuild(force=True)
        return derived

    @classmethod
    def resolve_from_model(cls, context: dg.ResolutionContext, model: BaseModel) -> Self:
        """Resolve the block as Dagster does, but give the whole path of the field in errors.

        A block without templates is taken as it is. Dagster would compile each of its texts as a template, which
        took a tenth of the time that pipelines need to load, and turn the text "2024" into a number. The same
        holds for the other texts of a block with templates, and for those of a component.
        """
        values = model.model_dump(exclude_unset=True)
        # A component may have fields that a user's own resolver makes of their texts.
        is_plain = not issubclass(cls, dg.Component) and not is_templated(values)
        try:
            block = cls(**(values if is_plain else cls._resolved(context, model, values)))
        except ValidationError as error:
            outer = tuple(context.path[1:])  # without `attributes`
            errors = [{**details, "loc": (*outer, *details["loc"])} for details in error.errors()]
            raise ValidationError.from_exception_data(error.title, errors) from None  # type: ignore[arg-type]
        return block

    @classmethod
    def _resolved(
        cls, context: dg.ResolutionContext, model: BaseModel, values: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return the values with their templates rendered."""
        texts = {name: values[name] for name, field in cls.model_fields.items() if _is_text(field, values, name)}
        others = model.model_copy()
        others.model_fields_set.difference_update(texts)
        rendered = {name: only_templates(context.at_path(name), text) for name, text in texts.items()}
        return {**resolve_fields(others, cls, context), **rendered}


def _checked(value: Any, annotation: Any) -> Any:
    check_number(value, annotation)
    return value


def _is_text(field: FieldInfo, values: Mapping[str, Any], name: str) -> bool:
    """Return whether a field is given, is of texts, and has no resolver of its own."""
    has_resolver = any(isinstance(entry, dg.Resolver) for entry in field.metadata)
    return name in values and not has_resolver and _holds_texts(field.annotation)


def _holds_texts(annotation: Any) -> bool:
    """Return whether values of a type are texts, or lists or maps of texts."""
    inner = get_args(annotation)
    return annotation in (str, NoneType) or (
        get_origin(annotation) in (list, dict, Union, UnionType) and bool(inner) and all(map(_holds_texts, inner))
    )


class CsvBlock(CsvConfig, Block):
    """The format of CSV and TSV files, if it is not the usual one."""


class DatasetBlock(DatasetConfig, Block):
    """The input table. One of path, files, sql and asset says where its rows are."""

    csv: CsvBlock | None = Field(default=None, description=DatasetConfig.model_fields["csv"].description)


class TimeBlock(TimeConfig, Block):
    """The hours, days, weeks or months that are partitions."""


def only_templates(context: dg.ResolutionContext, value: Any) -> Any:
    """Render only the texts that are templates: Dagster's templating turns the text "2024" into a number."""
    if isinstance(value, Mapping):
        return {name: only_templates(context.at_path(str(name)), inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [only_templates(context.at_path(position), inner) for position, inner in enumerate(value)]
    if not is_templated(value):
        return value
    rendered = context.resolve_value(value)
    # A whole number was a text before, such as the value of an environment variable.
    return str(rendered) if isinstance(rendered, int) and not isinstance(rendered, bool) else rendered


def is_templated(value: Any) -> bool:
    """Return whether a value contains a Dagster template."""
    return any(mark in str(value) for mark in ("{{", "{%"))


def _described(config: type[BaseModel], name: str) -> str | None:
    """Return the description of a field of a block."""
    return config.model_fields[name].description


class PartitionsBlock(PartitionsConfig, Block):
    """The partitions: one of hourly to dynamic, and the column that divides rows among them."""

    hourly: TimeBlock | None = Field(default=None, description=_described(PartitionsConfig, "hourly"))
    daily: TimeBlock | None = Field(default=None, description=_described(PartitionsConfig, "daily"))
    weekly: TimeBlock | None = Field(default=None, description=_described(PartitionsConfig, "weekly"))
    monthly: TimeBlock | None = Field(default=None, description=_described(PartitionsConfig, "monthly"))
    static: Annotated[
        list[str] | None,
        dg.Resolver(
            only_templates, model_field_type=list[str] | None, description=_described(PartitionsConfig, "static")
        ),
    ] = Field(default=None, description=_described(PartitionsConfig, "static"))


class ScheduleBlock(ScheduleConfig, Block):
    """When a pipeline runs."""


def resolve_schedule(context: dg.ResolutionContext, schedule: str | BaseModel) -> Any:
    """Resolve the field `schedule`, which is a cron expression or a block."""
    if not isinstance(schedule, BaseModel):
        return context.resolve_value(schedule)
    return ScheduleBlock.resolve_from_model(context, schedule)


class BatchingBlock(BatchingConfig, Block):
    """How requests are divided into batches."""

    priority: Annotated[
        str | None, dg.Resolver.passthrough(description=_described(BatchingConfig, "priority"))
    ] = Field(default=None, min_length=1, description=_described(BatchingConfig, "priority"))


class TruncatedBlock(TruncatedRule, Block):
    """How answers that were cut off at max_tokens are asked again."""


class RetryBlock(RetryConfig, Block):
    """How often a failed request is sent, and which answers are asked again."""

    truncated: TruncatedBlock | None = Field(default=None, description=_described(RetryConfig, "truncated"))


class BudgetBlock(BudgetConfig, Block):
    """The most that a pipeline may spend in a period."""


class PilotBlock(PilotConfig, Block):
    """A small batch of each new prompt, which is judged before the rest is sent."""


def resolve_pilot(context: dg.ResolutionContext, pilot: Any) -> Any:
    """Resolve the field `pilot`, which is a number of rows or a block."""
    if not isinstance(pilot, BaseModel):
        return context.resolve_value(pilot)
    return PilotBlock.resolve_from_model(context, pilot)


class LiveBlock(LiveConfig, Block):
    """How rows are asked by live calls."""


class RescueBlock(RescueConfig, Block):
    """How rows are asked that have no answer when the deadline has passed."""

    live: LiveBlock = Field(description=_described(RescueConfig, "live"))


def resolve_rescue(context: dg.ResolutionContext, rescue: Any) -> Any:
    """Resolve the field `rescue`, which is `live` or a block."""
    if not isinstance(rescue, BaseModel):
        return context.resolve_value(rescue)
    return RescueBlock.resolve_from_model(context, rescue)


class ClientBlock(ClientConfig, Block):
    """How the API is called for a pipeline."""


class RetentionBlock(RetentionConfig, Block):
    """How long copies of requests and responses that are not needed are kept; by default indefinitely."""


class WebhookBlock(WebhookConfig, Block):
    """An HTTP endpoint that gets notices as signed JSON."""


class SlackBlock(SlackConfig, Block):
    """A Slack channel that a bot writes notices to."""


class EmailBlock(EmailConfig, Block):
    """Notices by e-mail, through an SMTP server."""


class NotifyBlock(NotifyConfig, Block):
    """Where notices are sent (one of webhook, slack and email), and about which events."""

    webhook: WebhookBlock | None = Field(default=None, description=_described(NotifyConfig, "webhook"))
    slack: SlackBlock | None = Field(default=None, description=_described(NotifyConfig, "slack"))
    email: EmailBlock | None = Field(default=None, description=_described(NotifyConfig, "email"))


class SinkBlock(SinkConfig, Block):
    """A database table that gets a copy of complete results: rows are inserted or updated by their key."""


class RetryPolicyBlock(RetryPolicyConfig, Block):
    """How often Dagster repeats a failed step within its run."""


class StageOpBlock(StageOpConfig, Block):
    """How Dagster runs one stage."""

    tags: Annotated[
        dict[str, Any],
        dg.Resolver(
            only_templates, model_field_type=dict[str, Any], description=_described(StageOpConfig, "tags")
        ),
    ] = Field(default={}, description=_described(StageOpConfig, "tags"))
    retry_policy: RetryPolicyBlock | None = Field(
        default=None, description=_described(StageOpConfig, "retry_policy")
    )


class OpBlock(OpConfig, Block):
    """How Dagster runs each stage."""

    requests: StageOpBlock = Field(default=StageOpBlock(), description=_described(OpConfig, "requests"))
    batches: StageOpBlock = Field(default=StageOpBlock(), description=_described(OpConfig, "batches"))
    results: StageOpBlock = Field(default=StageOpBlock(), description=_described(OpConfig, "results"))


class KeptAttributes(BaseModel):
    """Attributes that keep their text and their errors.

    Dagster checks the attributes before any of our code knows the file, so the errors are raised later.
    """

    _as_written: Any = PrivateAttr(default=None)
    _mistake: ValidationError | None = PrivateAttr(default=None)

    @model_validator(mode="wrap")
    @classmethod
    def _keep(cls, written: Any, check: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            attributes = check(written)
        except ValidationError as error:
            attributes = cls.model_construct()
            # The traceback would keep `check` alive. Pydantic 2.11 counts the class once too often for it, so that
            # the garbage collector may destroy the class, and pipelines no longer load.
            attributes._mistake = error.with_traceback(None)
        attributes._as_written = written
        return attributes


# These are not methods of KeptAttributes: a subclass of the component may have fields of any name.
def as_written(attributes: KeptAttributes) -> Any:
    """Return the attributes as the file has them."""
    return attributes._as_written


def mistake_in(attributes: KeptAttributes) -> ValidationError | None:
    """Return what Dagster found wrong with the attributes, or None."""
    return attributes._mistake
