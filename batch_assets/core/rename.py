"""Rename a pipeline: what was submitted, answered and is still at the API goes on under the new name.

Every step may be killed and repeated: the folder is moved first, then the manifests in it are rewritten, and the
ledger follows in one transaction.
"""

from __future__ import annotations

import re

import sqlalchemy as sa

from batch_assets.core.errors import BatchAssetsError, BusyError
from batch_assets.core.io.layout import submission_parts
from batch_assets.core.ledger import Transaction, batches, files, leases, submissions
from batch_assets.core.ledger.states import EntityKind
from batch_assets.core.ledger.tables import (
    batch,
    indexed_file,
    lease,
    notice,
    notice_target,
    request_file,
    submission,
)
from batch_assets.core.root import Root
from batch_assets.core.store.manifest import Manifest

_NAME = re.compile(r"[A-Za-z0-9_]{1,100}")
_RENAMED = (submission, request_file, batch, notice, indexed_file)


class RenameError(BatchAssetsError):
    """A pipeline cannot be renamed. Nothing was changed."""


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
    if not _NAME.fullmatch(new) or old == new:
        raise RenameError(f"{new!r} is not another name of a pipeline: letters, digits and _, at most 100")
    with (
        leases.hold_requests(root.ledger, old) as first,
        leases.hold_requests(root.ledger, new) as second,
        leases.hold(root.ledger, "reconcile", work="the files in doubt") as third,
    ):
        with root.ledger.read() as tx:
            _check(root, tx, old, new)
            places = [(s.partition, s.id) for s in submissions.of_pipeline(tx, old)]
        root.storage.rename((old,), (new,))
        for partition, submission_id in places:
            _rewrite_manifest(root, new, partition, submission_id)
        with root.ledger.write() as tx:
            for held in (first, second, third):
                held.confirm(tx)
            _move(tx, old, new)
    return len(places)


def _check(root: Root, tx: Transaction, old: str, new: str) -> None:
    if not submissions.known_ids(tx, old):
        raise RenameError(f"nothing was submitted for a pipeline {old!r} in {root.storage.url}")
    if submissions.known_ids(tx, new):
        raise RenameError(
            f"{new!r} has submissions of its own in {root.storage.url}, and two histories cannot become one. "
            f"Choose another name, or go on with {old!r}"
        )
    if root.storage.names(old) and root.storage.names(new):
        raise RenameError(
            f"{root.storage.uri(old)} and {root.storage.uri(new)} both have files: move those of {new!r} away"
        )
    file_ids = sa.select(request_file.c.id).where(request_file.c.pipeline == old)
    batch_ids = sa.select(batch.c.id).where(batch.c.pipeline == old)
    working = {files.lease_name(id_) for id_ in tx.execute(file_ids).scalars()}
    working |= {batches.lease_name(id_) for id_ in tx.execute(batch_ids).scalars()}
    held = set(tx.execute(sa.select(lease.c.name).where(lease.c.until >= tx.now)).scalars())
    writing = {name for name in held if name.startswith((f"results:{old}:", f"collecting:{old}"))}
    if busy := (working & held) | writing:
        raise BusyError(f"another run is busy with {min(busy)}; repeat this one when that is done")


def _rewrite_manifest(root: Root, new: str, partition: str, submission_id: str) -> None:
    if not root.storage.exists(*submission_parts(new, partition, submission_id), "manifest.json"):
        return  # it was lost before
    manifest = Manifest.read(root.storage, new, partition, submission_id)
    if manifest.pipeline != new:
        manifest.model_copy(update={"pipeline": new}).write(root.storage)


def _move(tx: Transaction, old: str, new: str) -> None:
    for id_ in sorted(submissions.known_ids(tx, old)):
        state = submissions.by_id(tx, id_).state
        tx.record(EntityKind.SUBMISSION, id_, state, state, f"renamed from {old} to {new}")
    taken = sa.select(notice_target.c.target).where(notice_target.c.pipeline == new)
    tx.execute(sa.delete(notice_target).where(notice_target.c.pipeline == old, notice_target.c.target.in_(taken)))
    for table in (*_RENAMED, notice_target):
        tx.execute(sa.update(table).where(table.c.pipeline == old).values(pipeline=new))
