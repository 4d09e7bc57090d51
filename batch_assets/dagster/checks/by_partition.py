"""The check that has a status for each partition: a bad one blocks what depends on it, and no other partition.

Dagster turns a result into the event of a partition only in a run of one partition. So the events are made here.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping

import dagster as dg
from dagster._core.definitions.asset_checks.asset_check_evaluation import (
    AssetCheckEvaluationTargetMaterializationData as Target,
)

from batch_assets.dagster.checks.events import evaluation
from batch_assets.dagster.checks.judges import Check
from batch_assets.dagster.pipelines import PipelineAssets

_AT_ONCE = 500


def spec_of(check: Check, results: dg.AssetKey, assets: PipelineAssets) -> dg.AssetCheckSpec:
    """Return the spec of a check of results. A blocking one has the partitions of the pipeline.

    Args:
        check: The check.
        results: The asset of the tables.
        assets: The pipeline.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.PreviewWarning)  # the bound on Dagster's version keeps it
        return dg.AssetCheckSpec(
            check.name,
            asset=results,
            description=check.description,
            blocking=check.blocking,
            partitions_def=assets.partitions if check.blocking else None,
        )


def evaluations(
    instance: dg.DagsterInstance, results: dg.AssetKey, found: Mapping[str, dg.AssetCheckResult], *, blocking: bool
) -> Iterator[dg.AssetCheckEvaluation]:
    """Return the events of a check, one for each partition.

    Args:
        instance: The instance that knows the materializations: Dagster ignores an evaluation of an older one.
        results: The asset that is checked.
        found: By partition key, the result of the check.
        blocking: Whether the check is blocking.
    """
    for keys in _chunks(list(found)):
        targets = _newest(instance, results, keys)
        for key in keys:
            yield evaluation(found[key], blocking=blocking, partition=key, target=targets.get(key))


def _newest(instance: dg.DagsterInstance, results: dg.AssetKey, partitions: list[str]) -> dict[str, Target]:
    """Return the newest materialization of each partition that has one."""
    ids = instance.get_latest_storage_id_by_partition(
        results, dg.DagsterEventType.ASSET_MATERIALIZATION, set(partitions)
    )
    if not ids:
        return {}
    wanted = dg.AssetRecordsFilter(asset_key=results, storage_ids=list(ids.values()))
    records = instance.fetch_materializations(wanted, limit=len(ids)).records
    return {
        record.partition_key: Target(
            storage_id=record.storage_id, run_id=record.run_id, timestamp=record.timestamp
        )
        for record in records
        if record.partition_key is not None
    }


def _chunks(keys: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(keys), _AT_ONCE):
        yield keys[start : start + _AT_ONCE]
