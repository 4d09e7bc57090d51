"""Held request files: written, and not sent before something allows it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from batch_assets.core.ledger import submissions
from batch_assets.core.ledger.connection import Transaction
from batch_assets.core.ledger.moves import Moving, move_all
from batch_assets.core.ledger.records import RequestFile, Submission, to_record
from batch_assets.core.ledger.states import HOLDS_TO_APPROVE, FileMove, FileState, HoldReason
from batch_assets.core.ledger.tables import request_file, submission, wait


def hold(tx: Transaction, ready: Sequence[RequestFile], reason: HoldReason, why: str) -> None:
    """Hold files that are ready, see `files.hold`. The number of statements does not grow with their number."""
    values = {"hold": reason, "error": why}
    move_all(tx, FileMove.HOLD, [Moving(file.id, f"held: {why}", values) for file in ready])


def release(tx: Transaction, held: Sequence[RequestFile], why: str) -> None:
    """Make held files ready. The number of statements does not grow with their number."""
    move_all(tx, FileMove.RELEASE, [Moving(file.id, why, {"hold": None, "error": None}) for file in held])


def held_by_submission(tx: Transaction, pipeline: str) -> list[tuple[Submission, list[RequestFile]]]:
    """Return the newest submissions whose rows wait on files that may need a user, with these files.

    Files that wait for their stub, a pilot or room in the queue are left out: no user has to do anything.
    """
    statement = _held(pipeline).add_columns(submission.c.id.label("waiting_id"))
    statement = statement.where(request_file.c.hold.not_in([HoldReason.CACHE, HoldReason.PILOT, HoldReason.QUEUE]))
    by_submission: dict[str, list[RequestFile]] = {}
    for row in tx.execute(statement):
        by_submission.setdefault(row.waiting_id, []).append(to_record(RequestFile, row))
    known = {each.id: each for each in submissions.by_ids(tx, [*by_submission])}
    return [(known[id_], held) for id_, held in by_submission.items()]


def to_approve(tx: Transaction, pipeline: str, partition: str | None = None) -> dict[str, list[RequestFile]]:
    """Return the held files that only a user lets go, by the partitions whose rows wait on them.

    Args:
        tx: The transaction.
        pipeline: The name of the pipeline.
        partition: The partition key; `None` for all partitions.
    """
    statement = _held(pipeline).add_columns(submission.c.partition.label("waiting"))
    statement = statement.where(request_file.c.hold.in_(HOLDS_TO_APPROVE))
    if partition is not None:
        statement = statement.where(submission.c.partition == partition)
    by_partition: dict[str, list[RequestFile]] = {}
    for row in tx.execute(statement):
        by_partition.setdefault(row.waiting, []).append(to_record(RequestFile, row))
    return by_partition


def _held(pipeline: str) -> sa.Select[Any]:
    """Select the held files that rows of newest submissions wait on."""
    return (
        sa.select(request_file)
        .join(wait, wait.c.file_id == request_file.c.id)
        .join(submission, submission.c.id == wait.c.submission_id)
        .where(
            request_file.c.state == FileState.HELD,
            submission.c.pipeline == pipeline,
            submission.c.seq.in_(submissions.newest_seqs(pipeline)),
            submission.c.canceled_at.is_(None),
        )
        .order_by(submission.c.seq, request_file.c.id)
    )
