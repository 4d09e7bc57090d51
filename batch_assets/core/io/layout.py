"""Paths of files under the root, as tuples of their parts."""

from __future__ import annotations

from batch_assets.core.io.names import ResponseName
from batch_assets.core.io.storage import partition_folder


def submission_parts(pipeline: str, partition: str, submission_id: str) -> tuple[str, ...]:
    """The folder of a submission's files."""
    return pipeline, "requests", partition_folder(partition), submission_id


def results_parts(pipeline: str, partition: str) -> tuple[str, ...]:
    """The path of the results table, which users read."""
    return pipeline, "results", partition_folder(partition), "results.parquet"


def waiting_parts(pipeline: str, partition: str) -> tuple[str, ...]:
    """The path of the newest table while it waits for answers, and a complete one is where users read."""
    return pipeline, "results_next", partition_folder(partition), "results.parquet"


def former_results_parts(pipeline: str, *, partitioned: bool) -> tuple[str, ...]:
    """The folder of tables from before a pipeline got partitions, or of partitions that it no longer has."""
    return pipeline, "results_with_partitions" if partitioned else "results_without_partitions"


def refusal_parts(pipeline: str, file_id: str) -> tuple[str, ...]:
    """The path of the refusal of a request file's only request, among the responses."""
    return pipeline, "responses", str(ResponseName.of_refusal(file_id))


def calls_parts(pipeline: str, group_id: str = "") -> tuple[str, ...]:
    """The folder of the live calls of a group whose answers are not stored yet; "" for that of all groups."""
    return tuple(filter(None, (pipeline, "calls", group_id)))


SPEND = ("spend.parquet",)
"""The path of the table of what was spent."""
SPEND_BATCHES = ("spend_batches.parquet",)
"""The path of the same amounts by batch, from which that table is made."""
SPEND_TABLES = ("spend_tables.parquet",)
"""The path of what the results tables make of the answers of each batch."""


def response_parts(pipeline: str, batch_id: str) -> tuple[str, ...]:
    """The path of a batch's responses."""
    return pipeline, "responses", str(ResponseName.of_batch(batch_id))
