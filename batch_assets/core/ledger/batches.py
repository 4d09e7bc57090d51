"""Batches: from the id that the API gave them to the answers in the response store."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Unpack

import sqlalchemy as sa

from batch_assets.core.api.objects import BatchObject
from batch_assets.core.ledger import files, reservations, spend
from batch_assets.core.ledger.columns import BatchColumns
from batch_assets.core.ledger.connection import Transaction
from batch_assets.core.ledger.id_chunks import id_chunks
from batch_assets.core.ledger.intents import IntentOutcome
from batch_assets.core.ledger.moves import move
from batch_assets.core.ledger.records import Batch, Submission, to_record, to_records
from batch_assets.core.ledger.states import BatchMove, BatchState, EntityKind, FileMove, FileState
from batch_assets.core.ledger.tables import batch, history, request_file, wait
from batch_assets.core.text import duration

# The reason that the history gives for a user's cancel.
CANCELED_BY_A_PERSON = "canceled by a person"
# The reasons that the history gives for a batch that is certainly ours. Version 0008 looks for them in older
# ledgers, so they must not change.
ACCEPTED = "the API accepted it"
BY_RECEIPT = "its receipt names the batch"
# When a batch is deleted that only a user can delete, and why it is kept if it might belong to someone else.
NEVER = 1e12
NOT_CERTAIN = (
    "the reply to its create was lost, so it was found by its results. Only batches that a reply named are "
    "deleted automatically: delete it in the Console or with the API"
)
# What the API and the history call an open batch that the API is about to end.
CANCELING = "canceling"


def lease_name(batch_id: str) -> str:
    """Return the name of the lease that a process holds while it collects a batch or changes its response file."""
    return f"batch:{batch_id}"


def by_id(tx: Transaction, batch_id: str) -> Batch | None:
    row = tx.execute(sa.select(batch).where(batch.c.id == batch_id)).first()
    return to_record(Batch, row) if row is not None else None


def by_ids(tx: Transaction, ids: Sequence[str]) -> list[Batch]:
    """Return those of some batches that the ledger knows, earliest first."""
    statements = (sa.select(batch).where(batch.c.id.in_(chunk)) for chunk in id_chunks(ids))
    known = [record for statement in statements for record in to_records(Batch, tx.execute(statement))]
    return sorted(known, key=lambda record: (record.created_at is not None, record.created_at or 0.0, record.id))


def known_ids(tx: Transaction) -> set[str]:
    """Return the ids of all batches in the ledger, foreign ones too."""
    return set(tx.execute(sa.select(batch.c.id)).scalars())


def of_file(tx: Transaction, file_id: str) -> list[Batch]:
    """The batches that a request file became: more than one when it had to be sent again."""
    statement = sa.select(batch).where(batch.c.file_id == file_id).order_by(batch.c.created_at, batch.c.id)
    return to_records(Batch, tx.execute(statement))


def in_state(
    tx: Transaction, *states: BatchState, pipeline: str | None = None, created_before: float | None = None
) -> list[Batch]:
    """Return the batches in these states, of one pipeline or of all, earliest first.

    Args:
        tx: The transaction.
        *states: The states.
        pipeline: The name of the pipeline; `None` for all.
        created_before: Only batches that the API created before this time; `None` for all.
    """
    statement = sa.select(batch).where(batch.c.state.in_(states)).order_by(batch.c.created_at, batch.c.id)
    if pipeline is not None:
        statement = statement.where(batch.c.pipeline == pipeline)
    if created_before is not None:
        statement = statement.where(batch.c.created_at < created_before)
    return to_records(Batch, tx.execute(statement))


def ids_in_state(tx: Transaction, ids: Sequence[str], *states: BatchState) -> set[str]:
    """Return those of some batch ids whose batch is in one of the states."""
    chunks = (sa.select(batch.c.id).where(batch.c.id.in_(chunk)) for chunk in id_chunks(ids))
    return {id_ for known in chunks for id_ in tx.execute(known.where(batch.c.state.in_(states))).scalars()}


def waited_on(tx: Transaction, submission_id: str) -> list[Batch]:
    """The batches of the request files that a submission's rows wait on or have waited on, earliest first."""
    statement = (
        sa.select(batch)
        .join(wait, wait.c.file_id == batch.c.file_id)
        .where(wait.c.submission_id == submission_id)
        .order_by(batch.c.created_at, batch.c.id)
    )
    return to_records(Batch, tx.execute(statement))


def accept(
    tx: Transaction,
    file_id: str,
    intent_id: int | None,
    reported: BatchObject,
    *,
    provisional: bool,
    reason: str,
    replied: bool = False,
) -> None:
    """Record that a file became a batch.

    Args:
        tx: The transaction.
        file_id: The id of the request file.
        intent_id: The id of the intent that sent it; `None` if the ledger has lost it.
        reported: The batch as the API shows it.
        provisional: Only the count matches. Otherwise a reply, a receipt or results prove the batch, and any
            provisional match of the batch or of the file is dropped.
        reason: The reason, for the history.
        replied: The reply to its own create named the batch, directly or through a receipt.
    """
    if not provisional:
        give_way(tx, file_id, reported.id)
    file = files.by_id(tx, file_id)
    move(tx, FileMove.ACCEPT, file_id, reason, batch_id=reported.id, error=None)
    if intent_id is not None:
        files.settle(tx, intent_id, IntentOutcome.ADOPTED if provisional else IntentOutcome.ACCEPTED)
    reservations.attach(tx, file, reported.id, intent_id, reported.created_at)
    requests = reported.total or file.requests
    _meet(
        tx,
        reported,
        reason,
        provisional=provisional,
        file_id=file_id,
        pipeline=file.pipeline,
        requests=requests,
        replied=replied or None,
    )


def give_way(tx: Transaction, file_id: str, batch_id: str) -> None:
    """Undo earlier matches of a batch and a file that are now proved to belong together."""
    current = by_id(tx, batch_id)
    if current is not None and current.provisional:
        disprove(tx, batch_id, f"it is proved to be {file_id}")
    else:
        forget_foreign(tx, batch_id, f"it is proved to be {file_id}")
    for rival in of_file(tx, file_id):
        if rival.provisional and rival.state.uncollected:
            disprove(tx, rival.id, f"{file_id} is proved to be {batch_id}")


def forget_foreign(tx: Transaction, batch_id: str, reason: str) -> None:
    """Remove a batch that was recorded as someone else's and is ours, so that it can be recorded again."""
    known = by_id(tx, batch_id)
    if known is not None and known.state is BatchState.FOREIGN:
        _forget(tx, batch_id, reason)


def _forget(tx: Transaction, batch_id: str, reason: str) -> None:
    """Remove a batch about which the ledger was wrong, so that it is examined like any unknown batch."""
    move(tx, BatchMove.DISPROVE, batch_id, reason)
    reservations.detach(tx, batch_id)
    tx.execute(sa.delete(batch).where(batch.c.id == batch_id))


def note_foreign(tx: Transaction, reported: BatchObject, reason: str) -> None:
    """Record a batch that belongs to someone else, so that it is examined only once."""
    _meet(tx, reported, reason, BatchMove.MEET_FOREIGN, file_id=None, pipeline=None)


def note_late(tx: Transaction, reported: BatchObject, file_id: str, reason: str, *, paid_twice: bool) -> None:
    """Record a batch of ours that turned up after its file had been sent again or set aside."""
    file = files.by_id(tx, file_id)
    reservations.attach(tx, file, reported.id, None, reported.created_at)
    _meet(tx, reported, reason, file_id=file_id, pipeline=file.pipeline, paid_twice=paid_twice)


def _meet(
    tx: Transaction,
    reported: BatchObject,
    reason: str,
    step: BatchMove | None = None,
    **values: Unpack[BatchColumns],
) -> None:
    """Add a batch that the ledger did not know."""
    step = step or (BatchMove.MEET_ENDED if reported.ended else BatchMove.MEET)
    row: BatchColumns = {
        "submitted_at": tx.now,
        **next_call(tx, reported, tx.now),
        **reported_columns(reported),
        **values,
    }
    move(tx, step, reported.id, reason, **row)


def next_call(tx: Transaction, reported: BatchObject, next_poll_at: float) -> BatchColumns:
    """Return the columns for when a batch is next polled or, if it has ended, downloaded: now."""
    return {"next_download_at": tx.now} if reported.ended else {"next_poll_at": next_poll_at}


def reported_columns(reported: BatchObject) -> BatchColumns:
    """Return the columns that the API reports."""
    return {
        "processing_status": reported.processing_status,
        "requests": reported.total,
        "counts": json.dumps(reported.request_counts),
        "created_at": reported.created_at,
        "expires_at": reported.expires_at,
        "ended_at": reported.ended_at,
    }


def observe(
    tx: Transaction, before: Batch, reported: BatchObject, next_poll_at: float, *, is_cancel: bool = False
) -> bool:
    """Record what the API reports about an open batch.

    Args:
        tx: The transaction.
        before: The batch as the caller read it from the ledger.
        reported: The batch as the API shows it.
        next_poll_at: When to poll it next, unless it has ended.
        is_cancel: The API reports it in answer to a user's cancel.

    Returns:
        Whether its state or its counts changed.
    """
    current = by_id(tx, before.id)
    if current is None or not current.state.unended:
        return False
    step = BatchMove.END if reported.ended else BatchMove.SEE
    values: BatchColumns = {
        **reported_columns(reported),
        **next_call(tx, reported, next_poll_at),
        "missing_since": None,
    }
    if reported.total == 0:  # the API left the counts out: a batch has one request at least
        values |= {"requests": current.requests, "counts": current.counts}
    history_states = (
        history_state(current.state, current.processing_status),
        history_state(step.after, reported.processing_status),
    )
    if history_states[0] != history_states[1]:
        if current.canceled_at is None and (is_cancel or history_states[1] == CANCELING):
            values["canceled_at"] = tx.now
        reason = CANCELED_BY_A_PERSON if is_cancel else f"the API reports {reported.processing_status}"
        move(tx, step, before.id, reason, history_states=history_states, **values)
    else:
        tx.execute(sa.update(batch).where(batch.c.id == before.id).values(**values))
    changed = (current.processing_status, current.counts) != (reported.processing_status, values["counts"])
    return changed or step.after is not current.state


def canceled_before(tx: Transaction, waiting: Submission, *, of_all: bool = False) -> set[str]:
    """Return ids of batches canceled before a submission was made, of those that it waits on or has waited on.

    With `of_all`, of all batches of its pipeline.
    """
    canceled = sa.select(batch.c.id).where(batch.c.canceled_at <= waiting.created_at)
    if of_all:
        return set(tx.execute(canceled.where(batch.c.pipeline == waiting.pipeline)).scalars())
    waited_on = canceled.join(wait, wait.c.file_id == batch.c.file_id)
    return set(tx.execute(waited_on.where(wait.c.submission_id == waiting.id)).scalars())


def history_state(state: BatchState, processing_status: str) -> str:
    """Return what the history calls an open batch."""
    return CANCELING if state is BatchState.OPEN and processing_status == CANCELING else state


def missing(tx: Transaction, before: Batch, patience: float, next_poll_at: float, *, is_gone: bool) -> bool:
    """Record that the API answered 404 for a batch that it accepted. New batches are often not visible yet.

    Args:
        tx: The transaction.
        before: The batch as the caller read it from the ledger.
        patience: Seconds of 404 after which the batch counts as unreachable.
        next_poll_at: When to poll it next.
        is_gone: The key belongs to the right workspace, so a batch adopted on its count was deleted.

    Returns:
        Whether the batch became unreachable just now.
    """
    current = by_id(tx, before.id)
    if current is None or not current.state.unended:
        return False
    since = current.missing_since if current.missing_since is not None else tx.now
    is_late = tx.now - since >= patience
    if is_late and current.provisional and is_gone:
        disprove(tx, before.id, f"adopted on its count, and 404 for {duration(tx.now - since)}")
        return False
    values: BatchColumns = {"missing_since": since, "next_poll_at": next_poll_at}
    if is_late and current.state is BatchState.OPEN:
        move(tx, BatchMove.LOSE, before.id, f"404 for {duration(tx.now - since)}", **values)
        return True
    tx.execute(sa.update(batch).where(batch.c.id == before.id).values(**values))
    return False


def end_unseen(tx: Transaction, batch_id: str, reason: str) -> None:
    """End an open batch that the API no longer knows. Collecting it finds out that the results have expired."""
    current = by_id(tx, batch_id)
    if current is None or not current.state.unended:
        return
    move(tx, BatchMove.END, batch_id, reason, next_download_at=tx.now, missing_since=None)


def collected(tx: Transaction, batch_id: str, reason: str) -> None:
    """Record that the batch's answers are in the response store."""
    current = by_id(tx, batch_id)
    if current is None or current.state.stored:
        return
    values: BatchColumns = {
        "provisional": False,
        "missing_since": None,
        "failing_since": None,
        "results_refused": False,
        "next_delete_at": tx.now,
    }
    seq = move(tx, BatchMove.COLLECT, batch_id, reason, **values)
    if current.file_id is None:
        return
    spend.stored(tx, batch_id)
    file = files.by_id(tx, current.file_id)
    if file.state is FileState.SUBMITTED and file.batch_id == batch_id:
        move(tx, FileMove.COLLECT, file.id, f"answers of {batch_id} stored", collected_seq=seq, error=None)
    else:
        tx.execute(sa.update(request_file).where(request_file.c.id == file.id).values(collected_seq=seq))


def move_stored(tx: Transaction, step: BatchMove, batch_id: str, reason: str) -> bool:
    """Move a batch whose answers are stored, unless another process has moved it on.

    Returns:
        Whether it is now in the state after the move. It may have been in that state before.
    """
    current = by_id(tx, batch_id)
    if current is None:
        return False
    if current.state in step.before:
        move(tx, step, batch_id, reason)
        return True
    return current.state is step.after


def delete_later(tx: Transaction, batch_id: str, then: float) -> None:
    """Record that a stored batch could not be deleted, and when to try it again."""
    tx.execute(sa.update(batch).where(batch.c.id == batch_id).values(next_delete_at=then))


def collected_before(tx: Transaction, pipeline: str, before: float) -> list[Batch]:
    """Return due batches of a pipeline that were collected before a time and are still at the API.

    The first entry in the history is when a batch was collected. Batches with unknown requests are left out,
    because a rebuilt ledger does not know whether all of their answers are stored.
    """
    of_batch = sa.and_(history.c.kind == EntityKind.BATCH, history.c.entity == batch.c.id)
    is_collection = sa.and_(of_batch, history.c.to_state == BatchState.COLLECTED)
    collected_at = sa.select(sa.func.min(history.c.at)).where(is_collection).scalar_subquery()
    statement = (
        sa.select(batch)
        .where(batch.c.pipeline == pipeline, batch.c.state.in_([BatchState.COLLECTED, BatchState.DELETING]))
        .where(batch.c.next_delete_at <= tx.now, collected_at <= before, batch.c.file_id.is_not(None))
        .order_by(batch.c.created_at, batch.c.id)
    )
    return to_records(Batch, tx.execute(statement))


def reopen(tx: Transaction, batch_id: str, reason: str) -> None:
    """Make a collected batch, whose answers are gone from the response store, due to be collected again."""
    current = by_id(tx, batch_id)
    if current is None or not current.state.stored or current.file_id is None:
        return
    move(tx, BatchMove.REOPEN, batch_id, reason, next_download_at=tx.now, downloads=0)
    file = files.by_id(tx, current.file_id)
    if file.state is FileState.COLLECTED and file.batch_id == batch_id:
        move(tx, FileMove.REOPEN, file.id, reason, error=None)


def disprove(tx: Transaction, batch_id: str, reason: str) -> None:
    """Undo the match of a batch that was adopted on its count alone and is not this file's.

    The batch is unknown again and examined like any other. Its file is in doubt again, with its first anchor.
    """
    current = by_id(tx, batch_id)
    if current is None or current.file_id is None:
        return
    _forget(tx, batch_id, reason)
    # The batch no longer belongs to the file, so the history of the file explains what happened.
    move(tx, FileMove.DISPROVE, current.file_id, f"{batch_id}: {reason}", batch_id=None)
    intents = files.of_file(tx, current.file_id)
    adopted = [intent for intent in intents if intent.outcome is IntentOutcome.ADOPTED]
    files.settle(tx, (adopted or intents)[-1].id, IntentOutcome.UNRESOLVED)
