"""Whose list is it? A key of another workspace shows none of our batches, which proves nothing of them."""

from __future__ import annotations

from batch_assets.core.api.errors import NotFoundError
from batch_assets.core.ledger import batches, files, workspaces
from batch_assets.core.ledger.records import Intent
from batch_assets.core.ledger.states import BATCHES_UNCOLLECTED, BatchState
from batch_assets.core.root import Root

# What to ask a person when the API does not know a batch that it gave us.
WHOSE_KEY = "Is ANTHROPIC_API_KEY of the workspace that submitted it?"
# So many of our own batches are asked for where the anchor is gone: retention may have deleted it.
_OTHERS = 3


def is_ours(root: Root, intent: Intent | None) -> bool:
    """Whether the API answers for the workspace in which an intent was written; believed where nothing tells.

    Its anchor tells, a batch that the workspace held. Where it held none, what was submitted since tells.

    Errors:
        ApiError: not to be known now.
    """
    if intent is None:
        return True
    with root.ledger.read() as tx:
        known = batches.in_state(tx, *BATCHES_UNCOLLECTED, BatchState.COLLECTED)
    own = [batch for batch in reversed(known) if batch.file_id is not None and not batch.provisional]
    if intent.anchor_id is None:
        own = [batch for batch in own if (batch.submitted_at or 0.0) >= intent.started_at]
    told = [*filter(None, [intent.anchor_id]), *(batch.id for batch in own[:_OTHERS])]
    return not told or any(is_there(root, batch_id) for batch_id in told)


def is_proved(root: Root, batch_id: str) -> bool:
    """Whether the API surely answers for the workspace that a batch of ours was created in.

    Unlike `is_ours` it believes nothing: what follows is that the batch was deleted. Another batch of ours is
    no proof by itself, since the key may have been changed between the two.

    Errors:
        ApiError: not to be known now.
    """
    with root.ledger.read() as tx:
        companions = workspaces.companions(tx, batch_id)
    if not companions:
        return False
    listed = {batch.id for batch in root.api.page().batches}
    if batch_id in listed:
        return False
    return not listed.isdisjoint(companions) or any(is_there(root, one) for one in companions[:_OTHERS])


def last_intent(root: Root, file_id: str | None) -> Intent | None:
    """A request file's last intent."""
    if file_id is None:
        return None
    with root.ledger.read() as tx:
        sent = files.of_file(tx, file_id)
    return sent[-1] if sent else None


def question(root: Root) -> str:
    """What to ask a person whose key shows none of our batches."""
    whose = f" It is of the organization {root.api.organization}." if root.api.organization else ""
    return (
        f"{root.api.base_url} does not show what was submitted. {WHOSE_KEY}{whose} Nothing is submitted again; "
        "it goes on by itself when the right key is back"
    )


def unreachable(batch_id: str) -> str:
    """What to say to a person of a batch that the API has not known for long."""
    return (
        f"{batch_id}: the API answers 404. {WHOSE_KEY} Nothing is submitted again, and it goes on by itself when "
        f"the right key is back. {if_deleted(batch_id)}"
    )


def if_deleted(batch_id: str) -> str:
    """How a person gives up a batch of ours that is gone."""
    return f"If it was deleted there: `batch-assets cancel {batch_id}` gives its requests up"


def is_there(root: Root, batch_id: str) -> bool:
    """Whether the API knows a batch. Errors: ApiError, not to be known now."""
    try:
        root.api.retrieve(batch_id)
    except NotFoundError:
        return False
    return True
