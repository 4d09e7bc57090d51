"""Download deleted and damaged response files again. The API keeps the answers of a batch for 29 days.

Otherwise their rows would wait without limit, and the next submission would send and pay for their requests again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from batch_assets.core.io.layout import response_parts
from batch_assets.core.io.names import ResponseName
from batch_assets.core.ledger import batches, files
from batch_assets.core.ledger.records import Batch
from batch_assets.core.ledger.states import BATCHES_STORED, BatchState
from batch_assets.core.root import Root
from batch_assets.core.store.request_files import StoredRequestFile
from batch_assets.core.store.responses import DamagedResponsesError

SET_ASIDE = ".damaged"
"""The ending that a damaged response file gets. No reader looks at it."""

T = TypeVar("T")


def reopen_lost(root: Root, pipeline: str) -> list[str]:
    """Schedule batches whose response files are missing for another collection.

    If the request file is missing too, the answers cannot be matched. Then someone has cleared away old data, and
    the batch is left alone.

    Returns:
        A text about each missing file.
    """
    with root.ledger.read() as tx:
        stored = [batch for batch in batches.in_state(tx, *BATCHES_STORED, pipeline=pipeline) if batch.file_id]
    # In this order: a response file is published before its batch is recorded as collected.
    names = set(root.storage.names(pipeline, "responses"))
    lost = [batch for batch in stored if str(ResponseName.of_batch(batch.id)) not in names]
    return [problem for batch in lost if (problem := _reopen(root, pipeline, batch, "gone")) is not None]


def with_readable_responses(root: Root, read: Callable[[], T]) -> tuple[T, list[str]]:
    """Call a function that reads response files. Set aside each damaged one that it meets, and call it again.

    Its batch is collected again, so none of its requests counts as unanswered. If the request file is gone, they
    count as in flight until one of the two files is restored.

    Args:
        root: The root.
        read: The function. It may be called several times.

    Returns:
        What the function returns, and a text about each file that was set aside.

    Raises:
        DamagedResponsesError: When the ledger does not know whose answers a damaged file has.
    """
    problems: list[str] = []
    while True:
        try:
            return read(), problems
        except DamagedResponsesError as error:
            problems.append(_set_aside(root, error))


def _set_aside(root: Root, error: DamagedResponsesError) -> str:
    name = error.name
    with root.ledger.read() as tx:
        batch = batches.by_id(tx, name.batch_id) if name.batch_id is not None else None
    if batch is None or batch.file_id is None:
        raise error
    parts = response_parts(error.pipeline, batch.id)
    kept = (*parts[:-1], parts[-1] + SET_ASIDE)
    uri, what = root.storage.uri(*parts), f"damaged, and was renamed to {kept[-1]}"
    if not _has_request_file(root, batch):
        # The ledger is first: a response file that is merely gone would count as cleared away.
        with root.ledger.write() as tx:
            batches.reopen(tx, batch.id, f"{uri} is {what}")
        root.storage.rename(parts, kept)
        return (
            f"{uri} is {what}. Its request file is gone, so its answers cannot be downloaded again. Restore one "
            "of the two from a backup: until then its requests count as in flight, and nothing is sent for them"
        )
    root.storage.rename(parts, kept)
    again = _reopen(root, error.pipeline, batch, what)
    return again or f"{uri} is {what}: the answers are downloaded again"


def _has_request_file(root: Root, batch: Batch) -> bool:
    with root.ledger.read() as tx:
        owner = files.by_id(tx, batch.file_id or "")
    return root.storage.exists(*StoredRequestFile.of(root.storage, owner).parts)


def _reopen(root: Root, pipeline: str, batch: Batch, what: str) -> str | None:
    if not _has_request_file(root, batch):
        return None
    uri = root.storage.uri(*response_parts(pipeline, batch.id))
    with root.ledger.write() as tx:
        batches.reopen(tx, batch.id, f"{uri} is {what}")
    if batch.state is not BatchState.COLLECTED:
        return (
            f"{uri} is {what}, and the API was asked to delete {batch.id}. Restore the file from a backup: "
            "otherwise its requests are errored with results_archived 29 days after the creation of the batch"
        )
    return f"{uri} is {what}: the answers are downloaded again"
