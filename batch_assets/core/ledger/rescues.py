"""Rescues: how far the requests of a file are asked by live calls after a deadline has passed.

Several submissions may wait on one file: gathered partitions, and an edit that is taken back. Each asks what its
own rows ask, so how far that is belongs to a submission and a file.

A live call is recorded by the journal of its group, under the root. The ledger has what the next step depends on,
and the groups whose answers are not stored yet. Their reservations are those of `reservations.py`, under the id of
the group in place of a batch's.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from batch_assets.core.answers.result_types import ResultType
from batch_assets.core.api.objects import COUNTS
from batch_assets.core.api.rescue_rule import RescueRule
from batch_assets.core.ledger import batches, reservations, spend
from batch_assets.core.ledger.columns import BatchColumns
from batch_assets.core.ledger.connection import Transaction
from batch_assets.core.ledger.id_chunks import id_chunks
from batch_assets.core.ledger.moves import move
from batch_assets.core.ledger.records import Batch, RequestFile, Submission
from batch_assets.core.ledger.rescue_tables import live_group, rescue, rescue_rule
from batch_assets.core.ledger.reservations import NO_BOUND, Amounts
from batch_assets.core.ledger.states import BatchMove
from batch_assets.core.ledger.tables import batch, request_file


@dataclass(frozen=True)
class Rescue:
    """How far the requests of a file that the rows of a submission ask are asked by live calls.

    Attributes:
        file_id: The request file.
        is_done: Each of these requests was called, or cannot be.
        not_before: No live call is made for it before, in seconds since 1970.
        needs: What the next call counts, if a budget had less left; `None` if none holds it.
        why: What it waits for, or why requests were left to the batch; `None` if there is nothing to say.
    """

    file_id: str
    is_done: bool = False
    not_before: float = 0.0
    needs: Amounts | None = None
    why: str | None = None


@dataclass(frozen=True)
class LiveGroup:
    """Live calls whose answers are not stored yet.

    Attributes:
        id: The id of the group.
        file_id: The request file that has the requests.
        pipeline: The pipeline.
        calls: The number of the calls.
        worst_case: The most that they can cost in picodollars; `None` without a bound.
        started_at: When they began, in seconds since 1970.
    """

    id: str
    file_id: str
    pipeline: str
    calls: int
    worst_case: int | None
    started_at: float


def lease_name(pipeline: str) -> str:
    """Return the name of the lease of who makes a pipeline's live calls, or stores their answers."""
    return f"live:{pipeline}"


def rules(tx: Transaction, pipelines: Iterable[str]) -> dict[str, RescueRule]:
    """Return the rules of those of some pipelines that have one."""
    found: dict[str, RescueRule] = {}
    for chunk in id_chunks(sorted(set(pipelines))):
        for row in tx.execute(sa.select(rescue_rule).where(rescue_rule.c.pipeline.in_(chunk))):
            found[row.pipeline] = RescueRule(row.seconds, row.max_in_flight)
    return found


def record_rule(tx: Transaction, pipeline: str, rule: RescueRule | None) -> None:
    """Record the rule of a pipeline; `None` for none."""
    tx.execute(sa.delete(rescue_rule).where(rescue_rule.c.pipeline == pipeline))
    if rule is not None:
        values = {"seconds": rule.seconds, "max_in_flight": rule.max_in_flight}
        tx.execute(sa.insert(rescue_rule).values(pipeline=pipeline, **values))


def of_submissions(tx: Transaction, submission_ids: Iterable[str]) -> dict[str, dict[str, Rescue]]:
    """Return the rescues that have begun by submission and request file. Each of the submissions has an entry."""
    ids = sorted(submission_ids)
    found: dict[str, dict[str, Rescue]] = {id_: {} for id_ in ids}
    for chunk in id_chunks(ids):
        for row in tx.execute(sa.select(rescue).where(rescue.c.submission_id.in_(chunk))):
            needs = Amounts(row.needs, row.expects) if row.needs is not None else None
            state = Rescue(row.file_id, row.is_done, row.not_before, needs, row.why)
            found[row.submission_id][row.file_id] = state
    return found


def note(tx: Transaction, submission: Submission, states: Sequence[Rescue]) -> None:
    """Record how far the rescue of a submission is for some request files, each once."""
    for chunk in id_chunks([state.file_id for state in states]):
        of_submission = sa.and_(rescue.c.submission_id == submission.id, rescue.c.file_id.in_(chunk))
        tx.execute(sa.delete(rescue).where(of_submission))
    rows = [
        {
            "submission_id": submission.id,
            "file_id": state.file_id,
            "pipeline": submission.pipeline,
            "is_done": state.is_done,
            "not_before": state.not_before,
            "needs": state.needs.worst if state.needs is not None else None,
            "expects": state.needs.expected if state.needs is not None else None,
            "why": state.why,
        }
        for state in states
    ]
    if rows:
        tx.connection.execute(sa.insert(rescue), rows)


def groups(tx: Transaction, pipelines: Iterable[str]) -> list[LiveGroup]:
    """Return the groups of some pipelines whose answers are not stored yet, oldest first."""
    statement = sa.select(live_group).order_by(live_group.c.started_at, live_group.c.id)
    return [
        LiveGroup(**row._mapping)
        for chunk in id_chunks(sorted(set(pipelines)))
        for row in tx.execute(statement.where(live_group.c.pipeline.in_(chunk)))
    ]


def begin(tx: Transaction, file: RequestFile, group_id: str, calls: int, amounts: Amounts) -> None:
    """Record live calls that are about to be made, and reserve what they may cost.

    Args:
        tx: The transaction.
        file: The request file that has the requests.
        group_id: The id of the group.
        calls: The number of the calls.
        amounts: What they count in budgets.
    """
    worst = None if amounts.worst == NO_BOUND else amounts.worst
    reservations.reserve(tx, file, None, amounts, batch_id=group_id)
    _add(tx, LiveGroup(group_id, file.id, file.pipeline, calls, worst, tx.now))


def restore(tx: Transaction, file: RequestFile, found: LiveGroup) -> None:
    """Record live calls that a lost ledger had, whose answers are not stored yet."""
    if found.id not in ids_of(tx, file.id):
        worst = NO_BOUND if found.worst_case is None else found.worst_case
        amounts = Amounts(worst, worst)
        reservations.reserve(tx, file, None, amounts, batch_id=found.id, sent_at=found.started_at or None)
        _add(tx, found)


def _add(tx: Transaction, group: LiveGroup) -> None:
    tx.execute(sa.insert(live_group).values(**vars(group)))


def forget(tx: Transaction, group_id: str) -> None:
    """Remove a group of which no call was made, with what is reserved for it."""
    tx.execute(sa.delete(live_group).where(live_group.c.id == group_id))
    reservations.settle(tx, group_id, 0)


def stored(
    tx: Transaction, file: RequestFile, group_id: str, counts: dict[str, int], ended_at: float, reason: str
) -> None:
    """Record a group whose answers are stored, like a batch that is collected. Does nothing if it is recorded.

    Args:
        tx: The transaction.
        file: The request file that has the requests.
        group_id: The id of the group, which is also the name of the response file without its extension.
        counts: The calls by result type.
        ended_at: When the last call ended, in seconds since 1970.
        reason: The reason, for the history.
    """
    tx.execute(sa.delete(live_group).where(live_group.c.id == group_id))
    if batches.by_id(tx, group_id) is not None:
        return
    complete = {name: counts.get(name, 0) for name in COUNTS}
    values: BatchColumns = {
        "pipeline": file.pipeline,
        "file_id": None,
        "live_of": file.id,
        "processing_status": "ended",
        "requests": sum(complete.values()),
        "counts": json.dumps(complete),
        "submitted_at": ended_at,
        "ended_at": ended_at,
    }
    seq = move(tx, BatchMove.CALL, group_id, reason, **values)
    spend.stored(tx, group_id)
    # Whoever waits on the file writes its table again, as after a batch.
    tx.execute(sa.update(request_file).where(request_file.c.id == file.id).values(collected_seq=seq))


def restore_stored(
    tx: Transaction, file: RequestFile, group_id: str, counts: dict[str, int], ended_at: float, reason: str
) -> None:
    """Record a group that a lost ledger had, whose answers are stored. The arguments are those of `stored`.

    One that the ledger has open has its reservation, and is left to who stores its answers.
    """
    if group_id not in ids_of(tx, file.id):
        reservations.reserve(tx, file, None, batch_id=group_id, sent_at=ended_at or None)
        stored(tx, file, group_id, counts, ended_at, reason)


def answered(tx: Transaction, file_ids: Iterable[str]) -> dict[str, int]:
    """Return by request file how many of its requests have a stored answer from live calls, of files with some."""
    found: dict[str, int] = {}
    for chunk in id_chunks(sorted(file_ids)):
        for row in tx.execute(sa.select(batch.c.live_of, batch.c.counts).where(batch.c.live_of.in_(chunk))):
            found[row.live_of] = found.get(row.live_of, 0) + json.loads(row.counts)[ResultType.SUCCEEDED]
    return found


def ids_of(tx: Transaction, file_id: str) -> list[str]:
    """Return the ids of all groups of live calls for a request file."""
    stored_ids = sa.select(batch.c.id).where(batch.c.live_of == file_id)
    open_ids = sa.select(live_group.c.id).where(live_group.c.file_id == file_id)
    return [*tx.execute(stored_ids).scalars(), *tx.execute(open_ids).scalars()]


def due_at(submission: Submission, rule: RescueRule | None, sent: Batch | None = None) -> float | None:
    """Return when rows of a submission that have no answer are asked by live calls; `None` if they never are.

    Args:
        submission: The submission.
        rule: The rule of its pipeline.
        sent: The batch that the rows wait for. One that was sent after the deadline has its own.
    """
    is_over = submission.final_at is not None or submission.is_canceled
    if rule is None or is_over or submission.began_at is None:
        return None
    deadline = submission.began_at + rule.seconds
    sent_at = sent.submitted_at if sent is not None else None
    return sent_at + rule.seconds if sent_at is not None and sent_at > deadline else deadline
