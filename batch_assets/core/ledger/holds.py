"""Held request files: written, and not sent before something allows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import sqlalchemy as sa

from batch_assets.core.ledger import submissions
from batch_assets.core.ledger.connection import Transaction
from batch_assets.core.ledger.moves import Moving, move_all
from batch_assets.core.ledger.records import RequestFile, Submission, to_record
from batch_assets.core.ledger.states import HOLDS_TO_APPROVE, FileMove, FileState, HoldReason
from batch_assets.core.ledger.tables import request_file, submission, wait

_NEED_NO_USER = [HoldReason.CACHE, HoldReason.PILOT, HoldReason.QUEUE, HoldReason.MORE]


def hold(tx: Transaction, ready: Sequence[RequestFile], reason: HoldReason, why: str) -> None:
    """Hold files that are ready for the same reason, see `hold_each`."""
    hold_each(tx, {file.id: why for file in ready}, reason)


def hold_each(tx: Transaction, why_of: Mapping[str, str], reason: HoldReason) -> None:
    """Hold files that are ready, see `files.hold`. The number of statements does not grow with their number.

    Args:
        tx: The transaction.
        why_of: By the id of each file why it is held, for users.
        reason: What has to allow them to be sent.
    """
    moving = [Moving(id_, f"held: {why}", {"hold": reason, "error": why}) for id_, why in why_of.items()]
    move_all(tx, FileMove.HOLD, moving)


def release(tx: Transaction, held: Sequence[RequestFile], why: str) -> None:
    """Make held files ready. The number of statements does not grow with their number."""
    moving = []
    for file in held:
        not_before = 0.0 if file.is_held_for_more else file.not_before
        moving.append(Moving(file.id, why, {"hold": None, "error": None, "not_before": not_before}))
    move_all(tx, FileMove.RELEASE, moving)


def held_by_submission(tx: Transaction, pipeline: str) -> list[tuple[Submission, list[RequestFile]]]:
    """Return the newest submissions whose rows wait on files that may need a user, with these files.

    Files that wait for their stub, a pilot, room in the queue or more requests are left out: no user has to do
    anything.
    """
    return _held(tx, pipeline, request_file.c.hold.not_in(_NEED_NO_USER))


def to_approve(tx: Transaction, pipeline: str, partition: str | None = None) -> dict[str, list[RequestFile]]:
    """Return the held files that a user lets go, by the partitions whose rows wait on them.

    Those that are held for more requests are among them: a user may not want to wait.

    Args:
        tx: The transaction.
        pipeline: The name of the pipeline.
        partition: The partition key; `None` for all partitions.
    """
    which = [request_file.c.hold.in_([*HOLDS_TO_APPROVE, HoldReason.MORE])]
    if partition is not None:
        of_partition = sa.and_(submission.c.pipeline == pipeline, submission.c.partition == partition)
        which.append(wait.c.submission_id.in_(sa.select(submission.c.id).where(of_partition)))
    return {each.partition: held for each, held in _held(tx, pipeline, *which)}


def _held(
    tx: Transaction, pipeline: str, *which: sa.ColumnElement[bool]
) -> list[tuple[Submission, list[RequestFile]]]:
    """Return the newest submissions of a pipeline that wait on some of the held files, with these files.

    The files are read first. In one statement with the submissions, SQLite would look at all of them for each
    partition.
    """
    is_held = sa.and_(request_file.c.state == FileState.HELD, request_file.c.pipeline == pipeline)
    statement = (
        sa.select(request_file, wait.c.submission_id.label("waiting_id"))
        .join(wait, wait.c.file_id == request_file.c.id)
        .where(is_held, *which)
        .order_by(request_file.c.id)
    )
    by_submission: dict[str, list[RequestFile]] = {}
    for row in tx.execute(statement):
        by_submission.setdefault(row.waiting_id, []).append(to_record(RequestFile, row))
    in_force = submissions.newest_among(tx, pipeline, [*by_submission])
    return [(each, by_submission[each.id]) for each in in_force if not each.is_canceled]
