"""Rename a pipeline: what was submitted, answered and is still at the API goes on under the new name.

Every step may be killed and repeated: an unsent build under the new name is removed first, then the folder is
moved, the manifests in it are rewritten, and the ledger follows in one transaction. What was stored under the old
name in between is moved after it.

An object store moves a folder file by file: it copies all of them, and then removes them. The history records that
this has begun, so that the next call goes on with it and does not take the copies for files of another pipeline.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import sqlalchemy as sa

from batch_assets.core.errors import BatchAssetsError, BusyError, DamagedFileError
from batch_assets.core.io.layout import submission_parts
from batch_assets.core.io.storage import Storage
from batch_assets.core.ledger import Transaction, batches, files, leases, rescues, submissions
from batch_assets.core.ledger.known_files import pipelines
from batch_assets.core.ledger.records import Submission
from batch_assets.core.ledger.request_leases import hold_pipeline
from batch_assets.core.ledger.rescue_tables import live_group, rescue, rescue_rule
from batch_assets.core.ledger.states import FILES_REPLACEABLE, EntityKind, FileState
from batch_assets.core.ledger.tables import (
    batch,
    budget,
    history,
    indexed_file,
    intent,
    lease,
    notice,
    notice_target,
    pilot,
    queue,
    request_file,
    reservation,
    round_,
    submission,
    wait,
)
from batch_assets.core.recovery.found_files import submission_folders
from batch_assets.core.root import Root
from batch_assets.core.store.manifest import MANIFEST, Manifest, remove_submission
from batch_assets.core.text import count, nothing_submitted

_log = logging.getLogger("batch_assets")
_NAME = re.compile(r"[A-Za-z0-9_]{1,100}")
_RENAMED = (submission, request_file, batch, notice, indexed_file, reservation, rescue, live_group)
_TABLES = ("results", "results_next")
# What the history calls a submission whose files are being moved, and one that was moved.
_MOVING, _MOVED = "{old} is being renamed to {new}", "renamed from {old} to {new}"
# The lengths of the paths that may be dropped: all tables, and folders of submissions without and with partitions.
_FOLDERS = (2, 3, 4)
# The states of request files of which nothing was ever sent, unless they have an intent.
_UNSENT = [*FILES_REPLACEABLE, FileState.SUPERSEDED, FileState.CANCELED]


class RenameError(BatchAssetsError):
    """A pipeline cannot be renamed. Nothing was changed."""


@dataclass(frozen=True)
class _Plan:
    """What a renaming has to do.

    Attributes:
        renamed: The submissions whose folders get the new name.
        unsent: The submissions under the new name of which nothing was sent. They are dropped.
        has_begun: The folders of submissions have the new name already: an earlier renaming was interrupted, or
            someone moved the folder.
        is_interrupted: An object store has copied files already, and may have removed some.
    """

    renamed: list[Submission]
    unsent: list[Submission]
    has_begun: bool
    is_interrupted: bool = False


def rename(root: Root, old: str, new: str) -> int:
    """Give a pipeline's submissions, files and batches another name.

    Args:
        root: The root.
        old: The name in the ledger.
        new: The name of the pipeline in the project.

    Returns:
        The number of submissions.

    Raises:
        RenameError: When there is nothing under the old name, or something under the new one.
        BusyError: When a run is working on one of the two.
    """
    if old == new:
        raise RenameError(f"{old!r} is the name that it has: give another one")
    if not _NAME.fullmatch(new):
        raise RenameError(f"{new!r} cannot be the name of a pipeline: letters, digits and _, at most 100")
    with (
        hold_pipeline(root.ledger, old) as first,
        hold_pipeline(root.ledger, new) as second,
        leases.hold(root.ledger, "reconcile", work="the files in doubt") as third,
    ):
        with root.ledger.read() as tx:
            of_old, of_new = submissions.of_pipeline(tx, old), submissions.of_pipeline(tx, new)
        plan = _plan(root, old, new, of_old, of_new)

        @contextmanager
        def writing() -> Iterator[Transaction]:
            # What is sent needs no lease on a pipeline's requests, and listing the files may have taken minutes.
            with root.ledger.write() as tx:
                for held in (first, second, third):
                    held.confirm(tx)
                for name in (old, new):
                    _check_idle(tx, name)
                yield tx

        with writing() as tx:
            if plan.unsent:
                _check_unsent(root, tx, old, new)
        _make_room(root.storage, old, new, plan)  # as long as the ledger knows what it was for
        with writing() as tx:
            if plan.unsent:
                _check_unsent(root, tx, old, new)
                _drop(tx, new, plan.unsent, f"nothing of it was sent, and {old} was renamed to {new}")
            if not root.storage.is_local:  # a local folder is moved at once
                _note_moving(tx, old, new, plan)
        _move_files(root.storage, old, new, plan)
        for moved in plan.renamed:
            _rewrite_manifest(root, new, moved.partition, moved.id)
        with writing() as tx:
            _move(tx, old, new)
    return len(plan.renamed)


def _plan(root: Root, old: str, new: str, of_old: list[Submission], of_new: list[Submission]) -> _Plan:
    storage = root.storage
    if not of_old:
        if not (of_new and _are_only_under(storage, of_new, old, new)):
            with root.ledger.read() as tx:
                raise RenameError(nothing_submitted(old, storage.url, pipelines(tx)))
        # The files are older than the ledger: they were restored from before a renaming.
        return _Plan(of_new, [], has_begun=True)
    if of_new:
        with root.ledger.read() as tx:
            _check_unsent(root, tx, old, new)
    has_begun = _are_only_under(storage, of_old, new, old)
    is_interrupted = not storage.is_local and _is_moving(root, old, new)
    dropped = {tuple(filter(None, submission_parts(new, each.partition, each.id))) for each in of_new}
    if of_new:
        dropped |= {(new, folder) for folder in _TABLES}
    kept = [parts for parts in _files(storage, new) if not any(parts[:end] in dropped for end in _FOLDERS)]
    if kept and not (has_begun or is_interrupted) and _files(storage, old):
        raise RenameError(
            f"{storage.uri(old)} and {storage.uri(new)} both have files, such as {storage.uri(*kept[0])}. The "
            f"ledger knows those of {old!r} only: move those of {new!r} away"
        )
    return _Plan(of_old, of_new, has_begun, is_interrupted)


def _is_moving(root: Root, old: str, new: str) -> bool:
    """Whether a renaming of a pipeline to a new name was interrupted while its files were moved."""
    of_old = sa.select(submission.c.id).where(submission.c.pipeline == old)
    lines = (
        sa.select(history.c.reason)
        .where(history.c.kind == EntityKind.SUBMISSION, history.c.entity.in_(of_old))
        .where(
            sa.or_(
                history.c.reason.like(_MOVING.format(old="%", new="%")),
                history.c.reason.like(_MOVED.format(old="%", new="%")),
            )
        )
        .order_by(history.c.seq.desc())
        .limit(1)
    )
    with root.ledger.read() as tx:
        return tx.execute(lines).scalar() == _MOVING.format(old=old, new=new)


def _are_only_under(storage: Storage, known: Sequence[Submission], name: str, other: str) -> bool:
    """Whether folders of submissions are under a name and not under another. Under both, one is a copy."""
    ids = {each.id for each in known}
    return bool(ids & _folder_ids(storage, name) - _folder_ids(storage, other))


def _folder_ids(storage: Storage, name: str) -> set[str]:
    return {id_ for _, id_ in submission_folders(storage, name)}


def _files(storage: Storage, name: str) -> list[tuple[str, ...]]:
    return [parts for parts in storage.all_files(name) if not parts[-1].startswith(".")]


def _check_unsent(root: Root, tx: Transaction, old: str, new: str) -> None:
    if not _is_unsent(tx, new):
        raise RenameError(
            f"{new!r} has submissions of its own in {root.storage.url}, and two histories cannot become one. "
            f"Choose another name, or go on with {old!r}"
        )


def _is_unsent(tx: Transaction, pipeline: str) -> bool:
    """Whether nothing of a pipeline was ever sent: there is nothing but builds."""
    of_pipeline = request_file.c.pipeline == pipeline
    sent = (
        sa.select(request_file.c.id).where(of_pipeline, request_file.c.state.not_in(_UNSENT)).limit(1),
        sa.select(intent.c.id)
        .join(request_file, request_file.c.id == intent.c.file_id)
        .where(of_pipeline)
        .limit(1),
        sa.select(batch.c.id).where(batch.c.pipeline == pipeline).limit(1),
    )
    return all(tx.execute(statement).first() is None for statement in sent)


def _check_idle(tx: Transaction, name: str) -> None:
    file_ids = sa.select(request_file.c.id).where(request_file.c.pipeline == name)
    batch_ids = sa.select(batch.c.id).where(batch.c.pipeline == name)
    working = {files.lease_name(id_) for id_ in tx.execute(file_ids).scalars()}
    working |= {batches.lease_name(id_) for id_ in tx.execute(batch_ids).scalars()}
    held = set(tx.execute(sa.select(lease.c.name).where(lease.c.until >= tx.now)).scalars())
    working.add(rescues.lease_name(name))
    writing = {each for each in held if each.startswith((f"results:{name}:", f"collecting:{name}"))}
    if busy := (working & held) | writing:
        raise BusyError(f"another run is busy with {min(busy)}; repeat this one when that is done")


def _make_room(storage: Storage, old: str, new: str, plan: _Plan) -> None:
    """Remove what was built under the new name, and what is left of its tables."""
    for unsent in plan.unsent:
        remove_submission(storage, new, unsent.partition, unsent.id)
    if not (plan.has_begun or plan.is_interrupted) and _files(storage, old):
        storage.remove(new)


def _note_moving(tx: Transaction, old: str, new: str, plan: _Plan) -> None:
    """Record that the files are being moved from now on."""
    for each in plan.renamed[-1:]:
        tx.record(EntityKind.SUBMISSION, each.id, each.state, each.state, _MOVING.format(old=old, new=new))


def _move_files(storage: Storage, old: str, new: str, plan: _Plan) -> None:
    if not (plan.has_begun or plan.is_interrupted):
        if _files(storage, old):  # otherwise there is nothing to move, and what is under the new name stays
            storage.rename((old,), (new,))
        return
    # A later run or an earlier version stored answers, receipts or a table under the old name meanwhile. If an
    # object store was copying, what is left under the old name is what was copied, or newer.
    targets = {parts: (new, *parts[1:]) for parts in _files(storage, old)}
    storage.together(
        [
            partial(storage.rename, parts, target)
            for parts, target in targets.items()
            if plan.is_interrupted or parts[1] in _TABLES or not storage.exists(*target)
        ]
    )
    if not _files(storage, old):
        storage.remove(old)


def _rewrite_manifest(root: Root, new: str, partition: str, submission_id: str) -> None:
    """Write the new name into a manifest. One that is lost or damaged stays so, and holds back no other."""
    root.storage.remove_leftovers(*submission_parts(new, partition, submission_id), name=MANIFEST)
    if not root.storage.exists(*submission_parts(new, partition, submission_id), MANIFEST):
        return
    try:
        manifest = Manifest.read(root.storage, new, partition, submission_id)
    except DamagedFileError as error:
        _log.warning(f"{error}. It stays as it is, and the rest of the pipeline is renamed.")
        return
    if manifest.pipeline != new:
        manifest.model_copy(update={"pipeline": new}).write(root.storage)


def _drop(tx: Transaction, pipeline: str, unsent: Sequence[Submission], why: str) -> None:
    """Remove a pipeline from the ledger. Nothing of its submissions was sent."""
    ids = sa.select(submission.c.id).where(submission.c.pipeline == pipeline)
    file_ids = sa.select(request_file.c.id).where(request_file.c.submission_id.in_(ids))
    for each in unsent:
        tx.record(EntityKind.SUBMISSION, each.id, each.state, "dropped", why)
    tx.execute(sa.delete(wait).where(sa.or_(wait.c.submission_id.in_(ids), wait.c.file_id.in_(file_ids))))
    for table in (notice, round_, request_file):
        tx.execute(sa.delete(table).where(table.c.submission_id.in_(ids)))
    tx.execute(sa.delete(submission).where(submission.c.pipeline == pipeline))
    _log.warning(f"{count(len(unsent), 'submission')} under the new name is dropped: nothing of it was sent.")


def _move(tx: Transaction, old: str, new: str) -> None:
    for id_ in sorted(submissions.known_ids(tx, old)):
        state = submissions.by_id(tx, id_).state
        tx.record(EntityKind.SUBMISSION, id_, state, state, _MOVED.format(old=old, new=new))
    for replaced in (budget, pilot, queue, rescue_rule):
        tx.execute(sa.delete(replaced).where(replaced.c.pipeline == new))
    taken = sa.select(notice_target.c.target).where(notice_target.c.pipeline == new)
    tx.execute(sa.delete(notice_target).where(notice_target.c.pipeline == old, notice_target.c.target.in_(taken)))
    for table in (*_RENAMED, budget, notice_target, pilot, queue, rescue_rule):
        tx.execute(sa.update(table).where(table.c.pipeline == old).values(pipeline=new))
