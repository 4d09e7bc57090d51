"""Which ended batches a run collects, and what becomes of downloads that fail or are incomplete."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from batch_assets.core.ledger import lost_answers
from batch_assets.core.ledger.batches import by_id
from batch_assets.core.ledger.connection import Transaction
from batch_assets.core.ledger.id_chunks import id_chunks
from batch_assets.core.ledger.moves import move
from batch_assets.core.ledger.records import Batch, to_records
from batch_assets.core.ledger.states import BatchMove, BatchState, EntityKind
from batch_assets.core.ledger.tables import batch, history, request_file, submission, wait

# The wait after the first failed download, in seconds.
COLLECT_AGAIN_SECONDS = 60.0
# The longest wait, after downloads kept failing.
COLLECT_LAST_SECONDS = 3600.0
# The longest wait for lost answers, which only a backup brings back. A run that a user starts finds them at once.
LOST_LAST_SECONDS = 86400.0


def collecting_name(pipeline: str) -> str:
    """Return the name of the lease that a user's run marks while it collects, so that the sensor starts no run."""
    return f"collecting:{pipeline}"


def to_collect(
    tx: Transaction, pipeline: str, partitions: Sequence[str] | None = None, *, due_only: bool = False
) -> list[Batch]:
    """Return the ended batches that a run collects, ordered by request file.

    Args:
        tx: The transaction.
        pipeline: The name of the pipeline.
        partitions: Only batches of these partitions, batches that their rows wait on, and batches whose answers
            were stored before and are lost: rows of any partition may need them. `None` for all batches.
        due_only: Leave out batches whose results failed to download until it is time to try them again.
    """
    is_ended = sa.and_(batch.c.state == BatchState.ENDED, batch.c.pipeline == pipeline)
    statement = sa.select(batch).where(is_ended)
    if partitions is not None:
        was_stored = request_file.c.collected_seq.is_not(None)
        statement = statement.join(request_file, request_file.c.id == batch.c.file_id).where(was_stored)
    known = {record.id: record for record in to_records(Batch, tx.execute(statement))}
    for chunk in id_chunks(sorted(_needed_files(tx, pipeline, partitions or ()))):
        # Without the state, the database looks up the files, and not every batch that has ended.
        records = to_records(Batch, tx.execute(sa.select(batch).where(batch.c.file_id.in_(chunk))))
        known |= {record.id: record for record in records if record.state is BatchState.ENDED}
    chosen = (record for record in known.values() if not due_only or record.next_download_at <= tx.now)
    return sorted(chosen, key=lambda record: (record.file_id or "", record.created_at or 0.0, record.id))


def _needed_files(tx: Transaction, pipeline: str, partitions: Sequence[str]) -> set[str]:
    """Return the ids of the request files of some partitions, and of those that their rows wait on.

    Files whose answers were stored before are left out: a history has thousands of them.
    """
    ids: set[str] = set()
    never_stored = request_file.c.collected_seq.is_(None)
    for chunk in id_chunks(partitions):
        of_chunk = sa.and_(submission.c.pipeline == pipeline, submission.c.partition.in_(chunk))
        own = sa.select(request_file.c.id).join(submission, submission.c.id == request_file.c.submission_id)
        waited_on = (
            sa.select(wait.c.file_id)
            .join(submission, submission.c.id == wait.c.submission_id)
            .join(request_file, request_file.c.id == wait.c.file_id)
        )
        for statement in (own, waited_on):
            ids.update(tx.execute(statement.where(of_chunk, never_stored)).scalars())
    return ids


def in_part(tx: Transaction, batch_id: str) -> tuple[int, float]:
    """Count an incomplete download.

    Downloads that failed before the first incomplete one prove nothing about the answers, so their time does not
    count.

    Returns:
        The number of incomplete downloads so far, and the seconds since the first one.
    """
    first = sa.and_(batch.c.id == batch_id, batch.c.downloads == 0)
    tx.execute(sa.update(batch).where(first).values(failing_since=tx.now))
    tx.execute(sa.update(batch).where(batch.c.id == batch_id).values(downloads=batch.c.downloads + 1))
    statement = sa.select(batch.c.downloads, batch.c.failing_since).where(batch.c.id == batch_id)
    row = tx.execute(statement).one()
    return int(row.downloads), max(0.0, tx.now - row.failing_since) if row.failing_since is not None else 0.0


def failed(tx: Transaction, batch_id: str, why: str, *, refused: bool, lost: bool = False) -> None:
    """Record a failed download of an ended batch's results, and when a run may be started for them again.

    The wait is the time since the first failure, so it doubles with each failure. Downloads are repeated without
    limit, because the answers are paid for and the API keeps them for 29 days.

    Args:
        tx: The transaction.
        batch_id: The id of the batch.
        why: The reason, for the history.
        refused: The API refused it: the key may belong to another workspace, or the batch was deleted.
        lost: No one has the answers any more, except a backup. See `lost_answers`.
    """
    current = by_id(tx, batch_id)
    if current is None or current.state is not BatchState.ENDED:
        return
    since = current.failing_since if current.failing_since is not None else tx.now
    longest = LOST_LAST_SECONDS if lost else COLLECT_LAST_SECONDS
    wait = min(max(tx.now - since, COLLECT_AGAIN_SECONDS), longest)
    move(
        tx,
        BatchMove.FAIL,
        batch_id,
        why,
        failing_since=since,
        next_download_at=tx.now + wait,
        results_refused=refused,
    )
    lost_answers.note(tx, current.file_id, why if lost else None)


def why_failed(tx: Transaction, batch_id: str) -> str:
    """Return why the last download of an ended batch's results failed."""
    of_batch = sa.and_(history.c.kind == EntityKind.BATCH, history.c.entity == batch_id)
    statement = (
        sa.select(history.c.reason)
        .where(of_batch, history.c.from_state == BatchState.ENDED)
        .order_by(history.c.seq.desc())
        .limit(1)
    )
    return str(tx.execute(statement).scalar() or "")
