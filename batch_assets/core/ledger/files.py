"""Request files and intents: the transitions between ready and submitted."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import sqlalchemy as sa

from batch_assets.core.api.objects import BatchObject
from batch_assets.core.io.names import RequestFileId
from batch_assets.core.ledger import leases, reservations
from batch_assets.core.ledger.connection import Transaction
from batch_assets.core.ledger.id_chunks import id_chunks
from batch_assets.core.ledger.intents import (
    CLOCK_MARGIN_SECONDS,
    INTENTS_IN_DOUBT,
    INTENTS_REFUSED,
    INTENTS_WATCHED,
    IntentOutcome,
)
from batch_assets.core.ledger.moves import move
from batch_assets.core.ledger.records import Intent, RequestFile, to_record, to_records
from batch_assets.core.ledger.reservations import NOT_COMPUTED, Amounts
from batch_assets.core.ledger.states import (
    FILES_IN_DOUBT,
    FILES_REPLACEABLE,
    EntityKind,
    FileMove,
    FileState,
    HoldReason,
)
from batch_assets.core.ledger.tables import batch, history, intent, lease, request_file, submission

# After a file was sent again, the batch of the first POST may still turn up for this long.
WATCH_SECONDS = 25 * 3600.0


def lease_name(file_id: str) -> str:
    """Return the name of the lease that a process holds while it sends a request file."""
    return f"file:{file_id}"


def by_id(tx: Transaction, file_id: str) -> RequestFile:
    """Return a request file by its id."""
    return to_record(RequestFile, tx.execute(sa.select(request_file).where(request_file.c.id == file_id)).one())


def by_ids(tx: Transaction, file_ids: Collection[str]) -> list[RequestFile]:
    """Return request files by their ids, sorted by these. Those that the ledger does not know are left out."""
    found: list[RequestFile] = []
    for chunk in id_chunks(sorted(set(file_ids))):
        statement = sa.select(request_file).where(request_file.c.id.in_(chunk))
        found += to_records(RequestFile, tx.execute(statement.order_by(request_file.c.id)))
    return found


def known_ids(tx: Transaction, pipeline: str) -> set[str]:
    """Return the ids of all request files of a pipeline."""
    return set(tx.execute(sa.select(request_file.c.id).where(request_file.c.pipeline == pipeline)).scalars())


def changed_since(tx: Transaction, pipeline: str, seq: int) -> list[RequestFile]:
    """Return the request files of a pipeline that the history mentions after a number, also those new since."""
    changed = sa.select(history.c.entity).where(history.c.seq > seq, history.c.kind == EntityKind.FILE)
    of_pipeline = request_file.c.pipeline == pipeline
    statement = sa.select(request_file).where(request_file.c.id.in_(changed), of_pipeline)
    return to_records(RequestFile, tx.execute(statement.order_by(request_file.c.id)))


def states_of(tx: Transaction, submission_ids: Sequence[str]) -> dict[str, dict[str, FileState]]:
    """Return by submission the states of the request files that it wrote, by name."""
    states: dict[str, dict[str, FileState]] = {id_: {} for id_ in submission_ids}
    columns = request_file.c.submission_id, request_file.c.name, request_file.c.state
    for chunk in id_chunks(submission_ids):
        for row in tx.execute(sa.select(*columns).where(request_file.c.submission_id.in_(chunk))):
            states[row.submission_id][row.name] = row.state
    return states


def known(tx: Transaction, file_id: str) -> RequestFile | None:
    """Return a request file by its id; `None` if the ledger does not know it."""
    row = tx.execute(sa.select(request_file).where(request_file.c.id == file_id)).first()
    return to_record(RequestFile, row) if row is not None else None


def headers_of(tx: Transaction, file: RequestFile) -> dict[str, str]:
    """Return the headers that a file is sent with, which are part of its requests' identity."""
    if file.headers is not None:
        return dict(json.loads(file.headers))
    of_submission = sa.select(submission.c.headers).where(submission.c.id == file.submission_id)
    return dict(json.loads(tx.execute(of_submission).scalar_one()))


def in_place_of(tx: Transaction, file_id: str) -> list[str]:
    """Return the id of the file itself, or of the parts that have replaced it."""
    parts = [str(half) for half in RequestFileId.parse(file_id).halves]
    stored = tx.execute(sa.select(request_file.c.id).where(request_file.c.id.in_(parts))).first()
    return [file_id] if stored is None else [smaller for part in parts for smaller in in_place_of(tx, part)]


def answered_among(tx: Transaction, file_ids: Iterable[str]) -> list[RequestFile]:
    """Return those of some request files, or of the parts that have replaced them, whose answers are stored."""
    current = [by_id(tx, part) for file_id in file_ids for part in in_place_of(tx, file_id)]
    return [file for file in current if file.state is FileState.COLLECTED]


def _in_doubt() -> sa.Select[Any]:
    """Select the intents in doubt. Those of files that were set aside or sent since hold nothing up."""
    return (
        sa.select(intent)
        .join(request_file, request_file.c.id == intent.c.file_id)
        .where(intent.c.outcome.in_(INTENTS_IN_DOUBT), request_file.c.state.in_(FILES_IN_DOUBT))
    )


def twins_in_doubt(tx: Transaction, file: RequestFile, since: float | None) -> list[Intent]:
    """Return the intents of other files with the same count that are in doubt.

    Two files with lost replies must never have the same count, unless the times at which their batches were
    created distinguish them.

    Args:
        tx: The transaction.
        file: The file.
        since: Only intents whose batch may have been created since then, by the API's clock; `None` for all.
    """
    statement = _in_doubt().where(intent.c.requests == file.requests, intent.c.file_id != file.id)
    if since is not None:
        latest = intent.c.latest_created_at
        statement = statement.where(sa.or_(latest.is_(None), latest >= since))
    return to_records(Intent, tx.execute(statement.order_by(intent.c.id)))


def intend(
    tx: Transaction,
    file: RequestFile,
    listed: Sequence[BatchObject],
    key_hash: str | None,
    amounts: Amounts = NOT_COMPUTED,
    *,
    bytes_added: int = 0,
) -> int:
    """Record, before the POST, that a file is about to be sent, and what it counts in budgets.

    Args:
        tx: The transaction.
        file: The file.
        listed: The newest batches at the API, newest first. The first is the anchor, and none can be the file's.
        key_hash: A salted hash of the API key; `None` if the key is unknown.
        amounts: What is reserved for it.
        bytes_added: The bytes that its breakpoint adds to the body; 0 without one.

    Returns:
        The id of the intent.
    """
    move(tx, FileMove.INTEND, file.id, "intent written", error=None)
    anchor = listed[0] if listed else None
    # The count of a new batch may not be known yet. Older batches than these are no candidates anyway.
    alike = [
        batch.id
        for batch in listed
        if batch.total in (0, file.requests) and batch.created_at >= listed[0].created_at - CLOCK_MARGIN_SECONDS
    ]
    values = {
        "file_id": file.id,
        "requests": file.requests,
        "bytes": file.bytes + bytes_added,
        "with_breakpoint": True if bytes_added else None,
        "anchor_id": anchor.id if anchor is not None else None,
        "anchor_created_at": anchor.created_at if anchor is not None else None,
        "seen_before": json.dumps(alike) if alike else None,
        "body_complete": False,
        "key_hash": key_hash,
        "started_at": tx.now,
        "outcome": IntentOutcome.OPEN,
    }
    inserted = tx.execute(sa.insert(intent).values(values))
    intent_id = int(inserted.inserted_primary_key[0])  # type: ignore[index]
    reservations.reserve(tx, file, intent_id, amounts)
    return intent_id


def settle(tx: Transaction, intent_id: int, outcome: IntentOutcome, **values: Any) -> None:
    """Record the outcome of an intent. What was reserved for an upload that took nothing is given back.

    It is kept for a refused one that may prove to have been accepted: see `unwatch`.
    """
    tx.execute(sa.update(intent).where(intent.c.id == intent_id).values(outcome=outcome, **values))
    if outcome is IntentOutcome.UNRESOLVED:
        reservations.reopen(tx, intent_id)
    elif outcome in INTENTS_REFUSED and not reservations.is_watched(tx, intent_id):
        reservations.release(tx, intent_id)


def complete_body(tx: Transaction, intent_id: int) -> None:
    """Record, before the last bytes of a body are sent, that the API may accept it."""
    tx.execute(sa.update(intent).where(intent.c.id == intent_id).values(body_complete=True))


def is_incomplete(tx: Transaction, intent_id: int) -> bool:
    """Whether an intent is open and its body was certainly never complete."""
    open_ = sa.select(intent.c.id).where(intent.c.id == intent_id, intent.c.outcome == IntentOutcome.OPEN)
    return tx.execute(open_.where(intent.c.body_complete.is_(False))).first() is not None


def limit_creation(tx: Transaction, intent_id: int, latest_created_at: float) -> None:
    """Record the time after which no batch can be an intent's, by the API's clock, unless it is known."""
    unknown = sa.and_(intent.c.id == intent_id, intent.c.latest_created_at.is_(None))
    tx.execute(sa.update(intent).where(unknown).values(latest_created_at=latest_created_at))


def accept_key(tx: Transaction, key_hash: str | None) -> None:
    """Record that uploads in doubt, or refused unseen, were made with a key of the current one's workspace.

    An anchor that the API does not show would contradict that, so it no longer counts. Its time still does.
    """
    is_unseen = sa.and_(
        intent.c.outcome.in_(INTENTS_REFUSED),
        intent.c.body_complete.is_(True),
        intent.c.latest_created_at.is_(None),
    )
    doubtful = sa.update(intent).where(sa.or_(intent.c.outcome.in_(INTENTS_IN_DOUBT), is_unseen))
    if key_hash is not None:
        doubtful = doubtful.where(sa.or_(intent.c.key_hash.is_(None), intent.c.key_hash != key_hash))
    tx.execute(doubtful.values(key_hash=key_hash, anchor_id=None))


def unproved_keys(tx: Transaction, key_hash: str | None) -> list[Intent]:
    """Return the intents in doubt that were not certainly written with a key.

    An upload of another process may be among them, unless it is unknown which key that process has.

    Args:
        tx: The transaction.
        key_hash: The salted hash of the key; `None` if the key is unknown.
    """
    statement = _in_doubt().order_by(intent.c.id)
    if key_hash is not None:
        statement = statement.where(sa.or_(intent.c.key_hash.is_(None), intent.c.key_hash != key_hash))
    return [
        record
        for record in to_records(Intent, tx.execute(statement))
        if record.key_hash is not None or not leases.is_held(tx, lease_name(record.file_id))
    ]


def to_reconcile(tx: Transaction) -> list[tuple[Intent, RequestFile]]:
    """Return the files in doubt that no process is sending, each with its intent."""
    statement = _in_doubt().order_by(intent.c.id)
    doubtful = []
    for row in tx.execute(statement).all():
        record = to_record(Intent, row)
        lease_end = sa.select(lease.c.until).where(lease.c.name == lease_name(record.file_id))
        until = tx.execute(lease_end).scalar()
        if until is None or until < tx.now:
            doubtful.append((record, by_id(tx, record.file_id)))
    return doubtful


def watch(tx: Transaction, file_id: str) -> None:
    """Look for another batch of a file for a day: the API may show one that repeats it."""
    last = sa.select(sa.func.max(intent.c.id)).where(intent.c.file_id == file_id).scalar_subquery()
    until = tx.now + WATCH_SECONDS
    tx.execute(
        sa.update(intent).where(intent.c.id == last, intent.c.watch_until.is_(None)).values(watch_until=until)
    )


def unwatch(tx: Transaction, intent_id: int) -> None:
    """Look no longer for the batch of a refused intent: the list of batches does not show it."""
    refused = sa.and_(intent.c.id == intent_id, intent.c.outcome.in_(INTENTS_REFUSED))
    if tx.execute(sa.update(intent).where(refused).values(watch_until=None)).rowcount:
        reservations.release(tx, intent_id)


def sent_near(tx: Transaction, requests: int, created_at: float, seconds: float) -> list[RequestFile]:
    """Return files with a number of requests whose batch, by the API's clock, was created about that time."""
    statement = (
        sa.select(request_file)
        .join(batch, batch.c.file_id == request_file.c.id)
        .where(request_file.c.requests == requests, batch.c.provisional.is_(False))
        .where(batch.c.created_at.between(created_at - seconds, created_at + seconds))
        .distinct()
    )
    return to_records(RequestFile, tx.execute(statement))


def watched(tx: Transaction) -> list[tuple[Intent, RequestFile]]:
    """Return intents whose file may have another batch: it was sent again, or the API may show one."""
    statement = sa.select(intent).where(intent.c.outcome.in_(INTENTS_WATCHED), intent.c.watch_until > tx.now)
    records = to_records(Intent, tx.execute(statement.order_by(intent.c.id)))
    return [(record, by_id(tx, record.file_id)) for record in records]


def claimants(tx: Transaction, requests: int) -> list[tuple[list[Intent], RequestFile]]:
    """Return (intents, file) of the sent files with a number of requests whose batch is not certain."""
    unsure = sa.select(batch.c.file_id).where(batch.c.provisional, batch.c.file_id.is_not(None))
    sent = sa.select(intent.c.file_id)
    statement = (
        sa.select(request_file)
        .where(request_file.c.requests == requests, request_file.c.id.in_(sent))
        .where(
            sa.or_(
                request_file.c.state.in_([*FILES_REPLACEABLE, *FILES_IN_DOUBT]),
                sa.and_(request_file.c.state == FileState.SUBMITTED, request_file.c.id.in_(unsure)),
            )
        )
        .order_by(request_file.c.id)
    )
    return [(of_file(tx, file.id), file) for file in to_records(RequestFile, tx.execute(statement))]


def was_sent_again(tx: Transaction, earlier: Intent) -> bool:
    """Whether the intent's file was sent again after it. A rebuilt ledger may have only the batch of that."""
    later = sa.select(intent.c.id).where(intent.c.file_id == earlier.file_id, intent.c.id > earlier.id)
    became = sa.select(batch.c.id).where(batch.c.file_id == earlier.file_id)
    return tx.execute(later).first() is not None or tx.execute(became).first() is not None


def of_file(tx: Transaction, file_id: str) -> list[Intent]:
    """Return a file's intents, oldest first."""
    return to_records(
        Intent, tx.execute(sa.select(intent).where(intent.c.file_id == file_id).order_by(intent.c.id))
    )


def intent_of(tx: Transaction, file_id: str, intent_id: int) -> Intent:
    """Return one of a file's intents."""
    return next(each for each in of_file(tx, file_id) if each.id == intent_id)


def current_intent(tx: Transaction, file_id: str) -> Intent | None:
    """Return the intent that a batch of a file belongs to; `None` if the file has no intent."""
    intents = of_file(tx, file_id)
    return current_of(intents, by_id(tx, file_id)) if intents else None


def current_of(intents: Sequence[Intent], file: RequestFile) -> Intent:
    """Return the intent among all those of a file, of which there is one at least, that a batch of it belongs to.

    It is the one in doubt, or that of the file's batch, or the last one. It need not be the last one: a refused
    upload may prove to have been accepted after the file was sent, and refused, again.
    """
    for each in intents:
        if each.outcome.in_doubt:
            return each
    accepted = [each for each in intents if each.outcome in (IntentOutcome.ACCEPTED, IntentOutcome.ADOPTED)]
    return accepted[-1] if accepted and file.state.sent else intents[-1]


def hold(tx: Transaction, file_id: str, reason: HoldReason, why: str) -> None:
    """Hold a file that is ready: it is not sent before something allows it. `why` is for users."""
    move(tx, FileMove.HOLD, file_id, f"held: {why}", hold=reason, error=why)


def send_again(tx: Transaction, file: RequestFile, reason: str) -> None:
    """Make a file in doubt ready again, or held if something has to allow it to be sent."""
    move(tx, FileMove.SEND_AGAIN, file.id, reason, not_before=0.0)
    if file.hold is not None:
        hold(tx, file.id, file.hold, "whether it was allowed to be sent is lost with the ledger")


def explain(tx: Transaction, file_id: str, text: str) -> None:
    """Record what an unresolved file waits for."""
    unresolved = sa.and_(request_file.c.id == file_id, request_file.c.state == FileState.UNRESOLVED)
    tx.execute(sa.update(request_file).where(unresolved).values(error=text))


def put_off(tx: Transaction, submission_files: list[RequestFile], until: float, why: str) -> None:
    """Make the files that are ready wait at least until a time."""
    for file in submission_files:
        if file.state is FileState.READY and file.not_before < until:
            later = sa.update(request_file).where(request_file.c.id == file.id)
            tx.execute(later.values(not_before=until, error=why))


def stop_ready(tx: Transaction, submission_files: list[RequestFile], reason: str) -> None:
    """Stop the files that are ready: they would be refused for the same reason."""
    for file in submission_files:
        if file.state is FileState.READY:
            move(tx, FileMove.STOP, file.id, reason, error=reason)


def give_back_stopped(tx: Transaction, submission_files: list[RequestFile], reason: str) -> None:
    """Make stopped files ready again, because a user asked for it."""
    for file in submission_files:
        if file.state is FileState.STOPPED:
            move(tx, FileMove.RESUME, file.id, reason, not_before=0.0)
