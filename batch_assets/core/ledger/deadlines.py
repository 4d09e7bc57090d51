"""Deadlines of batches.

The API ends a batch 24 hours after its creation; requests without an answer expire then. It keeps the results for
29 days after the creation.

Source: https://platform.claude.com/docs/en/build-with-claude/batch-processing
"""

from __future__ import annotations

from batch_assets.core.ledger import batches
from batch_assets.core.ledger.connection import Transaction
from batch_assets.core.ledger.records import Batch
from batch_assets.core.ledger.states import BATCHES_UNCOLLECTED, BatchState

KEPT_SECONDS = 29 * 86400.0
"""How long the API keeps the results of a batch after its creation."""
# Users are warned when the results remain available for less time than this.
SOON_SECONDS = 3 * 86400.0
# Users are also warned when a batch has less time than this to finish.
EXPIRY_SOON_SECONDS = 2 * 3600.0


def results_end(batch: Batch) -> float | None:
    """Return when a batch's results stop being available, in seconds since 1970; `None` if it is unknown."""
    return batch.created_at + KEPT_SECONDS if batch.created_at is not None else None


def ending_soon(tx: Transaction, pipeline: str) -> list[tuple[Batch, float]]:
    """Return a pipeline's uncollected batches whose results soon stop being available, with the seconds left.

    The fewest seconds come first. They are negative if the results are no longer available.
    """
    before = tx.now + SOON_SECONDS - KEPT_SECONDS
    ending = [
        (batch, end - tx.now)
        for batch in batches.in_state(tx, *BATCHES_UNCOLLECTED, pipeline=pipeline, created_before=before)
        if (end := results_end(batch)) is not None and end - tx.now < SOON_SECONDS
    ]
    return sorted(ending, key=lambda entry: entry[1])


def expiring_soon(tx: Transaction, pipeline: str) -> list[tuple[Batch, float]]:
    """Return a pipeline's open batches that expire soon, with the seconds left of their 24 hours, fewest first.

    Batches whose time is over are left out: the API ends them.
    """
    expiring = [
        (batch, seconds_left)
        for batch in batches.in_state(tx, BatchState.OPEN, pipeline=pipeline)
        if batch.expires_at is not None and 0 < (seconds_left := batch.expires_at - tx.now) < EXPIRY_SOON_SECONDS
    ]
    return sorted(expiring, key=lambda entry: entry[1])
