"""Add to the ledger what the files under the root show and it does not know.

A ledger that was restored from a backup, or that failed over to a copy, is older than the files. A folder of a
submission that it does not know is one that it has lost. A receipt beside a file that it counts as unsent shows
that the file was sent, even if it is damaged. A complete response file shows that its batch was collected. Without
these, the same requests would be sent and paid for again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from functools import partial

from batch_assets.core.errors import BusyError, UnfinishedRenamingError
from batch_assets.core.io.layout import submission_parts
from batch_assets.core.io.names import PartName
from batch_assets.core.ledger import (
    Lease,
    Transaction,
    batches,
    builds,
    files,
    known_files,
    leases,
    restore,
    submissions,
)
from batch_assets.core.ledger.intents import IntentOutcome
from batch_assets.core.ledger.moves import move
from batch_assets.core.ledger.records import RequestFile, Submission
from batch_assets.core.ledger.request_leases import hold_pipeline
from batch_assets.core.ledger.states import FileMove, FileState
from batch_assets.core.recovery import stored_answers
from batch_assets.core.recovery.found_files import submission_folders
from batch_assets.core.recovery.lost_files import find_pipeline, reject_receipt
from batch_assets.core.recovery.lost_pipeline import LostFile, LostPipeline
from batch_assets.core.recovery.missing_files import check_renaming
from batch_assets.core.recovery.rebuild import Known, write_pipeline, write_resent
from batch_assets.core.recovery.root_file import readable
from batch_assets.core.remedies import FinishRenaming
from batch_assets.core.root import Root
from batch_assets.core.store.manifest import was_finished, was_sent
from batch_assets.core.text import count

_log = logging.getLogger("batch_assets")
_OLDER = "the ledger is older than the files under the root"
_DAMAGED_RECEIPT = f"{_OLDER}, and its receipt is damaged: it was sent, and its batch is looked for"


def catch_up(root: Root, pipeline: str, partition: str | None, lease: Lease | None, wait: float | None) -> None:
    """Bring a ledger up to date that is older than a pipeline's files. Usually it finds nothing to do.

    Args:
        root: The root.
        pipeline: The name of the pipeline.
        partition: Look for traces in this partition only; `None` for all. If there are any, what is
            missing is added for the whole pipeline.
        lease: The lease on all of the pipeline's requests, if the caller holds it.
        wait: If something is missing, seconds to wait for the lease; `None` to add nothing now if others have it.

    Raises:
        UnfinishedRenamingError: When this pipeline was being renamed, or another one was being renamed to it.
        BusyError: When something is missing, and other work was not done by then.
    """
    with root.ledger.read() as tx:
        check_renaming(tx, root.storage, pipeline)
    record_answers = partial(stored_answers.record, root, pipeline, partition)
    is_behind, _ = root.storage.both(partial(_is_behind, root, pipeline, partition), record_answers)
    if is_behind:
        _add_from_files(root, pipeline, partition, lease, wait)
        record_answers()


def _add_from_files(
    root: Root, pipeline: str, partition: str | None, lease: Lease | None, wait: float | None
) -> None:
    if lease is not None:
        _catch_up(root, pipeline, lease)
        return
    try:
        with hold_pipeline(root.ledger, pipeline, wait=wait or 0.0) as own_lease:
            # Another process may have caught up meanwhile.
            if _is_behind(root, pipeline, partition):
                _catch_up(root, pipeline, own_lease)
    except BusyError:
        if wait is not None:
            raise


def _unknown(
    root: Root, pipeline: str, partition: str | None, names_of: Callable[..., list[str]] | None = None
) -> tuple[set[str], set[str]]:
    """Find the folders that are not those of a submission of the pipeline, as far as the ledger knows.

    Args:
        root: The root.
        pipeline: The name of the pipeline.
        partition: Look in this partition only; `None` for all.
        names_of: See `submission_folders`.

    Returns:
        The ids of submissions that the ledger has lost, and those of folders that are none of the pipeline's
        submissions: copies of other pipelines' folders, and builds that were never registered.

    Raises:
        UnfinishedRenamingError: When the folder of another pipeline's submission was moved, not copied.
    """
    with root.ledger.read() as tx:
        own = submissions.known_ids(tx, pipeline)
    # Outside of a transaction: an object store may take minutes to list the folders.
    folders = {id_: key for key, id_ in submission_folders(root.storage, pipeline, partition, own, names_of)}
    with root.ledger.read() as tx:  # a build may have been registered meanwhile
        others = known_files.by_ids(tx, [*folders])
        unregistered = builds.unregistered(tx, [*folders])
    own = {id_ for id_, other in others.items() if other.pipeline == pipeline}
    for other in others.values():
        if other.pipeline != pipeline and not was_finished(
            root.storage, other.pipeline, other.partition, other.id
        ):
            raise UnfinishedRenamingError(
                f"{root.storage.uri(pipeline)} has the files that the ledger knows as {other.pipeline!r}'s, "
                "which was being renamed. Nothing is sent under the new name before that is finished",
                remedy=FinishRenaming(other.pipeline, pipeline),
            )
    left_out = {
        id_
        for id_, key in folders.items()
        if id_ in unregistered and not was_sent(root.storage, pipeline, key, id_)
    }
    # A build that met an equal request may have removed its folder and then its record meanwhile.
    lost = {
        id_
        for id_ in folders.keys() - others.keys() - left_out
        if was_finished(root.storage, pipeline, folders[id_], id_)
    }
    return lost, (others.keys() - own) | left_out


def _is_behind(root: Root, pipeline: str, partition: str | None) -> bool:
    # Before the ledger is read: what is registered or sent in between is not listed yet.
    names_of = root.storage.names_below(pipeline, "requests") if partition is None else root.storage.names
    with root.ledger.read() as tx:
        files_in_flight = submissions.files_in_flight(tx, pipeline, partition)
        in_force = _in_force(tx, pipeline, partition)
        if partition is not None:  # its requests may be in files of other partitions
            files_in_flight += [file for each in in_force for file in submissions.waited_on(tx, each.id)]
    looked_at = {(file.partition, file.submission_id) for file in files_in_flight if file.state.unsent}
    looked_at |= {(submission.partition, submission.id) for submission in in_force}
    folders = [submission_parts(pipeline, *folder) for folder in sorted(looked_at)]
    list_all = [partial(names_of, *folder) for folder in folders]
    (unknown, _), listed = root.storage.both(
        lambda: _unknown(root, pipeline, partition, names_of), lambda: root.storage.together(list_all)
    )
    names = {folder[-1]: folder_names for folder, folder_names in zip(folders, listed, strict=True)}
    return bool(unknown) or _has_unknown_receipts(root, names)


def _in_force(tx: Transaction, pipeline: str, partition: str | None) -> list[Submission]:
    if partition is None:
        return submissions.all_newest(tx, pipeline)
    newest = submissions.newest(tx, pipeline, partition)
    return [newest] if newest is not None else []


def _has_unknown_receipts(root: Root, names: Mapping[str, Collection[str]]) -> bool:
    """Whether there is a receipt beside a file that the ledger counts as unsent or does not know.

    Args:
        root: The root.
        names: The names of the files in the folder of each submission, by its id.
    """
    receipts = {
        (id_, str(part))
        for id_, of_folder in names.items()
        for name in of_folder
        if (part := PartName.of_file(name)) is not None and name == part.receipt
    }
    if not receipts:
        return False
    with root.ledger.read() as tx:
        states = files.states_of(tx, sorted({id_ for id_, _ in receipts}))
    return any((state := states[id_].get(part)) is None or state.unsent for id_, part in receipts)


def _catch_up(root: Root, pipeline: str, lease: Lease) -> None:
    _, foreign = _unknown(root, pipeline, None)
    lost, root_file = find_pipeline(root.storage, pipeline, foreign), readable(root.storage)
    with root.ledger.write() as tx:
        lease.confirm(tx)
        known = Known(
            frozenset(submissions.known_ids(tx, pipeline)),
            frozenset(files.known_ids(tx, pipeline)),
            frozenset(batches.known_ids(tx)),
        )
        in_flight = [file for file in submissions.files_in_flight(tx, pipeline) if file.id in known.files]
        undecided = {file.id for file in in_flight if file.state.unsent or file.state.in_doubt}
        added = _without_leftovers(lost, known, undecided)
        is_certain = any(file.part.was_sent or file.responses is not None for file in added)
        _check_batches(tx, lost, added)
        write_pipeline(tx, lost, known)
        by_id = {file.id: file for file in lost.files}
        in_flight = [file for file in in_flight if file.id in undecided and file.id in by_id]
        unsent = [file for file in in_flight if file.state.unsent]
        is_certain |= any(
            by_id[file.id].part.was_sent and _contradiction(tx, file, by_id[file.id]) is None for file in unsent
        )
        for file in in_flight:
            shown = by_id[file.id]
            if _is_split(shown, by_id) and _set_whole_aside(tx, file):
                continue
            if file.state.unsent:
                _settle(tx, file, shown, known, is_certain=is_certain)
        write_resent(tx, lost, {file.id for file in in_flight})
        restore.sent_with(tx, root_file.key_hash if root_file is not None else None)
        settled = sum(files.by_id(tx, file.id).state is not file.state for file in in_flight)
    if not (added or settled):
        return
    _log.warning(
        f"The ledger was older than the files of {pipeline} in {root.storage.url}: "
        f"{count(len({file.submission.id for file in added} - known.submissions), 'submission')} and "
        f"{count(len(added), 'request file')} were added from them, and "
        f"the state of {count(settled, 'request file')} was corrected."
    )
    for problem in lost.problems:
        _log.warning(problem)


def _check_batches(tx: Transaction, lost: LostPipeline, added: Collection[LostFile]) -> None:
    """Keep only those batches of unknown files that no other file has, so that they can be added.

    A receipt or answers prove more than a match by the count alone. But the receipt may have been copied from
    another file, or the file from one whose answers are stored.

    Args:
        tx: The transaction.
        lost: What the files show.
        added: The files that are about to be added.
    """
    owners: dict[str, str] = {}
    for file in added:
        receipt = file.part.receipt
        named = receipt if receipt is not None else file.responses
        if named is None:
            continue
        batch_id = named.batch_id
        batches.give_way(tx, file.id, batch_id)
        problem = restore.contradiction(tx, file.id, batch_id)
        if problem is None and batch_id in owners:
            problem = f"the receipt of {file.id} names {batch_id}, and so does that of {owners[batch_id]}"
        if problem is None:
            owners[batch_id] = file.id
        elif receipt is not None:
            reject_receipt(lost, file, f"{problem}: its own batch is looked for")
        else:
            file.state, file.responses = FileState.SUPERSEDED, None
            file.why = f"the answers of {batch_id}, which the ledger knows, are those to its requests"


def _without_leftovers(lost: LostPipeline, known: Known, undecided: Collection[str]) -> list[LostFile]:
    """Leave out the unknown files that no trace shows to have been sent, of submissions that the ledger knows.

    A retry that was killed leaves such files. They were never registered, so they were never sent. The parts of a
    file that was too large are kept if the ledger does not know that it was split: they have its requests now.

    Args:
        lost: What the files show.
        known: The ids that the ledger had before.
        undecided: The ids of the files that are unsent or in doubt, as far as the ledger knows.

    Returns:
        The unknown files that are left.
    """
    by_id = {file.id: file for file in lost.files}
    leftovers = {
        id_
        for id_, file in by_id.items()
        if file.submission.id in known.submissions and id_ not in known.files
        if not (file.state.sent or file.part.was_sent or _is_part(file, by_id, undecided))
    }
    if leftovers:
        lost.files = [file for file in lost.files if file.id not in leftovers]
        for waits in lost.waits.values():
            waits -= leftovers
    return [file for file in lost.files if file.id not in known.files]


def _is_part(file: LostFile, by_id: Mapping[str, LostFile], undecided: Collection[str]) -> bool:
    """Whether a file is needed as a part of one of the undecided files."""
    whole = file.file_id.whole
    is_complete = whole is not None and all(str(half) in by_id for half in whole.halves)
    is_needed = file.state is FileState.UNRESOLVED or _is_split(file, by_id)
    return is_complete and is_needed and any(str(whole) in undecided for whole in file.file_id.wholes())


def _is_split(file: LostFile, by_id: Mapping[str, LostFile]) -> bool:
    """Whether two files have replaced a file, which was too large."""
    is_set_aside = file.state is FileState.SUPERSEDED and not file.part.was_sent
    return is_set_aside and all(str(half) in by_id for half in file.file_id.halves)


def _set_whole_aside(tx: Transaction, file: RequestFile) -> bool:
    """Set a file aside that was split after its upload was refused, which the ledger does not know.

    Returns:
        False if it is not too large or in doubt, as far as the ledger knows.
    """
    reason = f"{_OLDER}: it was too large, and was split"
    if file.state is FileState.TOO_LARGE:
        move(tx, FileMove.CUT, file.id, reason)
        return True
    if not file.state.in_doubt or leases.is_held(tx, files.lease_name(file.id)):
        return False
    if (intent := files.current_intent(tx, file.id)) is not None:
        files.settle(tx, intent.id, IntentOutcome.RESENT, watch_until=tx.now + files.WATCH_SECONDS)
    move(tx, FileMove.DROP, file.id, reason)
    return True


def _contradiction(tx: Transaction, file: RequestFile, shown: LostFile) -> str | None:
    """Return why a receipt is another file's, so that it shows nothing; `None` if it may be its own."""
    receipt = shown.part.receipt
    return restore.contradiction(tx, file.id, receipt.batch_id) if receipt is not None else None


def _settle(tx: Transaction, file: RequestFile, shown: LostFile, known: Known, *, is_certain: bool) -> None:
    """Move a file that the ledger counts as unsent to the state that its files show.

    Args:
        tx: The transaction.
        file: The file as the ledger has it.
        shown: The file as the files show it.
        known: The ids that the ledger had before.
        is_certain: Something was certainly sent that the ledger does not know, so this file may have been sent.
    """
    receipt, was_sent = shown.part.receipt, shown.part.was_sent
    if file.state is FileState.TOO_LARGE or (not was_sent and shown.state is FileState.REFUSED):
        return
    answers = shown.responses if receipt is None else None
    if answers is not None and answers.batch_id in known.batches:
        answers = None  # they answer a file that the ledger knows as sent
    is_settled = was_sent or answers is not None or shown.state is FileState.SUPERSEDED
    if file.state is FileState.STOPPED and is_settled:
        move(tx, FileMove.RESUME, file.id, _OLDER, not_before=0.0)
    problem = _contradiction(tx, file, shown)
    if problem is not None:
        restore.mistrust(tx, files.by_id(tx, file.id), f"{problem}: its own batch is looked for")
    elif receipt is not None:
        batches.accept(
            tx,
            file.id,
            None,
            receipt.batch,
            provisional=False,
            replied=receipt.replied is True,
            reason=batches.BY_RECEIPT,
        )
    elif answers is not None:
        stored_answers.add(tx, file, answers, f"{_OLDER}: {shown.why}")
    elif was_sent:
        restore.mistrust(tx, files.by_id(tx, file.id), _DAMAGED_RECEIPT)
    elif shown.state is FileState.SUPERSEDED:
        move(tx, FileMove.SET_ASIDE, file.id, f"{_OLDER}: {shown.why}")
    elif is_certain and file.state.replaceable:
        restore.mistrust(tx, file, f"{_OLDER}, and no receipt says whether this was sent")
