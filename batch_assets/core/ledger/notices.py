"""Notices: what somebody is to be told, and how far that is. One for each event and target."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import sqlalchemy as sa

from batch_assets.core.ledger.connection import Transaction
from batch_assets.core.ledger.outcomes import NoticeState
from batch_assets.core.ledger.records import Notice, Submission, to_records
from batch_assets.core.ledger.tables import notice, notice_target, submission

Targets = dict[str, dict[str, float]]
"""Since when each target is known, by pipeline."""


def targets(tx: Transaction, pipelines: Collection[str]) -> Targets:
    """The targets of some pipelines."""
    statement = sa.select(notice_target).where(notice_target.c.pipeline.in_(pipelines))
    found: Targets = {name: {} for name in pipelines}
    for row in tx.execute(statement):
        found[row.pipeline][row.target] = row.since
    return found


def set_targets(tx: Transaction, pipeline: str, wanted: Collection[str]) -> None:
    """Makes these the pipeline's targets. What waits to be told to others is dropped."""
    known = targets(tx, [pipeline])[pipeline]
    for target in sorted(set(known) - set(wanted)):
        this = sa.and_(notice_target.c.pipeline == pipeline, notice_target.c.target == target)
        tx.execute(sa.delete(notice_target).where(this))
        its = sa.and_(notice.c.pipeline == pipeline, notice.c.target == target)
        waiting = sa.update(notice).where(its, notice.c.state == NoticeState.WAITING)
        tx.execute(waiting.values(state=NoticeState.DROPPED))
    for target in sorted(set(wanted) - set(known)):
        tx.execute(sa.insert(notice_target).values(pipeline=pipeline, target=target, since=tx.now))


def finished(tx: Transaction, pipeline: str, since: float, *, announced_only: bool) -> list[Submission]:
    """Submissions of a pipeline that became final from then on, those that newer ones have replaced among them.

    Args:
        announced_only: those whose materialization is in Dagster's log.
    """
    statement = sa.select(submission).where(submission.c.pipeline == pipeline, submission.c.final_at >= since)
    if announced_only:
        statement = statement.where(submission.c.announced_at.is_not(None))
    return to_records(Submission, tx.execute(statement.order_by(submission.c.seq)))


def verdicts(tx: Transaction, pipeline: str, since: float) -> dict[str, str]:
    """complete | failed, by id of the submissions that became final from then on and of which it was written."""
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
    """Ids of the notices of some pipelines that were written from then on."""
    statement = sa.select(notice.c.id).where(notice.c.pipeline.in_(pipelines), notice.c.created_at >= since)
    return set(tx.execute(statement).scalars())


def add(tx: Transaction, notices: Iterable[dict[str, Any]]) -> None:
    """Writes notices down, to be sent at once. Those that are there already stay as they are.

    Args:
        notices: id, pipeline, submission_id, kind, target and content of each.
    """
    for values in notices:
        if tx.execute(sa.select(notice.c.id).where(notice.c.id == values["id"])).first() is None:
            row = {"state": NoticeState.WAITING, "created_at": tx.now, "attempts": 0, "next_try_at": tx.now}
            tx.execute(sa.insert(notice).values(**values, **row))


def due(tx: Transaction, pipelines: Collection[str]) -> list[Notice]:
    """What is to be sent now, what has waited longest first."""
    statement = (
        sa.select(notice)
        .where(notice.c.pipeline.in_(pipelines))
        .where(notice.c.state == NoticeState.WAITING, notice.c.next_try_at <= tx.now)
        .order_by(notice.c.next_try_at, notice.c.created_at, notice.c.id)
        .limit(100)
    )
    return to_records(Notice, tx.execute(statement))


def claim(tx: Transaction, found: Notice, pause: float) -> bool:
    """Takes a notice to send it. Nobody else does within the pause; who dies meanwhile leaves it to be sent then.

    Returns:
        False when somebody else was quicker.
    """
    still = notice.c.state == NoticeState.WAITING, notice.c.attempts == found.attempts
    values = {"attempts": found.attempts + 1, "next_try_at": tx.now + pause}
    return bool(tx.execute(sa.update(notice).where(notice.c.id == found.id, *still).values(values)).rowcount)


def sent(tx: Transaction, notice_id: str) -> None:
    """The target has it."""
    values = {"state": NoticeState.SENT, "sent_at": tx.now, "error": None}
    tx.execute(sa.update(notice).where(notice.c.id == notice_id).values(values))


def failed(tx: Transaction, notice_id: str, state: NoticeState, error: str) -> None:
    """A try came to nothing. Args: state: waiting for the next one; refused or given_up for good."""
    this = sa.and_(notice.c.id == notice_id, notice.c.state == NoticeState.WAITING)
    tx.execute(sa.update(notice).where(this).values(state=state, error=error))


def troubled(tx: Transaction, pipelines: Collection[str], since: float) -> list[Notice]:
    """What was tried in vain: it waits for another try, or its last one was not before `since`."""
    tried = sa.and_(notice.c.pipeline.in_(pipelines), notice.c.error.is_not(None))
    waits = notice.c.state == NoticeState.WAITING
    # The time of the next try is kept: it is at most a day after the last one.
    over = sa.and_(notice.c.state.in_([NoticeState.REFUSED, NoticeState.GIVEN_UP]), notice.c.next_try_at >= since)
    statement = sa.select(notice).where(tried, sa.or_(waits, over)).order_by(notice.c.created_at, notice.c.id)
    return to_records(Notice, tx.execute(statement.limit(20)))
