"""Recognize partitions of a pipeline's former shape.

A pipeline that gets partitions, loses them, or is divided into other ones has another shape from its next
submission on. The manifest of a submission tells how its rows are divided. Early manifests do not tell, so nothing
counts as divided in another way than they are.
"""

from __future__ import annotations

from typing import cast

from batch_assets.core.errors import DamagedFileError, MissingFileError
from batch_assets.core.ledger import submissions
from batch_assets.core.ledger.records import Submission
from batch_assets.core.root import Root
from batch_assets.core.store.manifest import Division, Manifest

# What a root keeps: the division of submissions by their ids. A manifest does not change.
_DIVISIONS = "divisions of submissions"
_MOST_KEPT = 1_000


def is_former(root: Root, pipeline: str, partition: str) -> bool:
    """Whether a partition is of a former shape, by the pipeline's last submission.

    That one is partitioned and this is not, or the other way round, or it is divided into other partitions.

    Args:
        root: The root.
        pipeline: The name of the pipeline.
        partition: The partition key; "" without partitions.
    """
    with root.ledger.read() as tx:
        last = submissions.last(tx, pipeline)
        own = submissions.newest(tx, pipeline, partition)
    if last is None:
        return False
    if bool(last.partition) != bool(partition):
        return True
    return own is not None and own.id != last.id and differ(division_of(root, own), division_of(root, last))


def division_of(root: Root, submission: Submission | None) -> Division | None:
    """Return how a submission's partition was made; `None` without one, or if its manifest does not tell."""
    if submission is None:
        return None
    known = cast(dict[str, Division | None], root.kept.get(_DIVISIONS, {}))
    if (division := known.get(submission.id)) is not None:
        return division
    try:
        manifest = Manifest.read(root.storage, submission.pipeline, submission.partition, submission.id)
    except (MissingFileError, DamagedFileError):
        return None
    root.kept[_DIVISIONS] = {**(known if len(known) < _MOST_KEPT else {}), submission.id: manifest.division}
    return manifest.division


def differ(one: Division | None, other: Division | None) -> bool:
    """Whether two divisions are known and give a row different keys."""
    return one is not None and other is not None and one.differs_from(other)
