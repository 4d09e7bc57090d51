"""Until when answers can be had: the API ends a batch 24 hours after its creation, what is not answered by then
expires, and it keeps the results for 29 days after creation.

Source: https://platform.claude.com/docs/en/build-with-claude/batch-processing
"""

from __future__ import annotations

from batch_assets.core.ledger import batches
from batch_assets.core.ledger.connection import Transaction
from batch_assets.core.ledger.records import Batch
from batch_assets.core.ledger.states import BATCHES_UNCOLLECTED, BatchState

_KEPT_SECONDS = 29 * 86400.0
# A person is warned when less time than this is left.
SOON_SECONDS = 3 * 86400.0
# So is one when a batch has less time than this left to be answered.
EXPIRY_SOON_SECONDS = 2 * 3600.0


def results_end(batch: Batch) -> float | None:
    """When a batch's results cease to be available, seconds since 1970; None where its creation is not known."""
    return batch.created_at + _KEPT_SECONDS if batch.created_at is not None else None


def ending_soon(tx: Transaction, pipeline: str) -> list[tuple[Batch, float]]:
    """A pipeline's uncollected batches near the end of their results, with the seconds left, the fewest first.

    Below zero they have ended.
    """
    found = [
        (batch, end - tx.now)
        for batch in batches.in_state(tx, *BATCHES_UNCOLLECTED, pipeline=pipeline)
        if (end := results_end(batch)) is not None and end - tx.now < SOON_SECONDS
    ]
    return sorted(found, key=lambda entry: entry[1])


def expiring_soon(tx: Transaction, pipeline: str) -> list[tuple[Batch, float]]:
    """A pipeline's batches at work that are near the end of their 24 hours, with the seconds left, the fewest
    first.

    Those whose time is over are left out: they end by themselves.
    """
    found = [
        (batch, left)
        for batch in batches.in_state(tx, BatchState.OPEN, pipeline=pipeline)
        if batch.expires_at is not None and 0 < (left := batch.expires_at - tx.now) < EXPIRY_SOON_SECONDS
    ]
    return sorted(found, key=lambda entry: entry[1])
