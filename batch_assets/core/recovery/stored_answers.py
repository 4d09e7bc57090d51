"""Record the answers that are in the response store and that an older ledger does not know of.

A complete response file shows that its batch was collected, whatever the ledger has. The API may have deleted the
batch since: then it would look lost, and its requests would be sent and paid for again.
"""

from __future__ import annotations

import logging

from batch_assets.core.errors import DamagedFileError
from batch_assets.core.io.layout import response_parts
from batch_assets.core.io.names import ResponseName
from batch_assets.core.ledger import Transaction, batches, files, leases, reservations, restore, spend, submissions
from batch_assets.core.ledger.moves import move
from batch_assets.core.ledger.records import Batch, RequestFile
from batch_assets.core.ledger.states import BATCHES_UNCOLLECTED, FileMove
from batch_assets.core.recovery.found_files import FoundResponses, read_responses
from batch_assets.core.root import Root
from batch_assets.core.store.response_cost import stored_cost
from batch_assets.core.text import count

_log = logging.getLogger("batch_assets")
_STORED = "the ledger is older than the files under the root: its answers are stored"


def record(root: Root, pipeline: str, partition: str | None = None) -> None:
    """Record as collected the uncollected batches of a pipeline whose answers are all stored.

    This looks for one file for each batch of a partition, and lists the files once for all partitions. A batch
    that was matched by its count alone is left out: its file may be another one.

    Args:
        root: The root.
        pipeline: The name of the pipeline.
        partition: Only the batches that the newest submission of this partition waits on; `None` for all.
    """
    with root.ledger.read() as tx:
        uncollected = _uncollected(tx, pipeline, partition)
    matched = [batch for batch in uncollected if batch.file_id is not None and not batch.provisional]
    if not matched:
        return
    if partition is None:
        names = root.storage.versions(pipeline, "responses")
        stored = [batch for batch in matched if str(ResponseName.of_batch(batch.id)) in names]
    else:
        looked_at = root.storage.each(
            lambda batch: root.storage.is_file(*response_parts(pipeline, batch.id)), matched
        )
        stored = [batch for batch, is_there in looked_at if is_there]
    if collected := sum(_record(root, pipeline, batch) for batch in stored):
        _log.warning(
            f"{root.storage.uri(pipeline, 'responses')} has the answers of {count(collected, 'batch', 'batches')} "
            "that the ledger did not record as collected: it is older, or the process was killed that collected "
            "them. They are recorded now, and nothing has to be done."
        )


def _record(root: Root, pipeline: str, batch: Batch) -> bool:
    """Record a batch as collected if its answers are all stored and no other process works on it."""
    responses = _responses(root, pipeline, batch)
    if responses is None:
        return False
    lease = leases.try_take(root.ledger, batches.lease_name(batch.id), pipeline=pipeline)
    if lease is None:
        return False
    with lease:
        # Of a process that was killed right after it had stored them. No later run looks for leftovers of a batch
        # recorded as collected.
        *folder, name = response_parts(pipeline, batch.id)
        root.storage.remove_leftovers(*folder, name=name)
        cost = stored_cost(root.storage, pipeline, batch.id)
        with root.ledger.write() as tx:
            lease.confirm(tx)
            current = batches.by_id(tx, batch.id)
            if current is None or not current.state.uncollected or current.file_id is None:
                return False
            if len(responses.digests) != files.by_id(tx, current.file_id).requests:
                return False
            restore.collect(tx, current, responses.counts, _STORED, ended_at=responses.ended_at)
            if cost is not None:
                spend.record(tx, batch.id, cost.total)
                reservations.settle(tx, batch.id, cost.certain)
            return True


def _uncollected(tx: Transaction, pipeline: str, partition: str | None) -> list[Batch]:
    if partition is None:
        return batches.in_state(tx, *BATCHES_UNCOLLECTED, pipeline=pipeline)
    newest = submissions.newest(tx, pipeline, partition)
    waited_on = batches.waited_on(tx, newest.id) if newest is not None else []
    return [batch for batch in waited_on if batch.state.uncollected]


def _responses(root: Root, pipeline: str, batch: Batch) -> FoundResponses | None:
    """Return the batch's response file; `None` if it is damaged, so that it shows nothing."""
    try:
        return read_responses(root.storage, pipeline, ResponseName.of_batch(batch.id))
    except (DamagedFileError, FileNotFoundError):
        return None


def add(tx: Transaction, file: RequestFile, answers: FoundResponses, reason: str) -> None:
    """Add the collected batch whose answers are stored, and which a file without a receipt has become.

    Args:
        tx: The transaction.
        file: The file, which must be ready.
        answers: The answers to its requests.
        reason: The reason, for the history.
    """
    move(tx, FileMove.ACCEPT, file.id, reason, batch_id=answers.batch_id, error=None)
    restore.add_collected(
        tx, answers.batch_id, file.id, file.pipeline, answers.counts, reason, ended_at=answers.ended_at
    )
    move(tx, FileMove.COLLECT, file.id, reason)
