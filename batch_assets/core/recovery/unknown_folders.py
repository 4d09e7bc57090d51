"""Find submissions under a root that its ledger does not know, with one listing for each pipeline.

The stages compare a pipeline's files with the ledger completely, but only when they run. This is for callers that
look often and change nothing.
"""

from __future__ import annotations

from urllib.parse import unquote

from batch_assets.core.io.storage import PARTITION_FOLDER, Storage
from batch_assets.core.ledger import Ledger, builds, known_files
from batch_assets.core.recovery.found_files import submission_folders
from batch_assets.core.store.manifest import was_finished

# A ledger that was restored has lost the newest submissions. This many folders of each pipeline are compared.
_NEWEST = 20


def unknown_folders(ledger: Ledger, storage: Storage, pipeline: str) -> list[tuple[str, str]]:
    """Return (partition key, submission id) of submissions that the ledger does not know.

    Partitions that the ledger knows are left out, because each would take a listing of its own. No transaction is
    open during a listing.

    Args:
        ledger: The ledger.
        storage: The root.
        pipeline: The name of the pipeline.
    """
    names = storage.names(pipeline, "requests")
    ids = [name for name in names if not name.startswith(PARTITION_FOLDER)][-_NEWEST:]
    partitions = {
        unquote(name.removeprefix(PARTITION_FOLDER)) for name in names if name.startswith(PARTITION_FOLDER)
    }
    if partitions:
        with ledger.read() as tx:
            partitions -= known_files.partitions_of(tx, pipeline)
    folders = [("", id_) for id_ in ids]
    for partition in sorted(partitions)[-_NEWEST:]:
        folders += submission_folders(storage, pipeline, partition)
    with ledger.read() as tx:
        ids = [id_ for _, id_ in folders]
        left_out = known_files.by_ids(tx, ids).keys() | builds.unregistered(tx, ids)
    return [
        (partition, id_)
        for partition, id_ in folders
        if id_ not in left_out and was_finished(storage, pipeline, partition, id_)
    ]
