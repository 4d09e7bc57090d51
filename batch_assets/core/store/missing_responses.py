"""Response files that somebody deleted: the API still has the answers for 29 days, so they are downloaded again.

Left alone their rows would wait for ever, and the next submission would ask and pay for them anew.
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
    """Makes batches due for collection again whose response files are gone.

    Where the request file is gone as well, the answers cannot be matched: that is old data cleared away.

    Returns:
        What was found missing, for people.
    """
    with root.ledger.read() as tx:
        collected = [
            batch for batch in batches.in_state(tx, BatchState.COLLECTED, pipeline=pipeline) if batch.file_id
        ]
    # In this order: what is recorded as collected was published before.
    stored = set(root.storage.names(pipeline, "responses"))
    lost = [batch for batch in collected if str(ResponseName.of_batch(batch.id)) not in stored]
    return [problem for batch in lost if (problem := _reopen(root, pipeline, batch)) is not None]


def _reopen(root: Root, pipeline: str, batch: Batch) -> str | None:
    with root.ledger.read() as tx:
        owner = files.by_id(tx, batch.file_id or "")
    if not root.storage.exists(*StoredRequestFile.of(root.storage, owner).parts):
        return None
    where = root.storage.uri(*response_parts(pipeline, batch.id))
    with root.ledger.write() as tx:
        batches.reopen(tx, batch.id, f"{where} is gone")
    return f"{where} is gone: the answers are downloaded again"
