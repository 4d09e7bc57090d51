"""Keep tables of a pipeline's former shape out of the folder that users read.

`pd.read_parquet("<root>/<pipeline>/results")` reads everything in that folder. If a pipeline got partitions later,
or lost them, tables of both shapes in it would double the rows.
"""

from __future__ import annotations

from contextlib import suppress

from batch_assets.core.io.layout import former_results_parts, results_parts
from batch_assets.core.io.storage import PARTITION_FOLDER
from batch_assets.core.ledger import submissions
from batch_assets.core.root import Root


def is_former(root: Root, pipeline: str, partition: str) -> bool:
    """Whether a table is of a former shape: the pipeline's newest submission is partitioned and it is not, or the
    other way round.
    """
    with root.ledger.read() as tx:
        in_force = submissions.all_newest(tx, pipeline)
    return bool(in_force) and bool(in_force[-1].partition) != bool(partition)


def move_former(root: Root, pipeline: str, partition: str) -> list[str]:
    """Move the tables of the former shape away.

    Args:
        root: The root.
        pipeline: The name of the pipeline.
        partition: The partition key of the table that was just written; "" without partitions.

    Returns:
        A text about what was moved, if there was anything.
    """
    storage, folder = root.storage, (pipeline, "results")
    if partition:
        names = ["results.parquet"] if storage.exists(*results_parts(pipeline, "")) else []
    else:
        names = [name for name in storage.names(*folder) if name.startswith(PARTITION_FOLDER)]
    target = former_results_parts(pipeline, partitioned=not partition)
    for name in names:
        with suppress(FileNotFoundError):  # another process has moved it
            storage.rename((*folder, name), (*target, name))
    if not names:
        return []
    before, after = ("without", "with") if partition else ("with", "without")
    return [
        f"{pipeline} was run {before} partitions before, and now it is {after}: reading all of "
        f"{storage.uri(*folder)} would double its rows. The former table was moved to {storage.uri(*target)}"
    ]
