"""Approve held request files: a user lets them go, whatever they cost."""

from __future__ import annotations

from batch_assets.core.ledger import holds, leases, submissions
from batch_assets.core.ledger.records import RequestFile
from batch_assets.core.root import Root

_REASON = "approved by a user"


def approve(root: Root, pipeline: str, partition: str | None = None) -> list[RequestFile]:
    """Let the held request files of a pipeline go that wait for approval. Repeating it changes nothing.

    That is the consent to send them: the sensor or a run does.

    Args:
        root: The root.
        pipeline: The name of the pipeline.
        partition: The partition key; `None` for all partitions.

    Returns:
        The files that were let go.

    Raises:
        SettingsError: When the settings name no API. Nothing was changed.
        EndpointMismatchError: When the root belongs to another API. Nothing was changed.
    """
    root.catch_up(pipeline, partition, wait=leases.PATIENCE)
    root.check_endpoint()
    with root.ledger.write(pipeline) as tx:
        by_partition = holds.to_approve(tx, pipeline, partition)
        held = {file.id: file for files in by_partition.values() for file in files}
        holds.release(tx, [*held.values()], _REASON)
        submissions.begin_all(tx, pipeline, by_partition)
    return [*held.values()]
