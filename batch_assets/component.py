"""`MessageBatchComponent`: one YAML file -> the definitions of one pipeline."""

from pathlib import Path
from typing import Annotated, Any, Self

import dagster as dg
from pydantic import BaseModel, Field, ValidationError

from batch_assets.core.config import Pipeline, PipelineConfig, invalid, load_pipeline
from batch_assets.core.config_blocks import BatchingConfig, RetentionConfig, RetryConfig, SinkConfig
from batch_assets.core.datasets.dataset_config import CsvConfig, DatasetConfig
from batch_assets.dagster.assets import assets_of
from batch_assets.dagster.cancel_job import build_message_batch_cancel_jobs
from batch_assets.dagster.checks import build_message_batch_checks
from batch_assets.dagster.sensor import build_message_batch_sensor
from batch_assets.dagster.specs import default_asset_spec
from batch_assets.scaffold import MessageBatchScaffolder


class _Block(dg.Model, dg.Resolvable):
    """Mends the schema that Dagster derives: it leaves out the descriptions of optional fields, and applies
    the bounds of a number to the text of a Dagster template in its place as well.
    """

    @classmethod
    def model(cls) -> type[BaseModel]:
        derived = super().model()
        for name, field in derived.model_fields.items():
            if field.description is None and name in cls.model_fields:
                field.description = cls.model_fields[name].description
            field.metadata = []
        derived.model_rebuild(force=True)
        return derived


class CsvBlock(CsvConfig, _Block):
    """How CSV and TSV files are written, where it is not in the usual way."""


class DatasetBlock(DatasetConfig, _Block):
    """The input table: one of path, files and sql says where its rows are."""

    csv: CsvBlock | None = Field(default=None, description=DatasetConfig.model_fields["csv"].description)


class BatchingBlock(BatchingConfig, _Block):
    """How requests are cut into batches."""


class RetryBlock(RetryConfig, _Block):
    """How often a request that failed for a passing reason is asked."""


class RetentionBlock(RetentionConfig, _Block):
    """How long copies of requests and responses are kept where they are not needed; by default for ever."""


class SinkBlock(SinkConfig, _Block):
    """A table of a database that gets a copy of complete results: rows are inserted or updated by their key."""


def _described(name: str) -> str | None:
    return PipelineConfig.model_fields[name].description


@dg.scaffold_with(MessageBatchScaffolder)
class MessageBatchComponent(PipelineConfig, dg.Component, _Block):
    """Asks one question of every row of a dataset, through the Anthropic Message Batches API.

    Three assets come of it: `<name>/requests`, `<name>/batches` and `<name>/results`, the job `<name>_cancel`,
    and the sensor that brings the results back. Customize it by overriding a method:

        class OwnedComponent(MessageBatchComponent):
            def get_asset_spec(self, pipeline, stage):
                return super().get_asset_spec(pipeline, stage).replace_attributes(owners=["team:reviews"])
    """

    # PipelineConfig's fields: here are only those that Dagster needs to know more about.
    dataset: DatasetBlock = Field(description=_described("dataset"))
    batching: BatchingBlock = Field(default=BatchingBlock(), description=_described("batching"))
    retry: RetryBlock = Field(default=RetryBlock(), description=_described("retry"))
    retention: RetentionBlock = Field(default=RetentionBlock(), description=_described("retention"))
    sink: SinkBlock | None = Field(default=None, description=_described("sink"))
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
            return super().load(attributes, context)
        except ValidationError as error:
            raise invalid(_pipeline_file(context), error) from None

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """The pipeline's assets with their checks, the job that cancels it, and the sensor that all pipelines of
        the code location share.
        """
        assets = assets_of(self.build_pipeline(context), self.get_asset_spec)
        return dg.Definitions(
            assets=assets,
            asset_checks=build_message_batch_checks(assets),
            jobs=build_message_batch_cancel_jobs(assets),
            sensors=[build_message_batch_sensor()],
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
        )

    def get_asset_spec(self, pipeline: Pipeline, stage: str) -> dg.AssetSpec:
        """How one asset presents itself: override it to change key, group, owners, description and the like.

        Args:
            stage: requests, batches or results.
        """
        return default_asset_spec(pipeline, stage)


def _folder(context: dg.ComponentLoadContext) -> Path:
    return context.path if context.path.is_dir() else context.path.parent


def _pipeline_file(context: dg.ComponentLoadContext) -> str:
    """The pipeline file as the user would open it, from the project's folder."""
    folder, project = _folder(context), context.project_root
    names = ("defs.yaml", "defs.yml", "component.py")
    path = folder / next((name for name in names if (folder / name).is_file()), names[0])
    return str(path.relative_to(project)) if path.is_relative_to(project) else str(path)
