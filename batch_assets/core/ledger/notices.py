"""Notices to send, and their state. There is one for each event and target."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import sqlalchemy as sa

from batch_assets.core.ledger.connection import Transaction
from batch_assets.core.ledger.id_chunks import id_chunks
from batch_assets.core.ledger.records import Notice, Submission, to_records
from batch_assets.core.ledger.states import NoticeState
from batch_assets.core.ledger.tables import notice, notice_target, submission

Targets = dict[str, dict[str, float]]
"""By pipeline, the time at which each target was added, by target."""


def targets(tx: Transaction, pipelines: Collection[str]) -> Targets:
    """Return the targets of some pipelines."""
    statement = sa.select(notice_target).where(notice_target.c.pipeline.in_(pipelines))
    by_pipeline: Targets = {name: {} for name in pipelines}
    for row in tx.execute(statement):
        by_pipeline[row.pipeline][row.target] = row.since
    return by_pipeline


def set_targets(tx: Transaction, pipeline: str, wanted: Collection[str]) -> None:
    """Set the pipeline's targets. Notices that wait to be sent to other targets are dropped."""
    current = targets(tx, [pipeline])[pipeline]
    for target in sorted(set(current) - set(wanted)):
        is_target = sa.and_(notice_target.c.pipeline == pipeline, notice_target.c.target == target)
        tx.execute(sa.delete(notice_target).where(is_target))
        is_to_target = sa.and_(notice.c.pipeline == pipeline, notice.c.target == target)
        waiting = sa.update(notice).where(is_to_target, notice.c.state == NoticeState.WAITING)
        tx.execute(waiting.values(state=NoticeState.DROPPED))
    for target in sorted(set(wanted) - set(current)):
        tx.execute(sa.insert(notice_target).values(pipeline=pipeline, target=target, since=tx.now))


def finished(tx: Transaction, pipeline: str, since: float, *, announced_only: bool) -> list[Submission]:
    """Return a pipeline's submissions that became final at a time or later, including replaced ones.

    Args:
        tx: The transaction.
        pipeline: The name of the pipeline.
        since: The time.
        announced_only: Only submissions whose materialization is in Dagster's log.
    """
    statement = sa.select(submission).where(submission.c.pipeline == pipeline, submission.c.final_at >= since)
    if announced_only:
        statement = statement.where(submission.c.announced_at.is_not(None))
    return to_records(Submission, tx.execute(statement.order_by(submission.c.seq)))


def verdicts(tx: Transaction, pipeline: str, since: float) -> dict[str, str]:
    """Return "complete" or "failed" by id of the submissions that became final since a time and have a notice."""
    statement = (
        sa.select(notice.c.submission_id, notice.c.kind)
        .join(submission, submission.c.id == notice.c.submission_id)
        .where(
            notice.c.pipeline == pipeline,
            notice.c.kind.in_(("complete", "failed")),
            submission.c.final_at >= since,
        )
    )
    return {row.submission_id: row.kind for row in tx.execute(statement)}


def ids_since(tx: Transaction, pipelines: Collection[str], since: float) -> set[str]:
    """Return ids of the notices of some pipelines that were written at a time or later."""
    statement = sa.select(notice.c.id).where(notice.c.pipeline.in_(pipelines), notice.c.created_at >= since)
    return set(tx.execute(statement).scalars())


def existing(tx: Transaction, ids: Sequence[str]) -> set[str]:
    """Return those of some ids of notices that are recorded, however long ago."""
    statements = (sa.select(notice.c.id).where(notice.c.id.in_(chunk)) for chunk in id_chunks(ids))
    return {id_ for statement in statements for id_ in tx.execute(statement).scalars()}


def add(tx: Transaction, notices: Iterable[dict[str, Any]]) -> None:
    """Add notices, to be sent at once. Existing ones stay as they are.

    Args:
        tx: The transaction.
        notices: id, pipeline, submission_id, kind, target and content of each notice.
    """
    for values in notices:
        if tx.execute(sa.select(notice.c.id).where(notice.c.id == values["id"])).first() is None:
            row = {"state": NoticeState.WAITING, "created_at": tx.now, "attempts": 0, "next_try_at": tx.now}
            tx.execute(sa.insert(notice).values(**values, **row))


def due(tx: Transaction, pipelines: Collection[str]) -> list[Notice]:
    """Return the notices to send now. The one that has waited longest comes first."""
    statement = (
        sa.select(notice)
        .where(notice.c.pipeline.in_(pipelines))
        .where(notice.c.state == NoticeState.WAITING, notice.c.next_try_at <= tx.now)
        .order_by(notice.c.next_try_at, notice.c.created_at, notice.c.id)
        .limit(100)
    )
    return to_records(Notice, tx.execute(statement))


def claim(tx: Transaction, waiting: Notice, pause: float) -> bool:
    """Claim a notice to send it. No other process claims it during the pause, even if this one dies.

    Args:
        tx: The transaction.
        waiting: The notice.
        pause: Seconds until another process may send it.

    Returns:
        False if another process was faster.
    """
    unchanged = notice.c.state == NoticeState.WAITING, notice.c.attempts == waiting.attempts
    values = {"attempts": waiting.attempts + 1, "next_try_at": tx.now + pause}
    return bool(tx.execute(sa.update(notice).where(notice.c.id == waiting.id, *unchanged).values(values)).rowcount)


def sent(tx: Transaction, notice_id: str) -> None:
    """Record that the target has a notice."""
    values = {"state": NoticeState.SENT, "sent_at": tx.now, "error": None}
    tx.execute(sa.update(notice).where(notice.c.id == notice_id).values(values))


def failed(tx: Transaction, notice_id: str, state: NoticeState, error: str) -> None:
    """Record a failed try.

    Args:
        tx: The transaction.
        notice_id: The id of the notice.
        state: WAITING if it is tried again, REFUSED or GIVEN_UP if not.
        error: The error.
    """
    still_waits = sa.and_(notice.c.id == notice_id, notice.c.state == NoticeState.WAITING)
    tx.execute(sa.update(notice).where(still_waits).values(state=state, error=error))


def troubled(tx: Transaction, pipelines: Collection[str], since: float) -> list[Notice]:
    """Return notices that could not be sent: they wait for another try, or were last tried since a time."""
    tried = sa.and_(notice.c.pipeline.in_(pipelines), notice.c.error.is_not(None))
    waits = notice.c.state == NoticeState.WAITING
    # The time of the last try is not stored. `next_try_at` is at most a day after it.
    over = sa.and_(notice.c.state.in_([NoticeState.REFUSED, NoticeState.GIVEN_UP]), notice.c.next_try_at >= since)
    statement = sa.select(notice).where(tried, sa.or_(waits, over)).order_by(notice.c.created_at, notice.c.id)
    return to_records(Notice, tx.execute(statement.limit(20)))
