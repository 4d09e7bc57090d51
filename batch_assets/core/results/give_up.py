"""Batches of ours that the API does not have any more, because somebody deleted them before they were collected.

Nobody but a person can say so: to a key of another workspace the API answers the same. And even then it is
believed only where the key is proved to be of the right one, since the requests are free to be asked again.
"""

from __future__ import annotations

from batch_assets.core.batches import workspace
from batch_assets.core.batches.poll import UNREACHABLE_AFTER_SECONDS
from batch_assets.core.ledger import batches
from batch_assets.core.ledger.records import Batch
from batch_assets.core.ledger.states import BatchMove, BatchState
from batch_assets.core.results.collect import store_canceled
from batch_assets.core.root import Root

_REASON = "deleted at the API before its answers were collected, and given up by a person"


def may_be_lost(batch: Batch) -> bool:
    """Whether the API has not known an uncollected batch, or its results, since some time."""
    return batch.state in (BatchState.UNREACHABLE, BatchState.ENDED) and batch.lost_since is not None


def give_up(root: Root, batch: Batch) -> str | None:
    """Makes every request of a lost batch `canceled`: the next submission asks them again.

    Args:
        batch: that the API answers 404 for.

    Returns:
        Why not; None when it is done.

    Errors:
        ApiError: it is not to be known now whose the key is.
        ResultsError: the request file is gone.
    """
    if batch.provisional:
        return (
            f"{batch.id} was taken for ours on its count alone: what became of its requests is found out by itself"
        )
    with root.ledger.read() as tx:
        since = tx.now - (batch.lost_since if batch.lost_since is not None else tx.now)
    if since < UNREACHABLE_AFTER_SECONDS:
        return f"{batch.id}: the API answers 404 since {since:.0f} s only; cancel again later"
    if not workspace.is_proved(root, batch.id):
        return f"{batch.id}: {_not_proved(batch)}"
    if not store_canceled(root, batch, f"{batch.id} was {_REASON}"):
        return f"{batch.id}: another run is busy with it; cancel again later"
    with root.ledger.write() as tx:
        batches.move_stored(tx, BatchMove.GIVE_UP, batch.id, _REASON)
    return None


def _not_proved(batch: Batch) -> str:
    return (
        f"the API answers 404, and shows no batch that surely is of its workspace. {workspace.WHOSE_KEY} Set that "
        "one and cancel again. Where nothing proves it, its rows are given up when the API keeps no results any "
        "more, 29 days from its creation"
    )
