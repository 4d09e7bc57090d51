"""Keep tables of a pipeline's former shape out of the folder that users read.

`pd.read_parquet("<root>/<pipeline>/results")` reads everything in that folder. If a pipeline got partitions later,
lost them, or is divided into other ones, tables of both shapes in it would double the rows.

Early manifests do not tell how rows are divided, and their tables stay where they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from itertools import islice

from batch_assets.core.io.layout import former_results_parts, results_parts, waiting_parts
from batch_assets.core.io.storage import PARTITION_FOLDER, partition_folder
from batch_assets.core.ledger import Transaction, submissions
from batch_assets.core.ledger.records import Submission
from batch_assets.core.root import Root
from batch_assets.core.store.former_shapes import differ, division_of
from batch_assets.core.store.manifest import Division

# Usually the first one tells. Only early manifests, which do not tell, and lost ones are passed over.
_LOOKED_AT = 10


def move_former(root: Root, pipeline: str, partition: str) -> list[str]:
    """Move the tables of the former shape away.

    Args:
        root: The root.
        pipeline: The name of the pipeline.
        partition: The partition key of the table that was just written; "" without partitions.

    Returns:
        A text about what was moved, if there was anything.
    """
    storage, name = root.storage, f"division of {pipeline}"
    if not partition:
        root.kept.pop(name, None)
        folders = [name for name in storage.names(pipeline, "results") if name.startswith(PARTITION_FOLDER)]
        target = _move(root, pipeline, folders, partitioned=True)
        return [_changed(root, pipeline, target, "with", "without")] if folders else []
    with root.ledger.read() as tx:
        own = submissions.newest(tx, pipeline, partition)
    # A run looks once for all of its partitions: later tables are of this division, or another run moves them.
    former = root.kept.pop(name, None)
    current, listed = storage.both(
        partial(division_of, root, own),
        lambda: _listed(root, pipeline, partition) if former is None else [],
    )
    if current is not None and current == former:
        root.kept[name] = current
        return []
    texts, tables = [], set(listed or storage.names(pipeline, "results"))
    if results_parts(pipeline, "")[-1] in tables:
        target = _move(root, pipeline, ["results.parquet"], partitioned=False)
        texts.append(_changed(root, pipeline, target, "without", "with"))
    if current is not None:
        texts += _move_otherwise_divided(root, pipeline, partition, tables, current)
        root.kept[name] = current
    return texts


def _listed(root: Root, pipeline: str, partition: str) -> list[str]:
    """List the tables, and read beside it what is asked for next: how the oldest other partition is divided."""
    with root.ledger.read() as tx:
        others = (other for other in submissions.each_newest(tx, pipeline) if other.partition != partition)
        oldest = next(others, None)
    names, _ = root.storage.both(
        lambda: root.storage.names(pipeline, "results"), partial(division_of, root, oldest)
    )
    return names


def _move_otherwise_divided(
    root: Root, pipeline: str, partition: str, tables: set[str], current: Division
) -> list[str]:
    """Move the tables of partitions that are divided in another way than the one that was just written.

    They are older than those of the present division. So the oldest one with a table tells whether there are any,
    and it is moved last: if this is interrupted, the next table moves the rest.
    """

    def others(tx: Transaction) -> Iterator[Submission]:
        for other in submissions.each_newest(tx, pipeline):
            if other.partition != partition and partition_folder(other.partition) in tables:
                yield other

    with root.ledger.read() as tx:
        oldest = list(islice(others(tx), _LOOKED_AT))
    before = next(filter(None, (division_of(root, submission) for submission in oldest)), None)
    if before is None or not before.differs_from(current):
        return []
    with root.ledger.read() as tx:
        with_table = list(others(tx))
    former = [other for other in with_table if differ(division_of(root, other), current)]
    folders = [partition_folder(other.partition) for other in reversed(former)]
    target = _move(root, pipeline, folders, partitioned=True)
    return [
        f"{pipeline} was divided into partitions in another way before ({before.as_text}) than now "
        f"({current.as_text}): reading all of {root.storage.uri(pipeline, 'results')} would double its rows. "
        f"Its former tables, {len(folders):,}, were moved to {target}"
    ]


def _move(root: Root, pipeline: str, names: list[str], *, partitioned: bool) -> str:
    """Move tables, or folders with one, and return the URI of the folder where they are now.

    Tables of the former shape that wait for answers are removed: nothing will replace the former table.
    """
    target = former_results_parts(pipeline, partitioned=partitioned)
    for name in names:
        with suppress(FileNotFoundError):  # another process has moved it
            root.storage.rename((pipeline, "results", name), (*target, name))
        root.storage.remove(*waiting_parts(pipeline, "")[:-1], name)
    return root.storage.uri(*target)


def _changed(root: Root, pipeline: str, target: str, before: str, after: str) -> str:
    return (
        f"{pipeline} was run {before} partitions before, and now it is {after}: reading all of "
        f"{root.storage.uri(pipeline, 'results')} would double its rows. The former table was moved to {target}"
    )
