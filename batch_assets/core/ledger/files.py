"""Request files and intents: the transitions between ready and submitted."""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa

from batch_assets.core.io.names import RequestFileId
from batch_assets.core.ledger.connection import Transaction
from batch_assets.core.ledger.moves import move
from batch_assets.core.ledger.outcomes import INTENTS_IN_DOUBT, IntentOutcome
from batch_assets.core.ledger.records import Intent, RequestFile, to_record, to_records
from batch_assets.core.ledger.states import FILES_IN_DOUBT, FileMove, FileState
from batch_assets.core.ledger.tables import batch, intent, lease, request_file, submission, wait

# An intent whose first POST was followed by another may still turn up as a batch for this long.
WATCH_SECONDS = 25 * 3600.0


def lease_name(file_id: str) -> str:
    """The lease under which a request file is sent."""
    return f"file:{file_id}"


def by_id(tx: Transaction, file_id: str) -> RequestFile:
    return to_record(RequestFile, tx.execute(sa.select(request_file).where(request_file.c.id == file_id)).one())


def headers_of(tx: Transaction, file: RequestFile) -> dict[str, str]:
    """The headers of a file's requests that are part of their identity: what it is sent with."""
    if file.headers is not None:
        return dict(json.loads(file.headers))
    of_all = sa.select(submission.c.headers).where(submission.c.id == file.submission_id)
    return dict(json.loads(tx.execute(of_all).scalar_one()))


def replace(tx: Transaction, file: RequestFile, parts: list[dict[str, Any]]) -> list[RequestFile]:
    """Two parts take the place of a file that is too large: whoever waited on it waits on them.

    Args:
        parts: name, requests and bytes of each.

    Returns:
        The parts.
    """
    names = " and ".join(part["name"] for part in parts)
    move(tx, FileMove.CUT, file.id, f"{names} take its place")
    waiting = tx.execute(sa.select(wait.c.submission_id).where(wait.c.file_id == file.id)).scalars().all()
    ids = [f"{file.submission_id}/{part['name']}" for part in parts]
    shared: dict[str, Any] = {
        "submission_id": file.submission_id,
        "pipeline": file.pipeline,
        "partition": file.partition,
        "attempt": file.attempt,
        "headers": file.headers,
    }
    for file_id, part in zip(ids, parts, strict=True):
        why = f"{part['requests']} requests of {file.name}"
        move(tx, FileMove.WRITE, file_id, why, not_before=0.0, **shared, **part)
        for submission_id in waiting:
            tx.execute(sa.insert(wait).values(submission_id=submission_id, file_id=file_id))
    return [by_id(tx, file_id) for file_id in ids]


def in_place_of(tx: Transaction, file_id: str) -> list[str]:
    """The file itself, or the parts that took its place while nobody looked."""
    parts = [str(half) for half in RequestFileId.parse(file_id).halves]
    known = tx.execute(sa.select(request_file.c.id).where(request_file.c.id.in_(parts))).first()
    return [file_id] if known is None else [found for part in parts for found in in_place_of(tx, part)]


def given_up(tx: Transaction, file_id: str, reason: str) -> None:
    """A file of one request that is too large: its refusal is in the response store, as its answer."""
    seq = move(tx, FileMove.GIVE_UP, file_id, reason)
    tx.execute(sa.update(request_file).where(request_file.c.id == file_id).values(collected_seq=seq))


def twin_in_doubt(tx: Transaction, file: RequestFile) -> Intent | None:
    """Another file's open or unresolved intent with the same count: two lost files must never look alike."""
    statement = sa.select(intent).where(
        intent.c.outcome.in_(INTENTS_IN_DOUBT),
        intent.c.requests == file.requests,
        intent.c.file_id != file.id,
    )
    row = tx.execute(statement).first()
    return to_record(Intent, row) if row is not None else None


def intend(tx: Transaction, file: RequestFile, anchor_id: str | None, anchor_created_at: float | None) -> int:
    """Writes down, before the POST, that a file is about to be sent. Returns the intent's number."""
    move(tx, FileMove.INTEND, file.id, "intent written", error=None)
    values = {
        "file_id": file.id,
        "requests": file.requests,
        "bytes": file.bytes,
        "anchor_id": anchor_id,
        "anchor_created_at": anchor_created_at,
        "started_at": tx.now,
        "outcome": IntentOutcome.OPEN,
    }
    inserted = tx.execute(sa.insert(intent).values(values))
    return int(inserted.inserted_primary_key[0])  # type: ignore[index]


def settle(tx: Transaction, intent_id: int, outcome: IntentOutcome, **values: Any) -> None:
    """Records what became of an intent."""
    tx.execute(sa.update(intent).where(intent.c.id == intent_id).values(outcome=outcome, **values))


def in_doubt(tx: Transaction) -> list[tuple[Intent, RequestFile]]:
    """Files that may or may not have reached the API: unresolved, or sent under a lease that ran out."""
    statement = (
        sa.select(intent)
        .join(request_file, request_file.c.id == intent.c.file_id)
        .where(intent.c.outcome.in_(INTENTS_IN_DOUBT), request_file.c.state.in_(FILES_IN_DOUBT))
        .order_by(intent.c.id)
    )
    found = []
    for row in tx.execute(statement).all():
        record = to_record(Intent, row)
        held = sa.select(lease.c.until).where(lease.c.name == lease_name(record.file_id))
        until = tx.execute(held).scalar()
        if until is None or until < tx.now:
            found.append((record, by_id(tx, record.file_id)))
    return found


def watched(tx: Transaction) -> list[tuple[Intent, RequestFile]]:
    """Intents of files that were sent again, while the first may still turn up."""
    statement = sa.select(intent).where(intent.c.outcome == IntentOutcome.RESENT, intent.c.watch_until > tx.now)
    found = to_records(Intent, tx.execute(statement.order_by(intent.c.id)))
    return [(record, by_id(tx, record.file_id)) for record in found]


def claimants(tx: Transaction, requests: int) -> list[tuple[Intent, RequestFile]]:
    """Files of that many requests that were sent, and whose batch is not known for sure: (last intent, file)."""
    unsure = sa.select(batch.c.file_id).where(batch.c.provisional, batch.c.file_id.is_not(None))
    sent = sa.select(intent.c.file_id)
    statement = (
        sa.select(request_file)
        .where(request_file.c.requests == requests, request_file.c.id.in_(sent))
        .where(
            sa.or_(
                request_file.c.state.in_([FileState.READY, *FILES_IN_DOUBT]),
                sa.and_(request_file.c.state == FileState.SUBMITTED, request_file.c.id.in_(unsure)),
            )
        )
        .order_by(request_file.c.id)
    )
    return [(of_file(tx, file.id)[-1], file) for file in to_records(RequestFile, tx.execute(statement))]


def was_sent_again(tx: Transaction, given: Intent) -> bool:
    """Whether another POST of the intent's file followed."""
    later = sa.select(intent.c.id).where(intent.c.file_id == given.file_id, intent.c.id > given.id)
    return tx.execute(later).first() is not None


def of_file(tx: Transaction, file_id: str) -> list[Intent]:
    """A file's intents, oldest first."""
    return to_records(
        Intent, tx.execute(sa.select(intent).where(intent.c.file_id == file_id).order_by(intent.c.id))
    )


def explain(tx: Transaction, file_id: str, text: str) -> None:
    """Says what a file in doubt waits for."""
    unresolved = sa.and_(request_file.c.id == file_id, request_file.c.state == FileState.UNRESOLVED)
    tx.execute(sa.update(request_file).where(unresolved).values(error=text))


def put_off(tx: Transaction, submission_files: list[RequestFile], until: float, why: str) -> None:
    """Lets the files that are ready wait until then at least."""
    for file in submission_files:
        if file.state is FileState.READY and file.not_before < until:
            later = sa.update(request_file).where(request_file.c.id == file.id)
            tx.execute(later.values(not_before=until, error=why))


def stop_ready(tx: Transaction, submission_files: list[RequestFile], reason: str) -> None:
    """Stops the files that are ready: they would be refused for the same reason."""
    for file in submission_files:
        if file.state is FileState.READY:
            move(tx, FileMove.STOP, file.id, reason, error=reason)


def give_back_stopped(tx: Transaction, submission_files: list[RequestFile], reason: str) -> None:
    """Makes stopped files ready again, because a person asked for it."""
    for file in submission_files:
        if file.state is FileState.STOPPED:
            move(tx, FileMove.RESUME, file.id, reason, not_before=0.0)
