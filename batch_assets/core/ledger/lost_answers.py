"""Answers that were stored and are lost: the response file, the request file and the API's copy are all gone.

Their requests count as in flight, so that they are not paid for again unless a user gives the answers up. The file
of such a batch is submitted and has an error, which no other submitted file has.
"""

from __future__ import annotations

from collections.abc import Iterable

import sqlalchemy as sa

from batch_assets.core.ledger import batches, files
from batch_assets.core.ledger import pairing as pairings
from batch_assets.core.ledger.connection import Transaction
from batch_assets.core.ledger.moves import move
from batch_assets.core.ledger.records import RequestFile
from batch_assets.core.ledger.states import BatchMove, BatchState, EntityKind, FileMove, FileState
from batch_assets.core.ledger.tables import history, request_file, submission
from batch_assets.core.remedies import GiveUpAnswers


def is_lost(file: RequestFile) -> bool:
    """Whether the answers to a request file are lost."""
    return file.state is FileState.SUBMITTED and file.error is not None


def is_downloaded_again(file: RequestFile) -> bool:
    """Whether the answers to a request file were stored before, and the API may still have them."""
    return file.state is FileState.SUBMITTED and file.error is None and file.collected_seq is not None


def among(files_in_flight: Iterable[RequestFile]) -> list[RequestFile]:
    """Return those of some request files whose answers are lost."""
    return [file for file in files_in_flight if is_lost(file)]


def remedy(file: RequestFile) -> GiveUpAnswers | None:
    """Return what a user can do if the answers to a request file are lost and no backup has them."""
    return GiveUpAnswers(file.batch_id, file.pipeline) if is_lost(file) and file.batch_id is not None else None


def text(batch_id: str, why: str) -> str:
    """Return the problem with lost answers, for a reason."""
    return (
        f"the answers of {batch_id} are lost: {why}. Restore its response file or its request file from a backup: "
        "until then its requests count as in flight, and nothing is sent for them"
    )


def note(tx: Transaction, file_id: str | None, why: str | None) -> None:
    """Record why the answers to a submitted file are lost; `None` if they are not."""
    of_file = sa.and_(request_file.c.id == file_id, request_file.c.state == FileState.SUBMITTED)
    tx.execute(sa.update(request_file).where(of_file).values(error=why))


def was_deleted(tx: Transaction, batch_id: str) -> bool:
    """Whether the API has certainly deleted a batch, because we or a user asked for it."""
    deletion = sa.and_(
        history.c.kind == EntityKind.BATCH, history.c.entity == batch_id, history.c.to_state == BatchState.DELETED
    )
    return tx.execute(sa.select(history.c.seq).where(deletion).limit(1)).first() is not None


def may_be_missed(tx: Transaction, file_id: str) -> bool:
    """Whether a user accepted that the files of a request file's submission are missing."""
    pairing = pairings.read(tx)
    statement = (
        sa.select(submission.c.created_at)
        .join(request_file, request_file.c.submission_id == submission.c.id)
        .where(request_file.c.id == file_id)
    )
    return pairing is not None and float(tx.execute(statement).scalar_one()) < pairing.files_from


def give_up(tx: Transaction, batch_id: str, reason: str) -> bool:
    """Give up a batch whose answers are lost, so that its requests may be sent again.

    Returns:
        False if its answers are not lost, or are back.
    """
    batch = batches.by_id(tx, batch_id)
    file = files.by_id(tx, batch.file_id) if batch is not None and batch.file_id is not None else None
    if batch is None or batch.state is not BatchState.ENDED or file is None or not is_lost(file):
        return False
    move(tx, BatchMove.FORGO, batch_id, reason)
    if file.batch_id == batch_id:
        move(tx, FileMove.FORGO, file.id, reason)
    else:
        note(tx, file.id, None)
    return True
