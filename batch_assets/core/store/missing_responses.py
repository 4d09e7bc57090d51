"""Download deleted and damaged response files again. The API keeps the answers of a batch for 29 days.

Otherwise the next submission would send and pay for their requests again. If the API no longer has the answers
either, they are lost: their requests count as in flight until a backup is restored or a user gives them up.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from batch_assets.core.errors import PairingError
from batch_assets.core.io.layout import response_parts
from batch_assets.core.io.names import ResponseName
from batch_assets.core.ledger import batches, collected, files, lost_answers
from batch_assets.core.ledger.deadlines import results_end
from batch_assets.core.ledger.records import Batch
from batch_assets.core.ledger.states import BatchState
from batch_assets.core.root import Root
from batch_assets.core.store.pipeline_outcomes import drop_kept, forget_kept
from batch_assets.core.store.request_files import StoredRequestFile
from batch_assets.core.store.response_listing import list_responses
from batch_assets.core.store.responses import DamagedResponsesError

SET_ASIDE = ".damaged"
"""The ending that a damaged response file gets. No reader looks at it."""

T = TypeVar("T")


def reopen_lost(root: Root, pipeline: str) -> list[str]:
    """Schedule batches whose response files are missing for another collection.

    Batches whose missing files a user has accepted are left alone.

    Returns:
        A text about each missing file.
    """
    lost, names = _lost_batches(root, pipeline)
    forget_kept(root, pipeline, names)
    if not lost:
        return []
    others = set(root.storage.names(pipeline, "responses")) - names
    problems: list[str] = []
    is_checked, refusal = False, None
    for batch in lost:
        is_matchable = _has_request_file(root, batch)
        if not is_matchable:
            if refusal is not None or _may_be_missed(root, batch):
                continue
            if not is_checked:
                is_checked, refusal = True, _refusal(root, pipeline)
            if refusal is not None:
                problems.append(refusal)
                continue
        fault = "no file" if str(ResponseName.of_batch(batch.id)) in others else "gone"
        problems.append(_reopen(root, pipeline, batch, fault, is_matchable))
    return problems


def _refusal(root: Root, pipeline: str) -> str | None:
    """Return why `requests` refuses a pipeline, most of whose files are missing; `None` if it does not."""
    try:
        root.check_files(pipeline)
    except PairingError as error:
        return str(error)
    return None


def _lost_batches(root: Root, pipeline: str) -> tuple[list[Batch], frozenset[str]]:
    """Return batches whose answers are recorded as stored and have no response file, and the names of those files.

    The names are listed last: a response file is published before its batch is recorded as collected.
    """
    with root.ledger.read() as tx:
        stored = collected.stored_ids(tx, pipeline)
    names = list_responses(root, pipeline).names
    lost = [id_ for id_ in stored if str(ResponseName.of_batch(id_)) not in names]
    with root.ledger.read() as tx:
        return batches.by_ids(tx, lost), names


def with_readable_responses(root: Root, read: Callable[[], T]) -> tuple[T, list[str]]:
    """Call a function that reads response files. Set aside each damaged one that it meets, and call it again.

    Its batch is collected again, so none of its requests counts as unanswered.

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
    root.storage.rename(parts, kept)
    drop_kept(root, error.pipeline)
    fault = f"damaged, and was renamed to {kept[-1]}"
    return _reopen(root, error.pipeline, batch, fault, _has_request_file(root, batch))


def _has_request_file(root: Root, batch: Batch) -> bool:
    with root.ledger.read() as tx:
        owner = files.by_id(tx, batch.file_id or "")
    return StoredRequestFile.of(root.storage, owner).is_there()


def _may_be_missed(root: Root, batch: Batch) -> bool:
    """Whether a batch needs no answers: its file became another one too, or a user accepted that they are gone."""
    with root.ledger.read() as tx:
        owner = files.by_id(tx, batch.file_id or "")
        return owner.batch_id != batch.id or lost_answers.may_be_missed(tx, owner.id)


def _reopen(root: Root, pipeline: str, batch: Batch, fault: str, is_matchable: bool) -> str:
    """Schedule a batch for another collection, unless its answers are lost. Returns the text about its file.

    Args:
        root: The root.
        pipeline: The name of the pipeline.
        batch: The batch.
        fault: What is wrong with its response file, after "is".
        is_matchable: Whether its request file is there, by which answers are matched.
    """
    uri, end = root.storage.uri(*response_parts(pipeline, batch.id)), results_end(batch)
    with root.ledger.write(pipeline) as tx:
        batches.reopen(tx, batch.id, f"{uri} is {fault}")
        is_over = batch.state is BatchState.DELETED or (end is not None and tx.now >= end)
        if is_over and not is_matchable:
            why = f"{uri} is {fault}, its request file is gone, and the API no longer has the batch"
            problem = lost_answers.text(batch.id, why)
            lost_answers.note(tx, batch.file_id, problem)
            return problem
    if batch.state is BatchState.COLLECTED:
        return f"{uri} is {fault}: the answers are downloaded again"
    return (
        f"{uri} is {fault}, and the API was asked to delete {batch.id}. Restore the file from a backup: otherwise "
        "its requests are errored with results_archived 29 days after the creation of the batch"
    )
