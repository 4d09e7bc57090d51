"""Read many submissions at once: those that may have something left to do or to report, and what they wait on.

The sensor does this for every partition that ever existed, twice a minute, so the number of queries must not
depend on the number of partitions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import sqlalchemy as sa

from batch_assets.core.ledger import batches, files, submissions
from batch_assets.core.ledger.connection import Transaction
from batch_assets.core.ledger.intents import IntentOutcome
from batch_assets.core.ledger.records import (
    Batch,
    Record,
    RequestFile,
    Submission,
    to_record,
    to_records,
)
from batch_assets.core.ledger.states import BATCHES_UNCOLLECTED, FILES_UNSETTLED
from batch_assets.core.ledger.tables import batch, intent, request_file, submission, wait

# Ids in one statement. SQLite limits the number of values, old versions to 999.
_AT_ONCE = 500

Place = tuple[str, str]
"""Pipeline and partition."""


def in_motion(tx: Transaction, final_since: float) -> list[Submission]:
    """Return the submissions in force that may have something left to do or to report, in order of creation.

    Left out are those that are complete and announced, with all files and batches that they wait on settled. The
    caller finds out what is left for each of the others; it may be nothing.

    Args:
        tx: The transaction.
        final_since: Submissions that became final after this time are always included.
    """
    own = submission.c
    statement = (
        sa.select(submission)
        .where(own.seq.in_(submissions.newest_seqs()))
        .where(
            sa.or_(
                own.final_at.is_(None),
                own.final_at > final_since,
                own.announced_at.is_(None),
                own.joined_seq.is_(None),
                own.ask_again != 0,
                own.id.in_(_waiting_on_files()),
                own.id.in_(_with_batches()),
                own.id.in_(_at_places(tx.now)),
            )
        )
        .order_by(own.seq)
    )
    return to_records(Submission, tx.execute(statement))


def _waiting_on_files() -> sa.Select[tuple[str]]:
    """Select submissions that wait on files which are not settled, or brought answers since the last join."""
    joined = submission.alias()
    return (
        sa.select(wait.c.submission_id)
        .join(request_file, request_file.c.id == wait.c.file_id)
        .join(joined, joined.c.id == wait.c.submission_id)
        .where(
            sa.or_(request_file.c.state.in_(FILES_UNSETTLED), request_file.c.collected_seq > joined.c.joined_seq)
        )
    )


def _with_batches() -> sa.Select[tuple[str]]:
    """Select submissions that wait or waited on files whose batches are uncollected or were paid twice."""
    return (
        sa.select(wait.c.submission_id)
        .join(batch, batch.c.file_id == wait.c.file_id)
        .where(sa.or_(batch.c.state.in_(BATCHES_UNCOLLECTED), batch.c.paid_twice.is_(True)))
    )


def _at_places(now: float) -> sa.Select[tuple[str]]:
    """Select submissions of a partition that has a file with an uncollected batch, or with one that may turn up.

    This includes files that no submission waits on any more.
    """
    placed = submission.alias()
    uncollected = sa.select(batch.c.file_id).where(
        batch.c.state.in_(BATCHES_UNCOLLECTED), batch.c.file_id.is_not(None)
    )
    watched = sa.select(intent.c.file_id).where(
        intent.c.outcome == IntentOutcome.RESENT, intent.c.watch_until > now
    )
    at = sa.and_(placed.c.pipeline == request_file.c.pipeline, placed.c.partition == request_file.c.partition)
    found = request_file.c.id.in_(sa.union(uncollected, watched))
    return sa.select(placed.c.id).join(request_file, at).where(found)


@dataclass(frozen=True)
class Overview:
    """What some submissions wait on, read for all of them at once.

    Attributes:
        waited: By submission id, the request files that its rows wait on, in a fixed order.
        in_doubt: Ids of request files that may or may not have reached the API.
        watched: Pipeline and partition of files that were sent again, whose first batch may still turn up.
        ended_of: Ended batches that are due to be collected, by the id of their request file.
        ended_at: Ended batches that are due to be collected, by pipeline and partition of their request file.
    """

    waited: Mapping[str, list[RequestFile]]
    in_doubt: frozenset[str]
    watched: frozenset[Place]
    ended_of: Mapping[str, list[Batch]]
    ended_at: Mapping[Place, list[Batch]]

    @classmethod
    def of(cls, tx: Transaction, given: Iterable[Submission]) -> Self:
        """Read the ledger for some submissions."""
        ended_of: dict[str, list[Batch]] = {}
        ended_at: dict[Place, list[Batch]] = {}
        for found, place in batches.ended_due(tx):
            ended_of.setdefault(found.file_id or "", []).append(found)
            ended_at.setdefault(place, []).append(found)
        return cls(
            waited=_files_of(tx, [one.id for one in given]),
            in_doubt=frozenset(file.id for _, file in files.in_doubt(tx)),
            watched=frozenset((file.pipeline, file.partition) for _, file in files.watched(tx)),
            ended_of=ended_of,
            ended_at=ended_at,
        )

    def ended_for(self, given: Submission) -> list[Batch]:
        """Return ended batches that are due: of the partition's own files, and of files that it waits on."""
        found = [*self.ended_at.get((given.pipeline, given.partition), [])]
        for file in self.waited[given.id]:
            found += self.ended_of.get(file.id, [])
        return list({one.id: one for one in found if one.pipeline == given.pipeline}.values())


def _files_of(tx: Transaction, ids: Sequence[str]) -> dict[str, list[RequestFile]]:
    order = request_file.c.submission_id, request_file.c.name
    return _waited_on(tx, ids, RequestFile, request_file, request_file.c.id, order)


def batches_of(tx: Transaction, ids: Sequence[str]) -> dict[str, list[Batch]]:
    """Return by submission the batches of request files that its rows wait on or waited on, earliest first."""
    return _waited_on(tx, ids, Batch, batch, batch.c.file_id, (batch.c.created_at, batch.c.id))


def _waited_on(
    tx: Transaction,
    ids: Sequence[str],
    kind: type[Record],
    table: sa.Table,
    file_id: sa.Column[str],
    order: tuple[sa.Column[Any], ...],
) -> dict[str, list[Record]]:
    """Return by submission the records of a table that belong to files it waits on. Every id has a list."""
    found: dict[str, list[Record]] = {submission_id: [] for submission_id in ids}
    for start in range(0, len(ids), _AT_ONCE):
        statement = (
            sa.select(table, wait.c.submission_id.label("waits"))
            .join(wait, wait.c.file_id == file_id)
            .where(wait.c.submission_id.in_(ids[start : start + _AT_ONCE]))
            .order_by(*order)
        )
        for row in tx.execute(statement):
            found[row.waits].append(to_record(kind, row))
    return found
