"""How a pipeline's assets present themselves in the UI."""

from __future__ import annotations

import dagster as dg
import yaml

from batch_assets.core.columns import AFTER_OUTPUT, BEFORE_OUTPUT
from batch_assets.core.config import Pipeline
from batch_assets.dagster import keys

_KINDS = {"requests": {"jsonl"}, "batches": {"anthropic"}, "results": {"parquet"}}
_DESCRIPTIONS = {
    "requests": "Reads `{dataset}` and writes one request for every row that is not answered yet. Sends nothing.",
    "batches": "Submits the request files as Message Batches, each exactly once.",
    "results": (
        "One row for every row of `{dataset}`, with the answer. Materialized when every row has its final "
        "type; until then the table at `<root>/{name}/results` is refreshed as batches come in."
    ),
}


def default_asset_spec(pipeline: Pipeline, stage: str) -> dg.AssetSpec:
    """The spec of one stage: key, group, kinds, description, and the columns of results where known."""
    return dg.AssetSpec(
        key=[pipeline.name, stage],
        group_name=pipeline.name,
        kinds=_KINDS[stage],
        description=_description(pipeline, stage),
        metadata={keys.COLUMN_SCHEMA: known_columns(pipeline)} if stage == "results" else {},
    )


def _description(pipeline: Pipeline, stage: str) -> str:
    text = _DESCRIPTIONS[stage].format(dataset=pipeline.config.dataset.place, name=pipeline.name)
    if stage != "requests":
        return text
    params = yaml.dump(pipeline.config.params, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
    return f"{text}\n\nDeclared in `{pipeline.source}`:\n\n```yaml\n{params}```"


class _Dumper(yaml.SafeDumper):
    """Writes text of several lines as a block, the way people do."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def known_columns(pipeline: Pipeline) -> dg.TableSchema:
    """The columns of results as far as they are known without the dataset."""
    dataset = pipeline.config.dataset
    carried = dataset.columns or []
    names = list(carried.values()) if isinstance(carried, dict) else carried
    key = dataset.key or dataset.default_key
    columns = [
        dg.TableColumn(name, dataset.types.get(name, "from the dataset"))
        for name in (key, *(name for name in names if name != key))
    ]
    columns += [dg.TableColumn(field.name, str(field.type)) for field in BEFORE_OUTPUT]
    described = pipeline.output.descriptions if pipeline.output else {}
    columns += [
        dg.TableColumn(field.name, str(field.type), description=described.get(field.name))
        for field in pipeline.answers.fields
    ]
    columns += [dg.TableColumn(field.name, str(field.type)) for field in AFTER_OUTPUT]
    return dg.TableSchema(columns)
