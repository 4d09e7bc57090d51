"""Read the kinds of columns that the newest submission has recorded."""

from __future__ import annotations

from collections.abc import Iterator

from batch_assets.core.dataset.column_kinds import Kinds
from batch_assets.core.errors import DamagedFileError, MissingFileError
from batch_assets.core.ledger import submissions
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.root import Root
from batch_assets.core.store.manifest import Manifest


def recorded_kinds(root: Root, pipeline: Pipeline, partition: str) -> Kinds:
    """Return the kinds of the dataset's columns by which a partition's rows were read so far.

    If the newest manifest is lost or damaged, those of an earlier submission are the best that is known.

    Args:
        root: The root.
        pipeline: The pipeline.
        partition: The partition key; "" without partitions.
    """
    for submission in _newest_first(root, pipeline, partition):
        try:
            return Manifest.read(root.storage, pipeline.name, partition, submission).column_kinds or {}
        except (MissingFileError, DamagedFileError):
            continue
    return {}


def _newest_first(root: Root, pipeline: Pipeline, partition: str) -> Iterator[str]:
    """The ids of a partition's submissions. All of them are looked up only if the newest does not do."""
    with root.ledger.read() as tx:
        newest = submissions.newest(tx, pipeline.name, partition)
    if newest is not None:
        yield newest.id
        with root.ledger.read() as tx:
            all_ = submissions.of_pipeline(tx, pipeline.name)
        yield from (one.id for one in reversed(all_) if one.partition == partition and one.id != newest.id)
