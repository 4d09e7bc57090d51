"""Receipts: evidence beside a request file of the batch that it became. It counts more than the ledger.

A ledger that was restored from a backup, or that failed over to a copy, does not know what was sent since. The
receipts do.
"""

from __future__ import annotations

from batch_assets.core.api.objects import BatchObject
from batch_assets.core.errors import DamagedFileError
from batch_assets.core.ledger import Lease, Transaction, batches, files, restore
from batch_assets.core.ledger.intents import IntentOutcome
from batch_assets.core.ledger.records import Intent, RequestFile
from batch_assets.core.root import Root
from batch_assets.core.store.receipt import Receipt
from batch_assets.core.store.request_files import StoredRequestFile
from batch_assets.core.store.resent import ResentTrace


def write_receipt(root: Root, file: RequestFile, reported: BatchObject, *, replied: bool) -> Receipt:
    """Write the receipt of a file's batch, unless there is one.

    Args:
        root: The root.
        file: The request file.
        reported: Its batch, as the API reports it.
        replied: The reply to its create named the batch.

    Returns:
        The receipt that is beside the file now. It may name another batch.
    """
    api = root.api
    receipt = Receipt.of(
        reported, file.attempt, api.base_url, api.organization, replied=replied, workspace=api.workspace
    )
    return StoredRequestFile.of(root.storage, file).write_receipt(receipt)


def note_other(tx: Transaction, file: RequestFile, receipt: Receipt | None, batch_id: str) -> None:
    """Record the batch that an earlier receipt names, if the file became another batch as well.

    Args:
        tx: The transaction.
        file: The request file.
        receipt: The receipt beside it.
        batch_id: The batch that the ledger has for it.
    """
    if receipt is None or receipt.batch_id == batch_id or batches.by_id(tx, receipt.batch_id) is not None:
        return
    reason = f"an earlier receipt of {file.id} names it: these requests are paid twice"
    batches.note_late(tx, receipt.batch, file.id, reason, paid_twice=True)


def intent_of_receipt(root: Root, file: RequestFile, intent: Intent, lease: Lease) -> Intent:
    """Return the intent that the receipt of a file in doubt belongs to.

    It is a later one if the file was sent again since its ledger was copied: the trace of that names the upload.

    Args:
        root: The root.
        file: The request file.
        intent: Its intent in doubt.
        lease: The lease on the files in doubt.
    """
    try:
        uploads = ResentTrace(StoredRequestFile.of(root.storage, file)).uploads()
    except DamagedFileError:  # it shows no upload
        return intent
    for upload in uploads:
        if upload.started_at == intent.started_at:
            with root.ledger.write() as tx:
                lease.confirm(tx)
                return restore.sent_again(tx, file, intent, upload.watch_until)
    return intent


def adopt(root: Root, file: RequestFile, lease: Lease) -> str | None:
    """Record the batch that the receipt of an unsent file names, so that the file is not sent again.

    Args:
        root: The root.
        file: The request file, ready to be sent as far as the ledger knows.
        lease: The lease on the file.

    Returns:
        The id of the batch; `None` if there is no receipt, or if it is damaged or another file's. Such a receipt
        shows that the file was sent: the file is then in doubt, and its batch is looked for.
    """
    try:
        receipt = StoredRequestFile.of(root.storage, file).receipt()
    except DamagedFileError as error:
        with root.ledger.write() as tx:
            lease.confirm(tx)
            restore.mistrust(tx, file, str(error))
        return None
    if receipt is None:
        return None
    with root.ledger.write() as tx:
        lease.confirm(tx)
        if (problem := restore.contradiction(tx, file.id, receipt.batch_id)) is not None:
            restore.mistrust(tx, file, problem)
            return None
        accept_by_receipt(tx, file.id, receipt)
    return receipt.batch_id


def accept_by_receipt(tx: Transaction, file_id: str, receipt: Receipt) -> None:
    """Record the batch that a receipt names. The file must be ready or in doubt."""
    intent = files.current_intent(tx, file_id)
    batches.accept(
        tx,
        file_id,
        intent.id if intent is not None else None,
        receipt.batch,
        provisional=False,
        replied=receipt.replied is True,
        reason=batches.BY_RECEIPT,
    )


def accept_by_reply(
    root: Root, file: RequestFile, lease: Lease, intent_id: int, accepted: BatchObject, receipt: Receipt | None
) -> None:
    """Record the batch that the reply to a file's create names.

    If the ledger knows the batch already, it may have to be taken from another pipeline's file. Only then the
    writers of all pipelines are locked out.

    Args:
        root: The root.
        file: The request file.
        lease: The lease on the file.
        intent_id: The intent that sent it.
        accepted: The batch.
        receipt: The receipt beside the file; `None` if it could not be written.
    """
    for pipeline in (file.pipeline, None):
        with root.ledger.write(pipeline, endpoint=True) as tx:
            lease.confirm(tx)
            if pipeline is not None and batches.by_id(tx, accepted.id) is not None:
                continue
            files.settle(tx, intent_id, IntentOutcome.ACCEPTED, last_byte_at=tx.now)
            batches.accept(
                tx, file.id, intent_id, accepted, provisional=False, replied=True, reason=batches.ACCEPTED
            )
            note_other(tx, file, receipt, accepted.id)
            return
