"""A user's run of `batches` over many partitions is the consent to send all of them."""

from __future__ import annotations

from collections.abc import Collection

from batch_assets.core.ledger import submissions
from batch_assets.core.root import Root


def begin_all(root: Root, pipeline: str, partitions: Collection[str]) -> int:
    """Record for all partitions of a run that it has begun, before it sends the first of them.

    If the run is killed on the way, the partitions that it did not come to may be sent unattended too.

    Args:
        root: The root.
        pipeline: The name of the pipeline.
        partitions: The partition keys.

    Returns:
        The number of submissions that had not begun before.

    Raises:
        SettingsError: When the settings name no API. Nothing was recorded.
        EndpointMismatchError: When the root belongs to another API. Nothing was recorded.
        PairingError: When the pipeline has lost its files. Nothing was recorded.
    """
    root.check_endpoint()
    root.check_files(pipeline)
    with root.ledger.write(pipeline) as tx:
        return submissions.begin_all(tx, pipeline, partitions)
