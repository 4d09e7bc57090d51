"""Check that the API key belongs to the workspace of our batches.

A key of another workspace shows none of our batches, and that proves nothing about them.
"""

from __future__ import annotations

from collections.abc import Container

from batch_assets.core.api.errors import ApiError, NotFoundError
from batch_assets.core.ledger import Transaction, batches, files, workspaces
from batch_assets.core.ledger.records import Intent
from batch_assets.core.ledger.states import BATCHES_UNCOLLECTED, BatchState
from batch_assets.core.root import Root

# The question to the user when the API does not know a batch that it accepted from us.
WHOSE_KEY = "Does the API key belong to the workspace that submitted it?"
# This many other batches are tried too: someone may have deleted the anchor.
_OTHERS = 3


def is_ours(root: Root, intent: Intent | None) -> bool:
    """Whether the API answers for the workspace in which an intent was written.

    It does if the key is the same: a key belongs to one workspace, whatever batches someone has deleted there.
    Otherwise the evidence is the intent's anchor, batches connected to it, and batches that were created with the
    intent's key. Any other batch of ours proves nothing, because the key may have been changed between the two.
    If it is unknown with which key the intent was written, and the workspace had no batch, assume that it does.

    Raises:
        ApiError: When the API cannot be asked now.
    """
    if intent is None or _is_key_of(root, intent):
        return True
    evidence = _evidence(root, intent)
    if not evidence:
        return intent.key_hash is None and intent.anchor_id is None
    return any(is_there(root, batch_id) for batch_id in evidence)


def needs_confirmation(root: Root, intent: Intent) -> bool:
    """Whether only a user can tell that the API answers for the workspace in which an intent was written.

    The API shows no batch that proves it, and the key may be another one. If the API cannot be asked now, a later
    run asks it.
    """
    try:
        return not is_ours(root, intent)
    except ApiError:
        return False


def other_in_doubt(root: Root, listed: Container[str]) -> Intent | None:
    """Return the intent of a file in doubt whose workspace may not be the one that the API answers for.

    Nothing is sent while there is one: batches of two workspaces cannot be polled with the same key.

    Args:
        root: The root.
        listed: The ids of the newest batches that the API shows.

    Returns:
        `None` if there is none.

    Raises:
        ApiError: When the API cannot be asked now.
    """
    with root.ledger.read() as tx:
        doubtful = files.unproved_keys(tx, root.key_hash)
    unproved = (each for each in doubtful if each.anchor_id not in listed and not is_ours(root, each))
    return next(unproved, None)


def shows_refused(root: Root, file_id: str) -> bool:
    """Whether the API would show the batch that a refused upload of a file may have become all the same.

    The list is read after a refusal. If it could not be read then, the key may be one of another workspace by now.

    Raises:
        ApiError: When the API cannot be asked now.
    """
    with root.ledger.read() as tx:
        unseen = [intent for intent in files.of_file(tx, file_id) if intent.is_unseen]
    return all(is_ours(root, intent) for intent in unseen)


def _is_key_of(root: Root, intent: Intent) -> bool:
    return intent.key_hash is not None and intent.key_hash == root.key_hash


def _evidence(root: Root, intent: Intent) -> list[str]:
    """Return ids of batches that the API shows if it answers for the workspace in which an intent was written."""
    with root.ledger.read() as tx:
        if intent.anchor_id is not None:
            connected = [intent.anchor_id, *workspaces.companions(tx, intent.anchor_id)]
        elif intent.key_hash is None:  # no key to compare: batches that were submitted since then have to do
            connected = _submitted_since(tx, intent.started_at)
        else:
            connected = []
        same_key = workspaces.sent_with(tx, intent.key_hash, _OTHERS) if intent.key_hash is not None else []
        deleted = batches.ids_in_state(tx, connected, BatchState.DELETING, BatchState.DELETED)
    shown = [id_ for id_ in connected if id_ not in deleted]
    return list(dict.fromkeys([*shown[: _OTHERS + 1], *same_key]))


def _submitted_since(tx: Transaction, started_at: float) -> list[str]:
    undeleted = batches.in_state(tx, *BATCHES_UNCOLLECTED, BatchState.COLLECTED)
    return [
        batch.id
        for batch in reversed(undeleted)
        if batch.file_id is not None and not batch.provisional and (batch.submitted_at or 0.0) >= started_at
    ]


def accept_key(root: Root) -> None:
    """Record that the current key belongs to the workspace of the uploads in doubt, because a user says so."""
    with root.ledger.write() as tx:
        files.accept_key(tx, root.key_hash)


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


def current_intent(root: Root, file_id: str | None) -> Intent | None:
    """Return the intent that a batch of a request file belongs to; `None` if there is none."""
    if file_id is None:
        return None
    with root.ledger.read() as tx:
        return files.current_intent(tx, file_id)


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
