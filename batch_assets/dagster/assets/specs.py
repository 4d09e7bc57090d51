"""How the UI shows a pipeline's assets."""

from __future__ import annotations

from typing import Any

import dagster as dg

from batch_assets.core.errors import SettingsError
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.remedies import Stage
from batch_assets.core.settings import Settings
from batch_assets.dagster import keys
from batch_assets.dagster.metadata import markdown
from batch_assets.dagster.metadata.columns import known_columns
from batch_assets.dagster.metadata.prompt import prompt_as_markdown

_KINDS = {Stage.REQUESTS: {"jsonl"}, Stage.BATCHES: {"anthropic"}, Stage.RESULTS: {"parquet"}}
_DESCRIPTIONS = {
    Stage.REQUESTS: "Reads {dataset} and writes a request for every row without an answer. Sends nothing.",
    Stage.BATCHES: "Submits the request files as Message Batches, each exactly once.",
    Stage.RESULTS: (
        "One row for every row of {dataset}, with the answer. Materialized when every row has its final type, at "
        "`<root>/{name}/results`. The first table can be read there before, with `pending` rows. Later ones wait "
        "in `results_next` until they are complete."
    ),
}


def default_asset_spec(pipeline: Pipeline, stage: str) -> dg.AssetSpec:
    """Return the spec of one stage: key, group, kinds, description and, for results, the known columns.

    Args:
        pipeline: The pipeline.
        stage: `requests`, `batches` or `results`.
    """
    return dg.AssetSpec(
        key=[pipeline.name, stage],
        group_name=pipeline.name,
        kinds=_KINDS[Stage(stage)],
        description=_description(pipeline, Stage(stage)),
        metadata=_table_metadata(pipeline) if stage == Stage.RESULTS else {},
        # The UI shows when the prompt has changed since the last materialization.
        code_version=pipeline.prompt_digest if stage == Stage.REQUESTS else None,
    )


def _description(pipeline: Pipeline, stage: Stage) -> str:
    dataset = markdown.code(pipeline.config.dataset.location)
    text = _DESCRIPTIONS[stage].format(dataset=dataset, name=pipeline.name)
    if stage is not Stage.REQUESTS:
        return text
    if (partitions := pipeline.config.partitions) is not None:
        text += f" Partitions: {markdown.plain(partitions.as_text)}."
    return f"{text}\n\n{prompt_as_markdown(pipeline)}"


def _table_metadata(pipeline: Pipeline) -> dict[str, Any]:
    """Return what is known about the results table before it is first written."""
    metadata: dict[str, Any] = {keys.COLUMN_SCHEMA: known_columns(pipeline)}
    if (uri := _results_uri(pipeline)) is not None:
        metadata[keys.URI] = uri
    sink = pipeline.config.sink
    if sink is not None:
        metadata[keys.TABLE_NAME] = sink.table or pipeline.name
    return metadata


def _results_uri(pipeline: Pipeline) -> str | None:
    """Return the URI of the results, from the environment that the definitions are loaded in.

    Returns:
        None if the environment does not name a root, or one that is refused, such as a URL with a password, or if
        a resource names the root: the resource has no values yet.
    """
    if pipeline.config.resource_key is not None:
        return None
    try:
        root = Settings.from_env(project=pipeline.project).root
    except SettingsError:
        return None
    return f"{root.rstrip('/')}/{pipeline.name}/results"
