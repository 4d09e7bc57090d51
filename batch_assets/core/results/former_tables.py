"""Keep tables of a pipeline's former shape out of the folder that users read.

`pd.read_parquet("<root>/<pipeline>/results")` reads everything in that folder. If a pipeline got partitions later,
lost them, or is divided into other ones, tables of both shapes in it would double the rows.

The manifest of the submission in force tells how the rows of a partition's table are divided. Early manifests do
not tell, and their tables stay where they are.
"""

from __future__ import annotations

from contextlib import suppress
from itertools import islice

from batch_assets.core.errors import DamagedFileError, MissingFileError
from batch_assets.core.io.layout import former_results_parts, results_parts
from batch_assets.core.io.storage import PARTITION_FOLDER, partition_folder
from batch_assets.core.ledger import submissions
from batch_assets.core.ledger.records import Submission
from batch_assets.core.root import Root
from batch_assets.core.store.manifest import Division, Manifest

# Usually the first one tells. Only early manifests, which do not tell, and lost ones are passed over.
_LOOKED_AT = 10


def is_former(root: Root, pipeline: str, partition: str) -> bool:
    """Whether a table is of a former shape, by the pipeline's newest submission: that is partitioned and the table
    is not, or the other way round, or it is divided into other partitions.
    """
    with root.ledger.read() as tx:
        in_force = submissions.all_newest(tx, pipeline)
    if not in_force:
        return False
    if bool(in_force[-1].partition) != bool(partition):
        return True
    own = [submission for submission in in_force[:-1] if submission.partition == partition]
    return bool(own) and _differ(_division(root, own[0]), _division(root, in_force[-1]))


def move_former(root: Root, pipeline: str, partition: str) -> list[str]:
    """Move the tables of the former shape away.

    Args:
        root: The root.
        pipeline: The name of the pipeline.
        partition: The partition key of the table that was just written; "" without partitions.

    Returns:
        A text about what was moved, if there was anything.
    """
    storage = root.storage
    if not partition:
        folders = [name for name in storage.names(pipeline, "results") if name.startswith(PARTITION_FOLDER)]
        target = _move(root, pipeline, folders, partitioned=True)
        return [_changed(root, pipeline, target, "with", "without")] if folders else []
    texts = []
    if storage.exists(*results_parts(pipeline, "")):
        target = _move(root, pipeline, ["results.parquet"], partitioned=False)
        texts.append(_changed(root, pipeline, target, "without", "with"))
    return texts + _move_otherwise_divided(root, pipeline, partition)


def _move_otherwise_divided(root: Root, pipeline: str, partition: str) -> list[str]:
    """Move the tables of partitions that are divided in another way than the one that was just written.

    They are older than those of the present division. So the oldest one with a table tells whether there are any,
    and it is moved last: if this is interrupted, the next table moves the rest.
    """
    with root.ledger.read() as tx:
        in_force = submissions.all_newest(tx, pipeline)
    tables = set(root.storage.names(pipeline, "results"))
    others = [one for one in in_force if partition_folder(one.partition) in tables and one.partition != partition]
    current = next((_division(root, one) for one in in_force if one.partition == partition), None)
    before = next(filter(None, (_division(root, one) for one in islice(others, _LOOKED_AT))), None)
    if before is None or current is None or not _differ(before, current):
        return []
    former = [one for one in others if _differ(_division(root, one), current)]
    folders = [partition_folder(one.partition) for one in reversed(former)]
    target = _move(root, pipeline, folders, partitioned=True)
    return [
        f"{pipeline} was divided into partitions in another way before ({before.as_text}) than now "
        f"({current.as_text}): reading all of {root.storage.uri(pipeline, 'results')} would double its rows. "
        f"Its former tables, {len(folders):,}, were moved to {target}"
    ]


def _move(root: Root, pipeline: str, names: list[str], *, partitioned: bool) -> str:
    """Move tables, or folders with one, and return the URI of the folder where they are now."""
    target = former_results_parts(pipeline, partitioned=partitioned)
    for name in names:
        with suppress(FileNotFoundError):  # another process has moved it
            root.storage.rename((pipeline, "results", name), (*target, name))
    return root.storage.uri(*target)


def _changed(root: Root, pipeline: str, target: str, before: str, after: str) -> str:
    return (
        f"{pipeline} was run {before} partitions before, and now it is {after}: reading all of "
        f"{root.storage.uri(pipeline, 'results')} would double its rows. The former table was moved to {target}"
    )


def _division(root: Root, submission: Submission) -> Division | None:
    """Return how a submission's partition was made; `None` if its manifest does not tell."""
    try:
        manifest = Manifest.read(root.storage, submission.pipeline, submission.partition, submission.id)
    except (MissingFileError, DamagedFileError):
        return None
    return manifest.division


def _differ(one: Division | None, other: Division | None) -> bool:
    return one is not None and other is not None and one.differs_from(other)
