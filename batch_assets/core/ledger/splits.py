"""Request files that are replaced by their parts, or that cannot be split any further."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from batch_assets.core.ledger import files
from batch_assets.core.ledger.columns import FileColumns
from batch_assets.core.ledger.connection import Transaction
from batch_assets.core.ledger.moves import move
from batch_assets.core.ledger.records import RequestFile
from batch_assets.core.ledger.states import FileMove
from batch_assets.core.ledger.tables import request_file, wait


def replace(tx: Transaction, file: RequestFile, parts: Sequence[FileColumns]) -> list[RequestFile]:
    """Replace a file with two parts, because it is too large or too dear. Who waited on it waits on the parts.

    Args:
        tx: The transaction.
        file: The file.
        parts: Name, requests, bytes and checksum of each part.

    Returns:
        The parts.
    """
    names = " and ".join(part["name"] for part in parts)
    move(tx, FileMove.CUT, file.id, f"replaced by {names}")
    waiting = tx.execute(sa.select(wait.c.submission_id).where(wait.c.file_id == file.id)).scalars().all()
    ids = [f"{file.submission_id}/{part['name']}" for part in parts]
    shared: FileColumns = {
        "submission_id": file.submission_id,
        "pipeline": file.pipeline,
        "partition": file.partition,
        "attempt": file.attempt,
        "headers": file.headers,
        "stub": file.stub,
        "breakpoint": file.breakpoint,
        "follows": file.follows,
    }
    for file_id, part in zip(ids, parts, strict=True):
        reason = f"{part['requests']} requests of {file.name}"
        columns: FileColumns = {**shared, **part, "not_before": 0.0}
        move(tx, FileMove.WRITE, file_id, reason, **columns)
        for submission_id in waiting:
            tx.execute(sa.insert(wait).values(submission_id=submission_id, file_id=file_id))
    return [files.by_id(tx, file_id) for file_id in ids]


def given_up(tx: Transaction, file_id: str, reason: str) -> None:
    """Record that a single request is too large. The response store has the refusal as its answer."""
    seq = move(tx, FileMove.GIVE_UP, file_id, reason)
    tx.execute(sa.update(request_file).where(request_file.c.id == file_id).values(collected_seq=seq))
