"""Read the kinds of columns that the newest submission has recorded."""

from __future__ import annotations

from batch_assets.core.dataset.column_kinds import Kinds
from batch_assets.core.errors import DamagedFileError, MissingFileError
from batch_assets.core.ledger import submissions
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.requests.newest_submission import NewestSubmission
from batch_assets.core.root import Root
from batch_assets.core.store.manifest import Manifest


def recorded_kinds(root: Root, pipeline: Pipeline, partition: str, newest: NewestSubmission | None) -> Kinds:
    """Return the kinds of the dataset's columns by which a partition's rows were read so far.

    If the newest manifest is lost or damaged, those of an earlier submission are the best that is known.

    Args:
        root: The root.
        pipeline: The pipeline.
        partition: The partition key; "" without partitions.
        newest: The partition's newest submission; `None` without one.
    """
    if newest is None:
        return {}
    if newest.manifest is not None:
        return newest.manifest.column_kinds or {}
    with root.ledger.read() as tx:
        registered = submissions.of_pipeline(tx, pipeline.name)
    for submission in reversed(registered):
        if submission.partition != partition or submission.id == newest.record.id:
            continue
        try:
            return Manifest.read(root.storage, pipeline.name, partition, submission.id).column_kinds or {}
        except (MissingFileError, DamagedFileError):
            continue
    return {}
