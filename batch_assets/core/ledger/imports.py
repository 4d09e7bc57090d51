"""Answers that were imported, as the ledger records them."""

from __future__ import annotations

import json

from batch_assets.core.answers.result_types import ResultType
from batch_assets.core.api.objects import COUNTS
from batch_assets.core.ledger import batches
from batch_assets.core.ledger.columns import BatchColumns
from batch_assets.core.ledger.connection import Transaction
from batch_assets.core.ledger.moves import move
from batch_assets.core.ledger.states import BatchMove


def note(tx: Transaction, import_id: str, pipeline: str, answers: int, ended_at: float, reason: str) -> None:
    """Record answers that were imported, like a batch that is collected and has no request file.

    Args:
        tx: The transaction.
        import_id: The id, which is also the name of the response file without its extension.
        pipeline: The name of the pipeline.
        answers: The number of answers.
        ended_at: When the batch that they come from ended, in seconds since 1970.
        reason: The reason, for the history.
    """
    if batches.by_id(tx, import_id) is not None:
        return
    counts = dict.fromkeys(COUNTS, 0) | {ResultType.SUCCEEDED.value: answers}
    values: BatchColumns = {
        "pipeline": pipeline,
        "file_id": None,
        "processing_status": "ended",
        "requests": answers,
        "counts": json.dumps(counts),
        "submitted_at": None,
        "ended_at": ended_at,
    }
    move(tx, BatchMove.IMPORT, import_id, reason, **values)
