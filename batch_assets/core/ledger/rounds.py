"""Rounds: runs that the sensor requests. A submission has one open round; its number is part of the run key.

One run may do the rounds of several submissions. The first of them is the leader: Dagster knows the run under its
id and its round.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from batch_assets.core.ledger.bulk_history import HistoryLine, record_all
from batch_assets.core.ledger.connection import Transaction
from batch_assets.core.ledger.id_chunks import id_chunks
from batch_assets.core.ledger.states import EntityKind, RoundState
from batch_assets.core.ledger.tables import round_

# A run of a round is over after this long, whether it closed the round or not: a run may take an hour.
ROUND_SECONDS = 3900.0
_OVER = "its run is over"


class LastRound(NamedTuple):
    """The newest round of a submission.

    A round that was not closed counts as open at any age. Only the caller, who knows the runs, can see that it is
    over.

    Attributes:
        number: Its number, from 1; 0 if there was none.
        is_open: Whether it is open.
        opened_at: When it was opened, seconds since 1970.
        leader: The id of the submission under which Dagster knows its run.
        leader_number: The number of the leader's round.
    """

    number: int
    is_open: bool
    opened_at: float
    leader: str
    leader_number: int


class RoundEntry(NamedTuple):
    """A round that is to be opened.

    Attributes:
        submission_id: The id of the submission.
        reason: The reason, for the history.
    """

    submission_id: str
    reason: str


def no_round(submission_id: str) -> LastRound:
    """Return the last round of a submission that has had none."""
    return LastRound(0, False, 0.0, submission_id, 0)


def current_of(tx: Transaction, ids: Sequence[str]) -> dict[str, LastRound]:
    """Return the newest rounds of submissions, by submission id. Submissions without any round are left out."""
    newest: dict[str, LastRound] = {}
    for chunk in id_chunks(ids):
        last = (
            sa.select(round_.c.submission_id, sa.func.max(round_.c.number).label("number"))
            .where(round_.c.submission_id.in_(chunk))
            .group_by(round_.c.submission_id)
            .subquery()
        )
        is_last = sa.and_(round_.c.submission_id == last.c.submission_id, round_.c.number == last.c.number)
        for row in tx.execute(sa.select(round_).join(last, is_last)):
            leads = row.leader is None
            newest[row.submission_id] = LastRound(
                row.number,
                row.state is RoundState.OPEN,
                row.opened_at,
                row.submission_id if leads else row.leader,
                row.number if leads else row.leader_number,
            )
    return newest


def opened_at(tx: Transaction, submission_id: str, number: int) -> float | None:
    """Return when a round was opened, seconds since 1970; `None` if there is no such round."""
    is_round = sa.and_(round_.c.submission_id == submission_id, round_.c.number == number)
    return tx.execute(sa.select(round_.c.opened_at).where(is_round)).scalar()


def open_runs(
    tx: Transaction, runs: Sequence[Sequence[RoundEntry]], before: Mapping[str, LastRound]
) -> list[LastRound]:
    """Open the next round of every submission. The number of statements does not grow with their number.

    Args:
        tx: The transaction.
        runs: For each run, the rounds that it does together. The first is the leader's.
        before: `current_of` these submissions, read in the same transaction. None of them is open.

    Returns:
        The leader's round of each run.
    """
    rows: list[dict[str, Any]] = []
    leaders = []
    for run in runs:
        numbers = {entry.submission_id: _number(before, entry.submission_id) + 1 for entry in run}
        leader = run[0].submission_id
        leaders.append(LastRound(numbers[leader], True, tx.now, leader, numbers[leader]))
        for entry in run:
            rows.append(
                {
                    "submission_id": entry.submission_id,
                    "number": numbers[entry.submission_id],
                    "state": RoundState.OPEN,
                    "reason": entry.reason,
                    "opened_at": tx.now,
                    "until": tx.now + ROUND_SECONDS,
                    "leader": leader if len(run) > 1 else None,
                    "leader_number": numbers[leader] if len(run) > 1 else None,
                }
            )
    if rows:
        tx.connection.execute(sa.insert(round_), rows)
        lines = [
            HistoryLine(f"{row['submission_id']}:{row['number']}", None, RoundState.OPEN, str(row["reason"]))
            for row in rows
        ]
        record_all(tx, EntityKind.ROUND, lines)
    return leaders


def close_all(tx: Transaction, numbered: Collection[tuple[str, int]]) -> None:
    """Close rounds, because their runs are over. Rounds that are closed stay as they are.

    Args:
        tx: The transaction.
        numbered: Submission id and number of each round.
    """
    rounds = dict(numbered)
    still_open: list[tuple[str, int]] = []
    for chunk in id_chunks(sorted(rounds)):
        is_open = sa.and_(round_.c.submission_id.in_(chunk), round_.c.state == RoundState.OPEN)
        for row in tx.execute(sa.select(round_.c.submission_id, round_.c.number).where(is_open)):
            if rounds[row.submission_id] == row.number:
                still_open.append((row.submission_id, row.number))
    _close(tx, still_open)


def close_run(tx: Transaction, leader: str, number: int) -> None:
    """Close all rounds of a run.

    Args:
        tx: The transaction.
        leader: The id of the submission under which Dagster knows the run.
        number: The number of its round.
    """
    alone = sa.and_(round_.c.submission_id == leader, round_.c.number == number)
    together = sa.and_(round_.c.leader == leader, round_.c.leader_number == number)
    statement = sa.select(round_.c.submission_id, round_.c.number).where(round_.c.state == RoundState.OPEN)
    _close(tx, [(row.submission_id, row.number) for row in tx.execute(statement.where(sa.or_(alone, together)))])


def _close(tx: Transaction, numbered: Iterable[tuple[str, int]]) -> None:
    """Close open rounds."""
    changed = [{"its_submission": submission_id, "its_number": number} for submission_id, number in numbered]
    if not changed:
        return
    is_round = sa.and_(
        round_.c.submission_id == sa.bindparam("its_submission"), round_.c.number == sa.bindparam("its_number")
    )
    tx.connection.execute(sa.update(round_).where(is_round).values(state=RoundState.CLOSED), changed)
    lines = [
        HistoryLine(f"{row['its_submission']}:{row['its_number']}", RoundState.OPEN, RoundState.CLOSED, _OVER)
        for row in changed
    ]
    record_all(tx, EntityKind.ROUND, lines)


def _number(before: Mapping[str, LastRound], submission_id: str) -> int:
    return before[submission_id].number if submission_id in before else 0
