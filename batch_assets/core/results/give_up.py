"""Give up batches of ours that were deleted at the API before they were collected.

Only a user can report this, because a key of another workspace gets the same answer from the API. Even then the
key must be proved to belong to the right workspace, since the requests may be sent again afterwards.
"""

from __future__ import annotations

from batch_assets.core.batches import workspace
from batch_assets.core.batches.cancel import CancelReport
from batch_assets.core.batches.poll import UNREACHABLE_AFTER_SECONDS
from batch_assets.core.io.layout import response_parts
from batch_assets.core.ledger import batches, files, lost_answers
from batch_assets.core.ledger.records import Batch, RequestFile
from batch_assets.core.ledger.states import BatchMove, BatchState
from batch_assets.core.results.collect import store_canceled
from batch_assets.core.root import Root
from batch_assets.core.store.request_files import StoredRequestFile
from batch_assets.core.text import duration

_LOST = "its answers and its request file are lost, and a user gave them up"
_REASON = "deleted at the API before its answers were collected, and given up by a user"


def may_be_lost(batch: Batch) -> bool:
    """Whether the API no longer knows an uncollected batch or its results."""
    return batch.state in (BatchState.UNREACHABLE, BatchState.ENDED) and batch.lost_since is not None


def give_up_answers(root: Root, batch: Batch) -> bool:
    """Give up a batch whose answers are lost, so that the next submission sends its requests again.

    Args:
        root: The root.
        batch: A batch.

    Returns:
        False if its answers are not lost, as far as the last run found out, or one of its files is back.
    """
    file = _file_of(root, batch)
    if file is None or not lost_answers.is_lost(file) or _has_files(root, batch, file):
        return False
    with root.ledger.write(batch.pipeline) as tx:
        return lost_answers.give_up(tx, batch.id, _LOST)


def _file_of(root: Root, batch: Batch) -> RequestFile | None:
    with root.ledger.read() as tx:
        return files.by_id(tx, batch.file_id) if batch.file_id is not None else None


def _has_files(root: Root, batch: Batch, file: RequestFile) -> bool:
    """Whether the request file or the response file of a batch is there."""
    paths = StoredRequestFile.of(root.storage, file).parts, response_parts(file.pipeline, batch.id)
    return any(root.storage.is_file(*parts) for parts in paths)


def _without_files(root: Root, batch: Batch) -> bool:
    """Give up a batch that was deleted and neither of whose files is left. Return whether that is so."""
    file = _file_of(root, batch)
    if file is None or _has_files(root, batch, file):
        return False
    with root.ledger.write(batch.pipeline) as tx:
        batches.end_unseen(tx, batch.id, _REASON)
        lost_answers.note(tx, file.id, _LOST)
        return lost_answers.give_up(tx, batch.id, _LOST)


def give_up(root: Root, batch: Batch, report: CancelReport) -> None:
    """Make every request of a lost batch `canceled`, so that the next submission sends them again.

    If the batch was adopted on its count alone, this is undone instead: later runs look for its request file at
    the API again, and send it only if it is not there.

    Args:
        root: The root.
        batch: A batch that the API answers 404 for.
        report: What was done is added to it, or why it is impossible.

    Raises:
        ApiError: When the workspace of the key cannot be determined now.
        ResultsError: When the request file is missing.
    """
    with root.ledger.read() as tx:
        since = tx.now - (batch.lost_since if batch.lost_since is not None else tx.now)
    if since < UNREACHABLE_AFTER_SECONDS:
        wait = f"the API has answered 404 for only {duration(since)}; cancel again later"
        report.problems.append(f"{batch.id}: {wait}")
    elif batch.provisional:  # it may be someone else's, and be back with another key: then it is found again
        if _disprove(root, batch):
            report.disproved.append(batch.id)
        else:
            report.problems.append(f"{batch.id}: another run just changed it; cancel again")
    elif not workspace.is_proved(root, batch.id):
        report.problems.append(f"{batch.id}: {_not_proved(batch)}")
    elif _without_files(root, batch):
        report.given_up.append(batch.id)
    elif not store_canceled(root, batch, f"{batch.id} was {_REASON}"):
        report.problems.append(f"{batch.id}: another run is busy with it; cancel again later")
    else:
        with root.ledger.write(batch.pipeline) as tx:
            batches.move_stored(tx, BatchMove.GIVE_UP, batch.id, _REASON)
        report.given_up.append(batch.id)


def _disprove(root: Root, batch: Batch) -> bool:
    """Undo the adoption of a batch on its count alone. Return whether it still was so."""
    with root.ledger.write() as tx:
        current = batches.by_id(tx, batch.id)
        if current is None or not current.provisional or not current.state.uncollected:
            return False
        batches.disprove(tx, batch.id, "adopted on its count, 404, and given up by a user")
        return True


def _not_proved(batch: Batch) -> str:
    return (
        "the API answers 404, and shows no batch that certainly belongs to the same workspace. "
        f"{workspace.WHOSE_KEY} If not, set a key of that workspace and cancel again. Without proof, its rows are "
        "given up when the API stops keeping the results, 29 days from its creation"
    )
