"""The newest submission of a partition and its manifest, which a build reads once."""

from __future__ import annotations

from dataclasses import dataclass

from batch_assets.core.errors import DamagedFileError, MissingFileError
from batch_assets.core.ledger import submissions
from batch_assets.core.ledger.records import Submission
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.root import Root
from batch_assets.core.store.manifest import Manifest


@dataclass(frozen=True)
class NewestSubmission:
    """The submission that is in force while the next one is built.

    Attributes:
        record: The submission in the ledger.
        manifest: Its manifest; `None` if it is lost or damaged.
    """

    record: Submission
    manifest: Manifest | None


def newest_submission(root: Root, pipeline: Pipeline, partition: str) -> NewestSubmission | None:
    """Read the newest submission of a partition; `None` if nothing was ever registered.

    Args:
        root: The root.
        pipeline: The pipeline.
        partition: The partition key; "" without partitions.
    """
    with root.ledger.read() as tx:
        record = submissions.newest(tx, pipeline.name, partition)
    if record is None:
        return None
    try:
        manifest = Manifest.read(root.storage, pipeline.name, partition, record.id)
    except (MissingFileError, DamagedFileError):
        return NewestSubmission(record, None)
    return NewestSubmission(record, manifest)
