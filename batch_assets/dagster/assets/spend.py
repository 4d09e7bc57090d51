"""The asset `message_batches/spend`: what was spent, as a table of all pipelines of a root."""

from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import dagster as dg
from dagster._check import CheckError

from batch_assets.core.io.layout import SPEND
from batch_assets.core.open_root import open_root
from batch_assets.core.spend.build import SpendReport, build_spend
from batch_assets.core.spend.spend_table import MEANINGS, SPEND_SCHEMA, Labels, SpendTotal
from batch_assets.core.text import count
from batch_assets.dagster import keys
from batch_assets.dagster.failures import explained
from batch_assets.dagster.metadata.spend import spend_metadata
from batch_assets.dagster.pipelines import pipeline_of
from batch_assets.dagster.resource import settings_for

GROUP = "message_batches"
_DESCRIPTION = (
    "What all pipelines of the root have spent: a row for each UTC day, pipeline, partition, model, service tier "
    "and workspace. Each materialization makes it from the answers that are stored."
)


class SpendAsset(dg.AssetsDefinition):
    """An asset that remains one object.

    Dagster copies each component's assets to note in which file they are defined. It would then find several
    assets of one key, one for each pipeline.
    """

    def with_attributes(self, **attributes: Any) -> dg.AssetsDefinition:
        """Return the asset itself if only its metadata would change."""
        return self if attributes.keys() <= {"metadata_by_key"} else super().with_attributes(**attributes)

    def map_asset_specs(self, fn: Callable[[dg.AssetSpec], dg.AssetSpec]) -> dg.AssetsDefinition:
        """Return the asset itself: what the file of one pipeline sets for its assets is not for the others."""
        return self


def build_message_batch_spend(*, resource_key: str | None = None) -> dg.AssetsDefinition:
    """Build the asset with what was spent: `message_batches/spend`, with a key `message_batches/spend_<key>`.

    The same key returns the same object, so that every pipeline of a code location can define the asset. A
    component brings it along. Add it to definitions that use `build_message_batch_assets`.

    Args:
        resource_key: The `resource_key` of the pipelines; None for those that take root and API from the
            environment.
    """
    return _build(resource_key)


@cache
def _build(resource_key: str | None) -> dg.AssetsDefinition:
    name = "spend" if resource_key is None else f"spend_{resource_key}"

    @dg.asset(
        key=[GROUP, name],
        group_name=GROUP,
        kinds={"parquet"},
        description=_DESCRIPTION,
        required_resource_keys=set() if resource_key is None else {resource_key},
        metadata={keys.COLUMN_SCHEMA: _columns()},
    )
    def spend(context: dg.AssetExecutionContext) -> dg.MaterializeResult[Any]:
        with explained(), open_root(settings_for(resource_key, context.resources)) as root:
            report = build_spend(root, _labels(context))
            _log_problems(context, report)
            return dg.MaterializeResult(metadata=spend_metadata(report.rows, root.storage.uri(*SPEND)))

    attributes = spend.get_attributes_dict()
    del attributes["execution_type"]  # Dagster warns of this argument; the default is what it is
    return SpendAsset(**attributes)


def _labels(context: dg.AssetExecutionContext) -> dict[str, Labels]:
    try:
        graph = context.repository_def.asset_graph
    except CheckError:  # a run in the process that made the definitions, as in a test, has no code location
        return {}
    return labels_of(spec for assets in graph.assets_defs for spec in assets.specs)


def labels_of(specs: Iterable[dg.AssetSpec]) -> dict[str, Labels]:
    """Return the cost center of each pipeline, and the tags of its results that are not Dagster's or ours."""
    labels: dict[str, Labels] = {}
    for spec in specs:
        pipeline = pipeline_of(spec)
        if pipeline is not None and spec.tags.get(keys.STAGE) == "results":
            own = {name: value for name, value in spec.tags.items() if not name.startswith(keys.NOT_OF_USERS)}
            labels[pipeline.name] = Labels(pipeline.config.cost_center, own)
    return labels


def _columns() -> dg.TableSchema:
    return dg.TableSchema(
        [dg.TableColumn(field.name, str(field.type), MEANINGS[field.name]) for field in SPEND_SCHEMA]
    )


def _log_problems(context: dg.AssetExecutionContext, report: SpendReport) -> None:
    context.log.info(f"{count(report.read, 'response file')} new or changed; {SpendTotal.of(report.rows).as_text}")
    for problem in report.problems:
        context.log.warning(problem)
