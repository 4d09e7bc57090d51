"""Whose list is it? A key of another workspace shows none of our batches, which proves nothing of them."""

from __future__ import annotations

from batch_assets.core.client import NotFoundError
from batch_assets.core.ledger import batches, files
from batch_assets.core.root import Root

# So many of our own batches are asked for where the anchor is gone: retention may have deleted it.
_OTHERS = 3


def is_ours(root: Root, anchor_id: str | None) -> bool:
    """Whether the API answers for the workspace in which an intent was written.

    Args:
        anchor_id: of the intent: a batch that the workspace held; None where it held none, which is believed.

    Errors:
        ApiError: not to be known now.
    """
    if anchor_id is None:
        return True
    with root.ledger.read() as tx:
        known = batches.in_state(tx, "open", "ended", "collected")
    own = [batch.id for batch in reversed(known) if batch.file_id is not None and not batch.provisional]
    return any(is_there(root, batch_id) for batch_id in [anchor_id, *own[:_OTHERS]])


def anchor_of(root: Root, file_id: str | None) -> str | None:
    """The anchor of a request file's last intent."""
    if file_id is None:
        return None
    with root.ledger.read() as tx:
        sent = files.of_file(tx, file_id)
    return sent[-1].anchor_id if sent else None


def question(root: Root) -> str:
    """What to ask a person whose key shows none of our batches."""
    whose = f" (organization {root.api.organization})" if root.api.organization else ""
    return (
        f"{root.api.base_url} does not show what was submitted. Is ANTHROPIC_API_KEY of the workspace that "
        f"submitted it{whose}? Nothing is submitted again; it goes on by itself when the right key is back"
    )


def is_there(root: Root, batch_id: str) -> bool:
    """Whether the API knows a batch. Errors: ApiError, not to be known now."""
    try:
        root.api.retrieve(batch_id)
    except NotFoundError:
        return False
    return True
