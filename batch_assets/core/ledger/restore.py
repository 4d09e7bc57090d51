"""Rebuild the rows of a lost ledger from the files under the root. The history marks each of them as rebuilt."""

from __future__ import annotations

import json
from typing import Any, Unpack

import sqlalchemy as sa

from batch_assets.core.api.objects import COUNTS, BatchObject
from batch_assets.core.ledger import batches, files, reservations, spend, submissions
from batch_assets.core.ledger.columns import BatchColumns, FileColumns, SubmissionColumns
from batch_assets.core.ledger.connection import Transaction
from batch_assets.core.ledger.endpoint import Endpoint, bind_endpoint
from batch_assets.core.ledger.intents import IntentOutcome
from batch_assets.core.ledger.moves import move
from batch_assets.core.ledger.records import Batch, Intent, RequestFile
from batch_assets.core.ledger.states import BatchMove, BatchState, EntityKind, FileMove, FileState, SubmissionMove
from batch_assets.core.ledger.tables import batch as batch_table
from batch_assets.core.ledger.tables import intent, request_file

_REBUILT = "rebuilt after the ledger was lost: "
_FILE_MOVES = {
    step.after: step
    for step in (
        FileMove.REBUILD_IN_DOUBT,
        FileMove.REBUILD_SUBMITTED,
        FileMove.REBUILD_COLLECTED,
        FileMove.REBUILD_LOST,
        FileMove.REBUILD_UNWANTED,
    )
}


def endpoint(tx: Transaction, known: Endpoint) -> None:
    """Bind the root to its API endpoint again."""
    bind_endpoint(tx, known)
    tx.record(EntityKind.ENDPOINT, known.base_url, None, "bound", f"{_REBUILT}the receipts name it")


def add_submission(
    tx: Transaction, submission_id: str, why: str, *, has_begun: bool, **values: Unpack[SubmissionColumns]
) -> None:
    """Add a submission.

    Args:
        tx: The transaction.
        submission_id: The id of the submission.
        why: The evidence that it existed.
        has_begun: Nothing is left to send for the first time, so it continues unattended.
        **values: The other columns of `submission`.
    """
    columns: SubmissionColumns = {**values, "ask_again": 0}
    move(tx, SubmissionMove.REGISTER, submission_id, _REBUILT + why, **columns)
    submissions.supersede(tx, columns["pipeline"], columns["partition"])
    if has_begun:
        move(tx, SubmissionMove.BEGIN, submission_id, f"{_REBUILT}none of its request files is in doubt")


def add_file(tx: Transaction, file_id: str, state: FileState, why: str, **values: Unpack[FileColumns]) -> None:
    """Add a request file. A file in doubt gets an intent, so that it is reconciled like any file in doubt.

    Args:
        tx: The transaction.
        file_id: The id of the file.
        state: Its state.
        why: The evidence for this state.
        **values: The other columns of `request_file`.
    """
    columns: FileColumns = {**values, "not_before": 0.0}
    seq = move(tx, _FILE_MOVES[state], file_id, _REBUILT + why, **columns)
    if state is FileState.COLLECTED:
        _update_file(tx, file_id, collected_seq=seq)
    if state is FileState.UNRESOLVED:
        _add_intent(tx, file_id, values["requests"], values["bytes"])


def mistrust(tx: Transaction, file: RequestFile, why: str) -> None:
    """Put a file in doubt that is ready as far as an older ledger knows, but may have been sent since."""
    move(tx, FileMove.MISTRUST, file.id, why, error=why)
    _add_intent(tx, file.id, file.requests, file.bytes)


def add_resent(tx: Transaction, file_id: str, started_at: float, **values: Any) -> None:
    """Add an upload of a file that may have been accepted before the file was sent again, unless it is known.

    Args:
        tx: The transaction.
        file_id: The id of the file.
        started_at: When the upload began.
        **values: The other columns of `intent`.
    """
    if any(known.started_at == started_at for known in files.of_file(tx, file_id)):
        return
    values |= {"file_id": file_id, "started_at": started_at, "outcome": IntentOutcome.RESENT}
    inserted = tx.execute(sa.insert(intent).values(values))
    intent_id = int(inserted.inserted_primary_key[0])  # type: ignore[index]
    reservations.reserve(tx, files.by_id(tx, file_id), intent_id, sent_at=started_at)


def sent_again(tx: Transaction, file: RequestFile, earlier: Intent, watch_until: float) -> Intent:
    """Record that a file was sent again after an upload that is in doubt, which an older ledger does not know.

    Args:
        tx: The transaction.
        file: The file.
        earlier: The intent of the upload.
        watch_until: Until when its batch is looked for.

    Returns:
        The intent of the later upload.
    """
    files.settle(tx, earlier.id, IntentOutcome.RESENT, watch_until=watch_until)
    return files.intent_of(tx, file.id, _add_intent(tx, file.id, file.requests, file.bytes))


def contradiction(tx: Transaction, file_id: str, batch_id: str) -> str | None:
    """Return why a receipt cannot be that of a file; `None` if it can.

    Someone may have copied it from another file. Like a damaged one, it shows only that the file was sent.

    Args:
        tx: The transaction.
        file_id: The id of the file.
        batch_id: The batch that the receipt names.
    """
    known = batches.by_id(tx, batch_id)
    if known is None or known.provisional or known.state is BatchState.FOREIGN or known.file_id == file_id:
        return None
    owner = known.file_id or "a file that is missing"
    return f"the receipt of {file_id} names {batch_id}, which is the batch of {owner}"


def sent_with(tx: Transaction, key_hash: str | None) -> None:
    """Record the API key with which the files may have been sent that this transaction has put in doubt.

    Args:
        tx: The transaction.
        key_hash: The salted hash of the key; `None` if it is unknown.
    """
    just_added = sa.update(intent).where(intent.c.started_at == tx.now, intent.c.key_hash.is_(None))
    tx.execute(just_added.where(intent.c.outcome == IntentOutcome.UNRESOLVED).values(key_hash=key_hash))


def _add_intent(tx: Transaction, file_id: str, requests: int, size: int) -> int:
    values = {
        "file_id": file_id,
        "requests": requests,
        "bytes": size,
        "started_at": tx.now,
        "last_byte_at": tx.now,
        "outcome": IntentOutcome.UNRESOLVED,
    }
    inserted = tx.execute(sa.insert(intent).values(values))
    intent_id = int(inserted.inserted_primary_key[0])  # type: ignore[index]
    reservations.reserve(tx, files.by_id(tx, file_id), intent_id)
    return intent_id


def add_open(
    tx: Transaction, file_id: str, pipeline: str, reported: BatchObject, why: str, *, replied: bool
) -> None:
    """Add a batch of which only the creation is known. The next poll finds out the rest."""
    values: BatchColumns = {
        "replied": replied or None,
        "processing_status": reported.processing_status,
        "created_at": reported.created_at,
        "submitted_at": reported.created_at,
        "expires_at": reported.expires_at,
        "next_poll_at": tx.now,
    }
    _add(tx, BatchMove.MEET, reported.id, file_id, pipeline, reported.request_counts, values, why)
    _update_file(tx, file_id, batch_id=reported.id)
    reservations.attach(tx, files.by_id(tx, file_id), reported.id, None, reported.created_at)


def add_collected(
    tx: Transaction,
    batch_id: str,
    file_id: str | None,
    pipeline: str,
    counts: dict[str, int],
    why: str,
    *,
    ended_at: float,
    created_at: float | None = None,
    expires_at: float | None = None,
    paid_twice: bool = False,
    replied: bool = False,
) -> None:
    """Add a batch whose answers are stored.

    Args:
        tx: The transaction.
        batch_id: The id of the batch.
        file_id: The id of the request file that it answers; `None` if that file is missing.
        pipeline: The name of the pipeline.
        counts: Requests by result type.
        why: The evidence that it was collected.
        ended_at: When it ended; 0.0 if unknown.
        created_at: When it was created; `None` if unknown.
        expires_at: When it expires; `None` if unknown.
        paid_twice: The file became another batch as well.
        replied: The reply to its own create named the batch.
    """
    values: BatchColumns = {
        "processing_status": "ended",
        "paid_twice": paid_twice,
        "replied": replied or None,
        "created_at": created_at,
        "submitted_at": created_at,
        "expires_at": expires_at,
        "ended_at": ended_at or None,
    }
    seq = _add(tx, BatchMove.REBUILD_COLLECTED, batch_id, file_id, pipeline, counts, values, why)
    if file_id is not None:
        spend.stored(tx, batch_id)
        file = files.by_id(tx, file_id)
        reservations.attach(tx, file, batch_id, None, created_at or ended_at or None)
    if file_id is not None and not paid_twice:
        _update_file(tx, file_id, batch_id=batch_id, collected_seq=seq)


def collect(tx: Transaction, batch: Batch, counts: dict[str, int], reason: str, *, ended_at: float) -> None:
    """Record that an open batch was collected, which an older ledger does not know.

    Args:
        tx: The transaction.
        batch: The batch.
        counts: Requests by result type.
        reason: The reason, for the history.
        ended_at: When it ended; 0.0 if unknown.
    """
    batches.end_unseen(tx, batch.id, reason)
    batches.collected(tx, batch.id, reason)
    complete_counts = {name: counts.get(name, 0) for name in COUNTS}
    values: BatchColumns = {"counts": json.dumps(complete_counts), "processing_status": "ended"}
    if ended_at:
        values["ended_at"] = ended_at
    tx.execute(sa.update(batch_table).where(batch_table.c.id == batch.id).values(**values))


def _add(
    tx: Transaction,
    step: BatchMove,
    batch_id: str,
    file_id: str | None,
    pipeline: str,
    counts: dict[str, int],
    values: BatchColumns,
    why: str,
) -> int:
    complete_counts = {name: counts.get(name, 0) for name in COUNTS}
    columns: BatchColumns = {
        "file_id": file_id,
        "pipeline": pipeline,
        "requests": sum(complete_counts.values()),
        "counts": json.dumps(complete_counts),
        **values,
    }
    return move(tx, step, batch_id, _REBUILT + why, **columns)


def _update_file(tx: Transaction, file_id: str, **values: Unpack[FileColumns]) -> None:
    tx.execute(sa.update(request_file).where(request_file.c.id == file_id).values(**values))
