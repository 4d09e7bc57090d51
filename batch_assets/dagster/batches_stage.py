"""The step behind `<name>/batches`."""

from __future__ import annotations

from typing import Any

import dagster as dg

from batch_assets.core.config import Pipeline
from batch_assets.core.ledger.records import Batch, RequestFile
from batch_assets.core.root import Root
from batch_assets.core.submit import SubmitReport, submit_batches
from batch_assets.dagster import keys, rounds
from batch_assets.dagster.failures import explained
from batch_assets.dagster.partitions import partition_of
from batch_assets.dagster.progress import batches_of, counts_of, paid_twice_of


def materialize_batches(context: dg.AssetExecutionContext, pipeline: Pipeline) -> dg.MaterializeResult[Any]:
    """Submits what is ready. It does not wait for the answers."""
    partition, tags = partition_of(context), context.run.tags
    # `results` closes the round; when this step fails, that one does not come about.
    with explained(), Root.from_env() as root, rounds.closing(root, tags, when_done=False):

        def sending(file: RequestFile) -> None:
            context.log.info(f"sending {file.id}: {file.requests} requests, {file.bytes} bytes")

        unattended = rounds.is_unattended(tags)
        report = submit_batches(root, pipeline.name, partition, unattended=unattended, on_file=sending)
        if report is None:
            raise dg.Failure(
                description=f"Nothing to submit yet: materialize {pipeline.name}/requests first.",
                allow_retries=False,
            )
        for file_id, why in report.waiting.items():
            context.log.warning(f"{file_id} waits: {why}")
        for file_id, why in report.given_up.items():
            context.log.warning(f"the row of {file_id} is errored, its request is too large by itself: {why}")
        batches = batches_of(root, report.submission_id)
        # Counts go into observations, like the sensor's: they change while this materialization stays.
        context.log_event(
            dg.AssetObservation(context.asset_key, partition=partition or None, metadata=counts_of(batches))
        )
        metadata = _metadata(report, batches)
        if report.refused:
            raise dg.Failure(
                description="The API refused request files: "
                + "; ".join(f"{file_id}: {text}" for file_id, text in report.refused.items()),
                metadata=metadata,
                allow_retries=False,
            )
    return dg.MaterializeResult(metadata=metadata)


def _metadata(report: SubmitReport, batches: list[Batch]) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        keys.SUBMISSION_ID: report.submission_id,
        keys.SUBMITTED: len(report.submitted),
        keys.BATCH_IDS: dg.MetadataValue.json([batch.id for batch in batches]),
        keys.ASKED_AGAIN: report.planned_again,
        **paid_twice_of(batches),
    }
    if report.waiting:
        metadata[keys.WAITING] = dg.MetadataValue.json(report.waiting)
    if report.refused:
        metadata[keys.REFUSED] = dg.MetadataValue.json(report.refused)
    return metadata
