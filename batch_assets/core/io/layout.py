"""Where files lie under the root, as the parts of their paths."""

from __future__ import annotations

from batch_assets.core.io.names import ResponseName
from batch_assets.core.io.storage import partition_folder


def submission_parts(pipeline: str, partition: str, submission_id: str) -> tuple[str, ...]:
    """Where a submission's files lie under the root."""
    return pipeline, "requests", partition_folder(partition), submission_id


def results_parts(pipeline: str, partition: str) -> tuple[str, ...]:
    """Where the table that users read lies under the root."""
    return pipeline, "results", partition_folder(partition), "results.parquet"


def refusal_parts(pipeline: str, file_id: str) -> tuple[str, ...]:
    """Where the refusal of a request file's only request lies under the root, among the responses."""
    return pipeline, "responses", str(ResponseName.of_refusal(file_id))


def response_parts(pipeline: str, batch_id: str) -> tuple[str, ...]:
    """Where a batch's responses lie under the root."""
    return pipeline, "responses", str(ResponseName.of_batch(batch_id))
