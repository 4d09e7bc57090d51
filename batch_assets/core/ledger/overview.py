"""Read many submissions at once: those that may have something left to do or to report, and what they wait on.

The sensor does this for every partition that ever existed, twice a minute, so the number of queries must not
depend on the number of partitions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from batch_assets.core.ledger import batches, submissions
from batch_assets.core.ledger.connection import Transaction
from batch_assets.core.ledger.id_chunks import id_chunks
from batch_assets.core.ledger.intents import INTENTS_IN_DOUBT, INTENTS_WATCHED
from batch_assets.core.ledger.records import (
    Batch,
    Record,
    RequestFile,
    Submission,
    to_record,
    to_records,
)
from batch_assets.core.ledger.rescue_tables import live_group
from batch_assets.core.ledger.states import BATCHES_UNCOLLECTED, FILES_IN_DOUBT, FILES_UNSETTLED
from batch_assets.core.ledger.tables import batch, intent, request_file, submission, wait

PipelinePartition = tuple[str, str]
"""Name of a pipeline and partition key, "" without partitions."""
# Up to this many submissions are looked up by their partitions, more of them by reading what all partitions have.
_FEW = 500


def in_motion(tx: Transaction, final_since: float) -> list[Submission]:
    """Return the submissions in force that may have something left to do or to report, in order of creation.

    Left out are those that are complete and announced, with all files and batches that they wait on settled, and
    all answers of live calls stored. The caller finds out what is left for each of the others; it may be nothing.

    Args:
        tx: The transaction.
        final_since: Submissions that became final after this time are always included.
    """
    columns = submission.c
    statement = (
        sa.select(submission)
        .where(columns.seq.in_(submissions.newest_seqs()))
        .where(
            sa.or_(
                columns.final_at.is_(None),
                columns.final_at > final_since,
                columns.announced_at.is_(None),
                columns.joined_seq.is_(None),
                columns.ask_again != 0,
                columns.id.in_(_waiting_on_files()),
                _has_unjoined(),
                _has_live_answers(),
                columns.id.in_(_with_batches()),
                columns.id.in_(_with_files_in_motion(tx.now)),
            )
        )
        .order_by(columns.seq)
    )
    return to_records(Submission, tx.execute(statement))


def _waiting_on_files() -> sa.Select[tuple[str]]:
    """Select submissions that wait on files which are not settled."""
    return (
        sa.select(wait.c.submission_id)
        .join(request_file, request_file.c.id == wait.c.file_id)
        .where(request_file.c.state.in_(FILES_UNSETTLED))
    )


def _has_unjoined() -> sa.Exists:
    """Whether a submission waits on files that brought answers since its last join.

    It is looked up for each submission in force: answers to all the others are the history, which grows.
    """
    return sa.exists().where(
        wait.c.submission_id == submission.c.id,
        request_file.c.id == wait.c.file_id,
        request_file.c.collected_seq > submission.c.joined_seq,
    )


def _has_live_answers() -> sa.Exists:
    """Whether a submission waits on files with live calls whose answers are not stored; few such calls exist."""
    return sa.exists().where(
        live_group.c.pipeline == submission.c.pipeline,
        wait.c.submission_id == submission.c.id,
        wait.c.file_id == live_group.c.file_id,
    )


def _with_batches() -> sa.Select[tuple[str]]:
    """Select submissions that wait or waited on files whose batches are uncollected or were paid twice."""
    return (
        sa.select(wait.c.submission_id)
        .join(batch, batch.c.file_id == wait.c.file_id)
        .where(sa.or_(batch.c.state.in_(BATCHES_UNCOLLECTED), batch.c.paid_twice.is_(True)))
    )


def _with_files_in_motion(now: float) -> sa.Select[tuple[str]]:
    """Select submissions of a partition that has a file with an uncollected batch, or with one that may turn up.

    This includes files that no submission waits on any more.
    """
    owner = submission.alias()
    uncollected = sa.select(batch.c.file_id).where(
        batch.c.state.in_(BATCHES_UNCOLLECTED), batch.c.file_id.is_not(None)
    )
    watched = sa.select(intent.c.file_id).where(intent.c.outcome.in_(INTENTS_WATCHED), intent.c.watch_until > now)
    same = sa.and_(owner.c.pipeline == request_file.c.pipeline, owner.c.partition == request_file.c.partition)
    in_motion = request_file.c.id.in_(sa.union(uncollected, watched))
    return sa.select(owner.c.id).join(request_file, same).where(in_motion)


def batches_of(tx: Transaction, ids: Sequence[str]) -> dict[str, list[Batch]]:
    """Return by submission the batches of request files that its rows wait on or waited on, earliest first."""
    return _waited_on(tx, ids, Batch, batch, batch.c.file_id, (batch.c.created_at, batch.c.id))


def files_of(tx: Transaction, ids: Sequence[str]) -> dict[str, list[RequestFile]]:
    """Return by submission the request files that its rows wait on, in a fixed order."""
    order = request_file.c.submission_id, request_file.c.name
    return _waited_on(tx, ids, RequestFile, request_file, request_file.c.id, order)


def left_behind_of(
    tx: Transaction, selected: Sequence[Submission], waited_on: Mapping[str, Sequence[Batch]]
) -> dict[str, list[Batch]]:
    """Return by submission the uncollected batches of its partition that its rows do not wait on, earliest first.

    Args:
        tx: The transaction.
        selected: The submissions.
        waited_on: By submission the batches that its rows wait on or waited on.
    """
    statement = (
        sa.select(batch.c.id, request_file.c.pipeline, request_file.c.partition)
        .join(request_file, request_file.c.id == batch.c.file_id)
        .where(batch.c.state.in_(BATCHES_UNCOLLECTED))
    )
    if len(selected) <= _FEW:
        chosen, other = submission.alias(), submission.alias()
        same = sa.and_(chosen.c.pipeline == other.c.pipeline, chosen.c.partition == other.c.partition)
        own_ids = [record.id for record in selected]
        of_partitions = sa.select(other.c.id).join(chosen, same).where(chosen.c.id.in_(own_ids))
        statement = statement.where(request_file.c.submission_id.in_(of_partitions))
    uncollected: dict[PipelinePartition, list[str]] = {}
    for row in tx.execute(statement):
        uncollected.setdefault((row.pipeline, row.partition), []).append(row.id)
    owners: dict[str, list[str]] = {}
    left_behind: dict[str, list[Batch]] = {}
    for record in selected:
        of_partition = set(uncollected.get((record.pipeline, record.partition), ()))
        if ids := of_partition - {known.id for known in waited_on[record.id]}:
            left_behind[record.id] = []
            for id_ in ids:
                owners.setdefault(id_, []).append(record.id)
    for uncollected_batch in batches.by_ids(tx, sorted(owners)):
        for submission_id in owners[uncollected_batch.id]:
            left_behind[submission_id].append(uncollected_batch)
    return left_behind


def watched_partitions(tx: Transaction) -> set[PipelinePartition]:
    """Return the partitions with files that were sent again while the first batch may still turn up."""
    statement = (
        sa.select(request_file.c.pipeline, request_file.c.partition)
        .join(intent, intent.c.file_id == request_file.c.id)
        .where(intent.c.outcome.in_(INTENTS_WATCHED), intent.c.watch_until > tx.now)
        .distinct()
    )
    return {(row.pipeline, row.partition) for row in tx.execute(statement)}


def files_with_open_intent(tx: Transaction) -> set[str]:
    """Return the ids of request files that are being sent, or may or may not have reached the API."""
    statement = (
        sa.select(intent.c.file_id)
        .join(request_file, request_file.c.id == intent.c.file_id)
        .where(intent.c.outcome.in_(INTENTS_IN_DOUBT), request_file.c.state.in_(FILES_IN_DOUBT))
    )
    return set(tx.execute(statement).scalars())


def shared_of(
    tx: Transaction,
    canceled: Sequence[Submission],
    files: Mapping[str, Sequence[RequestFile]],
    batches_of: Sequence[Mapping[str, Sequence[Batch]]],
) -> dict[str, frozenset[str]]:
    """Return by canceled submission its unsent files, and those with batches, that another partition waits on.

    Args:
        tx: The transaction.
        canceled: The submissions.
        files: By submission the files that its rows wait on.
        batches_of: By submission its batches; several such maps.
    """
    ids: dict[str, set[str]] = {}
    for record in canceled:
        of_batches = (each.file_id for some in batches_of for each in some.get(record.id, ()) if each.file_id)
        ids[record.id] = {*of_batches, *(file.id for file in files[record.id] if file.state.unsent)}
    wanting = _wanting_partitions(tx, sorted(set().union(*ids.values())))
    return {
        record.id: frozenset(id_ for id_ in ids[record.id] if wanting.get(id_, set()) - {record.partition})
        for record in canceled
    }


def _wanting_partitions(tx: Transaction, file_ids: Sequence[str]) -> dict[str, set[str]]:
    """Return by request file the partitions whose submission in force waits on it and is not canceled."""
    partitions: dict[str, set[str]] = {}
    for chunk in id_chunks(file_ids):
        statement = (
            sa.select(wait.c.file_id, submission.c.partition)
            .join(submission, submission.c.id == wait.c.submission_id)
            .where(
                wait.c.file_id.in_(chunk),
                submission.c.seq.in_(submissions.newest_seqs()),
                submission.c.canceled_at.is_(None),
            )
        )
        for row in tx.execute(statement):
            partitions.setdefault(row.file_id, set()).add(row.partition)
    return partitions


def _waited_on(
    tx: Transaction,
    ids: Sequence[str],
    kind: type[Record],
    table: sa.Table,
    file_id: sa.Column[str],
    order: tuple[sa.Column[Any], ...],
) -> dict[str, list[Record]]:
    """Return by submission the records of a table that belong to files it waits on. Every id has a list."""
    records: dict[str, list[Record]] = {submission_id: [] for submission_id in ids}
    for chunk in id_chunks(ids):
        statement = (
            sa.select(table, wait.c.submission_id.label("waits"))
            .join(wait, wait.c.file_id == file_id)
            .where(wait.c.submission_id.in_(chunk))
            .order_by(*order)
        )
        for row in tx.execute(statement):
            records[row.waits].append(to_record(kind, row))
    return records
