"""Delete the batches at the API that hold erased rows."""

from __future__ import annotations

from collections.abc import Iterable

from batch_assets.core.api.errors import ApiError
from batch_assets.core.erase.held_files import batch_text, kept_until
from batch_assets.core.errors import BatchAssetsError
from batch_assets.core.ledger import Lease, batches
from batch_assets.core.ledger.records import Batch
from batch_assets.core.ledger.states import BatchState
from batch_assets.core.results.retention import delete_batch
from batch_assets.core.root import Root

_REASON = "it held a row that was erased, and its answers are stored"


def delete_batches(root: Root, batch_ids: Iterable[str], lease: Lease) -> tuple[list[str], dict[str, str]]:
    """Delete batches whose answers are stored.

    Args:
        root: The root.
        batch_ids: The ids of the batches.
        lease: The lease on the pipeline's requests.

    Returns:
        The ids of the deleted ones, and for each other why it is not deleted and until when the API keeps it.
    """
    with root.ledger.read() as tx:
        known = {id_: batches.by_id(tx, id_) for id_ in batch_ids}
    deleted, kept = [], {}
    for id_, batch in known.items():
        lease.check()
        if batch is None or batch.state is BatchState.DELETED:
            deleted.append(id_)
        elif not batch.state.stored:
            kept[id_] = batch_text(batch)
        elif (problem := _delete(root, batch)) is None:
            deleted.append(id_)
        else:
            kept[id_] = f"{id_} is not deleted at the API: {problem.rstrip('.')}{kept_until(batch)}"
    return deleted, kept


def _delete(root: Root, batch: Batch) -> str | None:
    try:
        root.check_endpoint()
        return delete_batch(root, batch, _REASON)
    except (ApiError, BatchAssetsError) as error:
        return str(error)
