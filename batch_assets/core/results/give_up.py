"""Give up batches of ours that were deleted at the API before they were collected.

Only a user can report this, because a key of another workspace gets the same answer from the API. Even then the
key must be proved to belong to the right workspace, since the requests may be sent again afterwards.
"""

from __future__ import annotations

from batch_assets.core.batches import workspace
from batch_assets.core.batches.poll import UNREACHABLE_AFTER_SECONDS
from batch_assets.core.ledger import batches
from batch_assets.core.ledger.records import Batch
from batch_assets.core.ledger.states import BatchMove, BatchState
from batch_assets.core.results.collect import store_canceled
from batch_assets.core.root import Root
from batch_assets.core.text import duration

_REASON = "deleted at the API before its answers were collected, and given up by a user"


def may_be_lost(batch: Batch) -> bool:
    """Whether the API no longer knows an uncollected batch or its results."""
    return batch.state in (BatchState.UNREACHABLE, BatchState.ENDED) and batch.lost_since is not None


def give_up(root: Root, batch: Batch) -> str | None:
    """Make every request of a lost batch `canceled`, so that the next submission sends them again.

    Args:
        root: The root.
        batch: A batch that the API answers 404 for.

    Returns:
        Why this is impossible; `None` if it was done.

    Raises:
        ApiError: When the workspace of the key cannot be determined now.
        ResultsError: When the request file is missing.
    """
    if batch.provisional:
        return f"{batch.id} was adopted on its count alone: its requests will be reconciled automatically"
    with root.ledger.read() as tx:
        since = tx.now - (batch.lost_since if batch.lost_since is not None else tx.now)
    if since < UNREACHABLE_AFTER_SECONDS:
        return f"{batch.id}: the API has answered 404 for only {duration(since)}; cancel again later"
    if not workspace.is_proved(root, batch.id):
        return f"{batch.id}: {_not_proved(batch)}"
    if not store_canceled(root, batch, f"{batch.id} was {_REASON}"):
        return f"{batch.id}: another run is busy with it; cancel again later"
    with root.ledger.write() as tx:
        batches.move_stored(tx, BatchMove.GIVE_UP, batch.id, _REASON)
    return None


def _not_proved(batch: Batch) -> str:
    return (
        "the API answers 404, and shows no batch that certainly belongs to the same workspace. "
        f"{workspace.WHOSE_KEY} If not, set a key of that workspace and cancel again. Without proof, its rows are "
        "given up when the API stops keeping the results, 29 days from its creation"
    )
