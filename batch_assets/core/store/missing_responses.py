"""Download deleted response files again. The API keeps the answers of a batch for 29 days.

Otherwise their rows would wait without limit, and the next submission would send and pay for their requests again.
"""

from __future__ import annotations

from batch_assets.core.io.layout import response_parts
from batch_assets.core.io.names import ResponseName
from batch_assets.core.ledger import batches, files
from batch_assets.core.ledger.records import Batch
from batch_assets.core.ledger.states import BatchState
from batch_assets.core.root import Root
from batch_assets.core.store.request_files import StoredRequestFile


def reopen_lost(root: Root, pipeline: str) -> list[str]:
    """Schedule batches whose response files are missing for another collection.

    If the request file is missing too, the answers cannot be matched. Then someone has cleared away old data, and
    the batch is left alone.

    Returns:
        A text about each missing file.
    """
    with root.ledger.read() as tx:
        collected = [
            batch for batch in batches.in_state(tx, BatchState.COLLECTED, pipeline=pipeline) if batch.file_id
        ]
    # In this order: a response file is published before its batch is recorded as collected.
    stored = set(root.storage.names(pipeline, "responses"))
    lost = [batch for batch in collected if str(ResponseName.of_batch(batch.id)) not in stored]
    return [problem for batch in lost if (problem := _reopen(root, pipeline, batch)) is not None]


def _reopen(root: Root, pipeline: str, batch: Batch) -> str | None:
    with root.ledger.read() as tx:
        owner = files.by_id(tx, batch.file_id or "")
    if not root.storage.exists(*StoredRequestFile.of(root.storage, owner).parts):
        return None
    uri = root.storage.uri(*response_parts(pipeline, batch.id))
    with root.ledger.write() as tx:
        batches.reopen(tx, batch.id, f"{uri} is gone")
    return f"{uri} is gone: the answers are downloaded again"
