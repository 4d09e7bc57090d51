"""How far the batches of a submission are, as numbers that Dagster plots."""

from __future__ import annotations

from collections import Counter

from batch_assets.core.deadlines import UNCOLLECTED
from batch_assets.core.ledger import Transaction, batches, submissions
from batch_assets.core.ledger.records import STORED, Batch
from batch_assets.core.root import Root
from batch_assets.dagster import keys

# What the API calls the counts of a batch, in the order it names them.
_COUNTS = ("processing", "succeeded", "errored", "canceled", "expired")
_OPEN = ("open", "unreachable")


def batches_of(root: Root, submission_id: str) -> list[Batch]:
    """The batches a submission's rows wait on or have waited on."""
    with root.ledger.read() as tx:
        return batches_in(tx, submission_id)


def batches_in(tx: Transaction, submission_id: str) -> list[Batch]:
    """The same, inside a transaction."""
    submission = submissions.by_id(tx, submission_id)
    waited = {file.id for file in submissions.waited_on(tx, submission_id)}
    of_pipeline = batches.in_state(tx, *UNCOLLECTED, *STORED, pipeline=submission.pipeline)
    return [batch for batch in of_pipeline if batch.file_id in waited]


def counts_of(found: list[Batch]) -> dict[str, int]:
    """Numbers of batches, and of their requests by what became of them."""
    total: Counter[str] = Counter()
    for batch in found:
        total.update(batch.count_map)
    return {
        keys.BATCHES: len(found),
        keys.BATCHES_OPEN: sum(batch.state in _OPEN for batch in found),
        **{keys.count_key(name): total[name] for name in _COUNTS},
        **paid_twice_of(found),
    }


def paid_twice_of(found: list[Batch]) -> dict[str, int]:
    """The number of batches that turned up after their request file was sent again, if there are any."""
    number = sum(batch.paid_twice for batch in found)
    return {keys.PAID_TWICE: number} if number else {}
