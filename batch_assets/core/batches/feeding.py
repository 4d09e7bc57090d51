"""Feed the queue of the API: never more queued requests than it takes, and in turn for all pipelines."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from batch_assets.core.api.errors import RATE_LIMITED, ApiError, NotFoundError, RefusedError
from batch_assets.core.ledger import Transaction, files, holds, overview, queue
from batch_assets.core.ledger.budgets import Fit
from batch_assets.core.ledger.records import RequestFile
from batch_assets.core.ledger.states import FileState, HoldReason
from batch_assets.core.root import Root

# The API is asked for the account's limit at most so often, and a key that it refuses more rarely.
_ASK_SECONDS, _ASK_REFUSED_SECONDS = 3600.0, 24 * 3600.0
# What tells a refusal for the queue from one for the number of calls.
_QUEUE = re.compile(r"queue|in process|processing", re.IGNORECASE)
_CALLS = re.compile(r"per minute|acceleration|ramp", re.IGNORECASE)


def note_turns(root: Root) -> None:
    """Record which pipelines could take their turn now. Those that let it pass keep no one waiting for long."""
    with root.ledger.read() as tx:
        if not queue.note_turns(tx):
            return
    with root.ledger.write() as tx:
        for name in queue.note_turns(tx):
            queue.keep(tx, name, passed_at=tx.now)


def ask_account(root: Root) -> None:
    """Ask the API how many requests the account may have in its queue.

    It is not asked if that was done lately, or if a limit is set. Most keys may not ask: then the limit is learned
    from refusals.
    """
    if root.settings.max_in_flight is not None:
        return
    with root.ledger.read() as tx:
        if not queue.account_is_due(tx):
            return
    wait, values = _ASK_SECONDS, dict[str, int | None]()
    try:
        values = {"account": root.api.queue_limit()}
    except (NotFoundError, RefusedError):
        values, wait = {"account": None}, _ASK_REFUSED_SECONDS
    except ApiError:
        pass  # what it answered before stays in force
    with root.ledger.write() as tx:
        queue.keep(tx, queue.ROOT, **values, ask_at=tx.now + wait)


def held_with_room(root: Root, waiting: Sequence[RequestFile]) -> set[str]:
    """Return the ids of those of some files that wait for room in the queue and that fit into it now."""
    held = [file for file in waiting if file.is_held_by_queue]
    if not held:
        return set()
    with root.ledger.read() as tx:
        judged = queue.prospects(tx, held, root.settings.max_in_flight)
        has_passed = queue.has_passed(tx, held[0].pipeline)
    if has_passed and not any(prospect.may_go for prospect in judged.values()):
        with root.ledger.write(held[0].pipeline, endpoint=True) as tx:
            queue.note_asked(tx, held[0].pipeline, is_served=False)
    return {file_id for file_id, prospect in judged.items() if prospect.may_go}


def hold_without_room(root: Root, waiting: Mapping[str, Sequence[RequestFile]]) -> bool:
    """Hold the files that are ready and that the queue has no room for, all at once.

    The others may go, in their order. A file that has to be cut for the queue is among them.

    Args:
        root: The root.
        waiting: By the id of a submission the files that its rows wait on. All are of one pipeline.

    Returns:
        Whether files were held.
    """
    with root.ledger.read() as tx:
        if not _without_room(tx, root, waiting):
            return False
    pipeline = next(file.pipeline for some in waiting.values() for file in some)
    with root.ledger.write(pipeline, endpoint=True) as tx:
        why_of = _without_room(tx, root, overview.files_of(tx, [*waiting]))
        if why_of:
            holds.hold_each(tx, why_of, HoldReason.QUEUE)
            queue.note_asked(tx, pipeline, is_served=False)
    return bool(why_of)


def _without_room(tx: Transaction, root: Root, waiting: Mapping[str, Sequence[RequestFile]]) -> dict[str, str]:
    """Return by id why files that are ready do not fit into the queue."""
    known = {file.id: file for some in waiting.values() for file in some}.values()
    due = [file for file in known if file.state is FileState.READY and file.not_before <= tx.now]
    if not due:
        return {}
    judged = queue.prospects(tx, due, root.settings.max_in_flight)
    return {id_: prospect.why for id_, prospect in judged.items() if prospect.fit is Fit.NOT_NOW}


def is_about_queue(error: RefusedError) -> bool:
    """Whether the API refused a batch because too many requests are in its queue."""
    text = str(error)
    return error.status == RATE_LIMITED and _QUEUE.search(text) is not None and _CALLS.search(text) is None


class QueuePlace:
    """The place of one request file in the queue.

    Args:
        root: The root.
        file: The file.

    Attributes:
        is_cut: Whether it was held because it alone is larger than the queue.
    """

    def __init__(self, root: Root, file: RequestFile) -> None:
        self._root, self._file = root, file
        self.is_cut = False

    def is_free(self, tx: Transaction) -> bool:
        """Whether the file fits into the queue now."""
        return queue.prospects(tx, [self._file], self._root.settings.max_in_flight)[self._file.id].fit is Fit.WHOLE

    def take(self, tx: Transaction) -> bool:
        """Whether the file fits into the queue. It is held if not.

        No other file takes the same room before the intent is written, if the transaction writes it: it has locked
        out every other writer of an intent.
        """
        prospect = queue.prospects(tx, [self._file], self._root.settings.max_in_flight)[self._file.id]
        queue.note_asked(tx, self._file.pipeline, is_served=prospect.fit is Fit.WHOLE)
        if prospect.fit is Fit.WHOLE:
            return True
        files.hold(tx, self._file.id, HoldReason.QUEUE, prospect.why)
        self.is_cut = prospect.fit is Fit.IN_PART
        return False
