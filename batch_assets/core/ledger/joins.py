"""What is recorded about the table of a submission: its joins, and its announcement."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Unpack

import sqlalchemy as sa

from batch_assets.core.answers.result_types import ResultType
from batch_assets.core.ledger.columns import SubmissionColumns
from batch_assets.core.ledger.connection import Transaction
from batch_assets.core.ledger.moves import move
from batch_assets.core.ledger.records import LastJoin, Submission
from batch_assets.core.ledger.states import SubmissionMove
from batch_assets.core.ledger.submissions import add_waits, by_id, let_go
from batch_assets.core.ledger.tables import submission

_REOPENING = (SubmissionMove.REOPEN_UNSENT, SubmissionMove.REOPEN, SubmissionMove.REOPEN_CANCELED)


def joined(
    tx: Transaction,
    submission_id: str,
    seq: int,
    counts: dict[str, int],
    ask_again: int,
    waits: list[str],
    *,
    held_back: bool = False,
    unusable: int = 0,
    skippable: LastJoin | None = None,
) -> bool:
    """Record a join of results.

    Args:
        tx: The transaction.
        submission_id: The id of the submission.
        seq: The number in the history of the last collection of a file that it waits on, when the join began.
        counts: Rows by result_type.
        ask_again: The number of requests that failed for a passing reason and that are not in flight.
        waits: Ids of request files in flight with other such requests, of any submission.
        held_back: It did not replace the partition's table.
        unusable: The number of rows with an answer that cannot be used.
        skippable: What a later join has to know to be skipped; `None` if it must not be.

    Returns:
        Whether every row has its final type.
    """
    final = counts.get(ResultType.PENDING, 0) == 0
    counted = json.dumps(counts)
    values: SubmissionColumns = {
        "joined_seq": seq,
        "joined_at": tx.now,
        "counts": counted,
        "unusable": unusable,
        "examined": None,
        "ask_again": ask_again,
        "held_back": held_back,
        "joined_inputs": skippable.inputs if skippable is not None else None,
        "joined_table": skippable.table if skippable is not None else None,
    }
    # The requests of files that were let go since the join began are retried too.
    if dropped := let_go(tx, waits):
        values["ask_again"] = ask_again + len(dropped)
    add_waits(tx, submission_id, waits)
    before = by_id(tx, submission_id)
    # Requests of complete results may be sent again, and a canceled submission may still get answers: the new
    # results are to be announced.
    if not final or (before.is_canceled and before.counts is not None and before.count_map != counts):
        values["announced_at"] = None
    if final and before.final_at is None:
        move(tx, SubmissionMove.FINISH, submission_id, counted, **values)
    elif not final and before.final_at is not None:
        _reopen(tx, before, counted, **values)
    else:
        _update(tx, submission_id, **values)
    return final


def last_join(tx: Transaction, submission_id: str) -> LastJoin | None:
    """Return the last join of a submission; `None` if a later join must not be skipped because of it."""
    columns = submission.c.joined_inputs, submission.c.joined_table
    row = tx.execute(sa.select(*columns).where(submission.c.id == submission_id)).one()
    return LastJoin(row.joined_inputs, row.joined_table) if row.joined_inputs is not None else None


def joined_as_before(tx: Transaction, final: Submission, seq: int) -> bool:
    """Record that the table of a final submission needs no other join.

    Args:
        tx: The transaction.
        final: The submission as it was when its inputs were compared.
        seq: The number in the history of the last collection of a file that it waits on, at that time.

    Returns:
        False if the submission has changed since, so that nothing is recorded.
    """
    if by_id(tx, final.id) != final:
        return False
    _update(tx, final.id, joined_seq=seq)
    return True


def _reopen(tx: Transaction, final: Submission, reason: str, **values: Unpack[SubmissionColumns]) -> None:
    """Return a final submission, whose rows wait again, to the state that it had before it became final."""
    earlier = replace(final, final_at=None).state
    step = next(step for step in _REOPENING if step.after is earlier)
    move(tx, step, final.id, reason, **values)


def _update(tx: Transaction, submission_id: str, **values: Unpack[SubmissionColumns]) -> None:
    tx.execute(sa.update(submission).where(submission.c.id == submission_id).values(**values))


def join_again(tx: Transaction, submission_id: str) -> None:
    """Request another join of the table, whatever is recorded about earlier joins."""
    before = by_id(tx, submission_id)
    if before.final_at is not None:
        _reopen(tx, before, "its table is written again", joined_seq=None, joined_inputs=None)
    else:
        _update(tx, submission_id, joined_seq=None, joined_inputs=None)


def planned_again(tx: Transaction, submission_id: str, *, left: int = 0) -> None:
    """Record that the failed requests of the last join are in request files again.

    Args:
        tx: The transaction.
        submission_id: The id of the submission.
        left: The number of those whose text is lost, so that they are in no file.
    """
    _update(tx, submission_id, ask_again=left)


def announced(tx: Transaction, submission_id: str) -> None:
    """Record that the materialization of complete results was logged."""
    unset = submission.c.announced_at.is_(None)
    tx.execute(sa.update(submission).where(submission.c.id == submission_id, unset).values(announced_at=tx.now))


def announce_again(tx: Transaction, submission_id: str) -> None:
    """Request another materialization of complete results, in a run of its own."""
    _update(tx, submission_id, announced_at=None)
