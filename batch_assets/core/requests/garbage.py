"""Remove what killed runs of the first stage left unfinished."""

from __future__ import annotations

from urllib.parse import unquote

from batch_assets.core.io.layout import submission_parts
from batch_assets.core.io.names import DIGEST_FILES, REQUEST_FILES
from batch_assets.core.io.storage import PARTITION_FOLDER
from batch_assets.core.ledger import builds, submissions
from batch_assets.core.root import Root
from batch_assets.core.store.manifest import remove_submission, was_finished, was_sent
from batch_assets.core.store.row_hashes import ROW_HASHES


def remove_garbage(root: Root, pipeline: str, partition: str) -> None:
    """Remove files and folders that killed runs left unfinished, or finished but not registered.

    The lease on the partition's requests, or on all of the pipeline, ensures that no process writes them.
    """
    folder = submission_parts(pipeline, partition, "")
    with root.ledger.read() as tx:
        registered = submissions.known_ids(tx, pipeline)
    names = root.storage.names(*folder)
    unregistered: set[str] = set()
    if unknown := [name for name in names if name not in registered and not name.startswith(PARTITION_FOLDER)]:
        with root.ledger.read() as tx:
            unregistered = builds.unregistered(tx, unknown)
    for name in names:
        if name.startswith(PARTITION_FOLDER):
            continue
        if name in registered:  # a run that copied failed requests for a retry was killed
            for pattern in (REQUEST_FILES, DIGEST_FILES, ROW_HASHES):
                root.storage.remove_leftovers(*folder, name, name=pattern)
        elif name in unregistered:
            if not was_sent(root.storage, pipeline, partition, name):
                remove_submission(root.storage, pipeline, partition, name)
                with root.ledger.write(pipeline) as tx:
                    builds.end(tx, name)
        elif not was_finished(root.storage, pipeline, partition, name):
            root.storage.remove(*folder, name)


def partitions_on_disk(root: Root, pipeline: str) -> list[str]:
    """Return the partition keys that have a folder of submissions; "" for those without partitions."""
    names = root.storage.names(pipeline, "requests")
    return [
        "",
        *(unquote(name.removeprefix(PARTITION_FOLDER)) for name in names if name.startswith(PARTITION_FOLDER)),
    ]
