"""Check that the API key belongs to the workspace of our batches.

A key of another workspace shows none of our batches, and that proves nothing about them.
"""

from __future__ import annotations

from batch_assets.core.api.errors import NotFoundError
from batch_assets.core.ledger import batches, files, workspaces
from batch_assets.core.ledger.records import Intent
from batch_assets.core.ledger.states import BATCHES_UNCOLLECTED, BatchState
from batch_assets.core.root import Root

# The question to the user when the API does not know a batch that it accepted from us.
WHOSE_KEY = "Does the API key belong to the workspace that submitted it?"
# This many of our other batches are tried too: retention may have deleted the anchor.
_OTHERS = 3


def is_ours(root: Root, intent: Intent | None) -> bool:
    """Whether the API answers for the workspace in which an intent was written.

    Without evidence, it does if the key is the same. If it is unknown with which key the intent was written,
    assume that it does.

    The evidence is the intent's anchor, a batch of that workspace, and other batches of ours. If the workspace had
    no batch, only batches submitted since then count.

    Raises:
        ApiError: When the API cannot be asked now.
    """
    if intent is None:
        return True
    evidence = _evidence(root, intent)
    if not evidence:
        return _is_key_of(root, intent)
    return any(is_there(root, batch_id) for batch_id in evidence)


def needs_confirmation(root: Root, intent: Intent) -> bool:
    """Whether only a user can tell that the API answers for the workspace in which an intent was written.

    That is so if no batch shows the workspace and the key is another one.
    """
    return not (_is_key_of(root, intent) or _evidence(root, intent))


def _is_key_of(root: Root, intent: Intent) -> bool:
    return intent.key_hash is None or intent.key_hash == root.api.key_hash(root.salt)


def _evidence(root: Root, intent: Intent) -> list[str]:
    """Return ids of batches that the API shows if it answers for the workspace in which an intent was written."""
    with root.ledger.read() as tx:
        undeleted = batches.in_state(tx, *BATCHES_UNCOLLECTED, BatchState.COLLECTED)
    ours = [batch for batch in reversed(undeleted) if batch.file_id is not None and not batch.provisional]
    if intent.anchor_id is None:
        ours = [batch for batch in ours if (batch.submitted_at or 0.0) >= intent.started_at]
    return [*filter(None, [intent.anchor_id]), *(batch.id for batch in ours[:_OTHERS])]


def accept_key(root: Root) -> None:
    """Record that the current key belongs to the workspace of the uploads in doubt, because a user says so."""
    with root.ledger.write() as tx:
        files.accept_key(tx, root.api.key_hash(root.salt))


def is_proved(root: Root, batch_id: str) -> bool:
    """Whether the API certainly answers for the workspace in which a batch of ours was created.

    Unlike `is_ours` this assumes nothing, because the conclusion is that the batch was deleted. Any other batch of
    ours is no proof, since the key may have been changed between the two.

    Raises:
        ApiError: When the API cannot be asked now.
    """
    with root.ledger.read() as tx:
        companions = workspaces.companions(tx, batch_id)
    if not companions:
        return False
    listed = {batch.id for batch in root.api.page().batches}
    if batch_id in listed:
        return False
    return not listed.isdisjoint(companions) or any(
        is_there(root, companion) for companion in companions[:_OTHERS]
    )


def last_intent(root: Root, file_id: str | None) -> Intent | None:
    """Return a request file's last intent; `None` if there is none."""
    if file_id is None:
        return None
    with root.ledger.read() as tx:
        intents = files.of_file(tx, file_id)
    return intents[-1] if intents else None


def question(root: Root) -> str:
    """The question to a user whose key shows none of our batches."""
    owner = f" The key belongs to the organization {root.api.organization}." if root.api.organization else ""
    return (
        f"{root.api.base_url} does not show what was submitted. {WHOSE_KEY}{owner} Nothing is submitted again; "
        "work continues automatically when the right key is back"
    )


def unreachable(batch_id: str) -> str:
    """The notice about a batch that the API has not known for minutes."""
    return (
        f"{batch_id}: the API answers 404. {WHOSE_KEY} Nothing is submitted again, and work continues "
        "automatically when the right key is back"
    )


def results_refused(batch_id: str) -> str:
    """The notice about an ended batch whose results the API refuses."""
    return (
        f"{batch_id}: the API refuses its results. {WHOSE_KEY} They are downloaded again automatically, when the "
        "right key is back too"
    )


def is_there(root: Root, batch_id: str) -> bool:
    """Whether the API knows a batch.

    Raises:
        ApiError: When the API cannot be asked now.
    """
    try:
        root.api.retrieve(batch_id)
    except NotFoundError:
        return False
    return True
