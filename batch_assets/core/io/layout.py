"""Where files lie under the root, as the parts of their paths."""

from __future__ import annotations

from batch_assets.core.io.storage import partition_folder

# Before the name of a response file that no batch brought.
_REFUSED = "refused."


def submission_parts(pipeline: str, partition: str, submission_id: str) -> tuple[str, ...]:
    """Where a submission's files lie under the root."""
    return pipeline, "requests", partition_folder(partition), submission_id


def results_parts(pipeline: str, partition: str) -> tuple[str, ...]:
    """Where the table that users read lies under the root."""
    return pipeline, "results", partition_folder(partition), "results.parquet"


def refusal_parts(pipeline: str, file_id: str) -> tuple[str, ...]:
    """Where the refusal of a request file's only request lies under the root, among the responses."""
    return response_parts(pipeline, _REFUSED + file_id.removesuffix(".jsonl").replace("/", "."))


def refused_file(response_name: str) -> str | None:
    """The id of the request file whose refusal a response file holds; None for the answers of a batch."""
    if not response_name.startswith(_REFUSED):
        return None
    submission_id, part = response_name.removeprefix(_REFUSED).removesuffix(".parquet").split(".")
    return f"{submission_id}/{part}.jsonl"


def response_parts(pipeline: str, batch_id: str) -> tuple[str, ...]:
    """Where a batch's responses lie under the root."""
    return pipeline, "responses", f"{batch_id}.parquet"
