"""A broken pipeline file as Dagster definitions: assets and a check that fail with what is wrong with the file."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import dagster as dg

from batch_assets.core.pipeline.faults import Fault
from batch_assets.core.remedies import Stage
from batch_assets.dagster import keys
from batch_assets.dagster.assets.spend import build_message_batch_spend
from batch_assets.dagster.broken.known import Known
from batch_assets.dagster.broken_file import OF_NO_PIPELINE, PIPELINE_FILE_CHECK, BrokenFile, check_result
from batch_assets.dagster.checks.lasting import LastingCheck
from batch_assets.dagster.sensors.results_sensor import build_message_batch_sensor

_WHILE_BROKEN = (
    "While it is broken, nothing is sent. Batches that run go on, and their answers are collected and stored. "
    "`batch-assets check` prints what is wrong with all files."
)


def asset_keys(name: str, *, is_pipeline: bool) -> dict[Stage, dg.AssetKey]:
    """Return the keys of the assets of a broken file, by stage. One that is not of a pipeline has a single one.

    Its last part keeps it apart from an asset of a right file that has the name of this one.
    """
    if not is_pipeline:
        return {Stage.REQUESTS: dg.AssetKey([name, OF_NO_PIPELINE])}
    return {stage: dg.AssetKey([name, stage.value]) for stage in Stage}


def broken_definitions(
    known: Known, name: str, source: str, faults: Iterable[Fault]
) -> tuple[BrokenFile, dg.Definitions]:
    """Build what a broken file loads as.

    Args:
        known: What is known of it.
        name: The name under which its assets are shown.
        source: The file, as the user would open it.
        faults: What is wrong with it.
    """
    of_stages = asset_keys(name, is_pipeline=known.is_pipeline)
    broken = BrokenFile(
        name,
        source,
        tuple(faults),
        known.resource_key,
        of_stages.get(Stage.RESULTS, of_stages[Stage.REQUESTS]),
    )
    shared = dg.Definitions()
    if known.is_pipeline:  # of all pipelines, so that the sensor is there even if all files are broken
        shared = dg.Definitions(
            assets=[build_message_batch_spend(resource_key=known.resource_key)],
            sensors=[build_message_batch_sensor(resource_key=known.resource_key)],
        )
    return broken, dg.Definitions.merge(definitions_of(broken, known, of_stages), shared)


def definitions_of(broken: BrokenFile, known: Known, of_stages: Mapping[Stage, dg.AssetKey]) -> dg.Definitions:
    """Build the assets that fail, and their check.

    Args:
        broken: The file, or what is wrong in place of one.
        known: What is known of it.
        of_stages: The keys of the assets.
    """
    return dg.Definitions(assets=[_assets(broken, known, of_stages)], asset_checks=[_check(broken)])


def _assets(broken: BrokenFile, known: Known, of_stages: Mapping[Stage, dg.AssetKey]) -> dg.AssetsDefinition:
    specs, deps = [], list[dg.AssetKey]()
    description = f"**The file is broken:**\n\n{broken.listed}\n\n{_WHILE_BROKEN}"
    for stage, key in of_stages.items():
        specs.append(
            dg.AssetSpec(
                key,
                deps=deps,
                description=description,
                metadata={keys.PIPELINE: broken},
                group_name=broken.name,
                tags={keys.STAGE: stage.value} if known.is_pipeline else {},
                partitions_def=known.partitions,
            )
        )
        deps = [key]

    @dg.multi_asset(specs=specs, name=f"{broken.name}__broken", can_subset=True)
    def fail() -> Iterator[dg.MaterializeResult[Any]]:
        yield from _failing(broken)

    return fail


def _failing(broken: BrokenFile) -> Iterator[dg.MaterializeResult[Any]]:
    raise dg.Failure(description=str(broken), allow_retries=False)


def _check(broken: BrokenFile) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=broken.checked, name=PIPELINE_FILE_CHECK, description="The pipeline file loads without an error."
    )
    def pipeline_file_is_valid() -> dg.AssetCheckResult:
        return check_result(broken)

    return LastingCheck.like(pipeline_file_is_valid)
