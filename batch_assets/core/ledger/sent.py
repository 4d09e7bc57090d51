"""What was sent and may have to be paid: batches of ours, intents without a known batch, and tables in force."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa

from batch_assets.core.ledger.connection import Transaction
from batch_assets.core.ledger.intents import INTENTS_IN_DOUBT, INTENTS_WATCHED, IntentOutcome
from batch_assets.core.ledger.rescue_tables import live_group
from batch_assets.core.ledger.states import FILES_IN_DOUBT, BatchState
from batch_assets.core.ledger.submissions import newest_seqs
from batch_assets.core.ledger.tables import batch, history, intent, request_file, submission

_KEY_CHARACTERS = 8


@dataclass(frozen=True)
class SentBatch:
    """A batch of ours, a group of live calls, or an intent that may have created a batch.

    Attributes:
        id: The id of the batch or the group; `intent-<file>-<time>` for an intent, as in a rebuilt ledger.
        pipeline: The pipeline.
        partition: The partition key of the submission that wrote its request file; "" without partitions.
        submission_id: That submission.
        file_name: The name of its request file.
        requests: The number of its requests.
        at: When it ended, else when it was created or sent; 0.0 if nothing of it is known.
        key: The start of the salted hash of the API key that sent it; `None` if it is unknown.
        may_be_repeated: Whether its requests may have other answers: its request file became another batch as
            well, it is a group of live calls, or its answers were given up, and may be restored from a backup.
        writes_cache: Whether its requests may have written the prompt cache by a breakpoint of ours.
        is_live: Whether it is a group of live calls, and not a batch.
        most: The most that its requests can cost in picodollars, if that is recorded; `None` if it is not.
        estimate: What the submission's requests were estimated to cost, as JSON; `None` if that is not on record.
    """

    id: str
    pipeline: str
    partition: str
    submission_id: str
    file_name: str
    requests: int
    at: float
    key: str | None
    may_be_repeated: bool = False
    writes_cache: bool = False
    is_live: bool = False
    most: int | None = None
    estimate: str | None = None


_FILE = (
    request_file.c.id.label("file_id"),
    request_file.c.pipeline,
    request_file.c.partition,
    request_file.c.submission_id,
    request_file.c.name,
    request_file.c.breakpoint,
)


def sent_version(tx: Transaction) -> tuple[object, ...]:
    """Return what differs whenever `sent_batches` may return something else, or more answers are stored.

    It is one statement, which reads no table that grows. Not all that counts is a transition: a group of live
    calls begins, the last bytes of an upload leave, and a batch is no longer looked for.
    """
    in_doubt = sa.and_(intent.c.outcome.in_(INTENTS_IN_DOUBT), intent.c.body_complete.is_not(False))
    watched = sa.and_(intent.c.outcome.in_(INTENTS_WATCHED), intent.c.watch_until > tx.now)
    columns = (
        sa.select(sa.func.max(history.c.seq)),
        sa.select(sa.func.count()).select_from(live_group),
        sa.select(sa.func.max(live_group.c.started_at)),
        sa.select(sa.func.count()).select_from(intent).where(in_doubt),
        sa.select(sa.func.count()).select_from(intent).where(watched),
    )
    return tuple(tx.execute(sa.select(*(column.scalar_subquery() for column in columns))).one())


def sent_batches(tx: Transaction) -> list[SentBatch]:
    """Return all batches of ours, all live calls, and the intents of which another batch may exist."""
    known = sa.select(intent.c.file_id, intent.c.key_hash).where(
        intent.c.outcome.in_([IntentOutcome.ACCEPTED, IntentOutcome.ADOPTED]), intent.c.key_hash.is_not(None)
    )
    key_hashes = {row.file_id: row.key_hash for row in tx.execute(known)}
    at = sa.func.coalesce(batch.c.ended_at, batch.c.created_at, batch.c.submitted_at, 0.0)
    columns = batch.c.id, batch.c.state, batch.c.live_of, batch.c.paid_twice, batch.c.requests, at.label("at")
    statement = (
        sa.select(*columns, *_FILE, submission.c.estimate)
        .join(request_file, request_file.c.id == sa.func.coalesce(batch.c.file_id, batch.c.live_of))
        .join(submission, submission.c.id == request_file.c.submission_id)
    )
    sent = list[SentBatch]()
    for row in tx.execute(statement.order_by(batch.c.id)):
        one = _sent(row, row.id, row.at, key_hashes.get(row.file_id))
        if row.live_of is not None:
            one = replace(one, is_live=True, may_be_repeated=True)
        else:
            writes_cache = row.breakpoint is not None
            is_repeated = row.paid_twice or row.state is BatchState.LOST
            one = replace(one, may_be_repeated=is_repeated, writes_cache=writes_cache, estimate=row.estimate)
        sent.append(one)
    return sent + _unstored_live(tx, key_hashes) + _unseen(tx)


def _sent(row: sa.Row[Any], id_: str, at: float, key_hash: str | None) -> SentBatch:
    """Return what all kinds have in common, of a row with `requests` and _FILE."""
    key = key_hash[:_KEY_CHARACTERS] if key_hash else None
    return SentBatch(id_, row.pipeline, row.partition, row.submission_id, row.name, row.requests, at, key)


def _unstored_live(tx: Transaction, key_hashes: Mapping[str, str]) -> list[SentBatch]:
    """Return the groups of live calls whose answers are not stored.

    Args:
        tx: A transaction.
        key_hashes: The salted hash of the API key that sent each request file, by its id.
    """
    columns = live_group.c.id, live_group.c.calls.label("requests"), live_group.c.started_at
    statement = sa.select(*columns, live_group.c.worst_case, *_FILE).join(
        request_file, request_file.c.id == live_group.c.file_id
    )
    return [
        replace(
            _sent(row, row.id, row.started_at, key_hashes.get(row.file_id)),
            is_live=True,
            may_be_repeated=True,
            most=row.worst_case,
        )
        for row in tx.execute(statement)
    ]


def _unseen(tx: Transaction) -> list[SentBatch]:
    """Return the intents whose batch is unknown, or after which another one may turn up.

    An adopted one has its batch. One whose file was sent again may have been paid, however long ago that was,
    unless it was refused and the batch that looked like its own belongs to another.
    """
    is_refused = sa.exists().where(
        batch.c.id == intent.c.candidate_id,
        batch.c.provisional.is_(False),
        batch.c.file_id.is_distinct_from(intent.c.file_id),
    )
    resent = sa.and_(intent.c.outcome == IntentOutcome.RESENT, ~is_refused)
    in_doubt = sa.and_(intent.c.outcome.in_(INTENTS_IN_DOUBT), request_file.c.state.in_(FILES_IN_DOUBT))
    outcomes = [outcome for outcome in INTENTS_WATCHED if outcome is not IntentOutcome.ADOPTED]
    watched = sa.and_(intent.c.outcome.in_(outcomes), intent.c.watch_until > tx.now)
    statement = (
        sa.select(intent.c.id, intent.c.requests, intent.c.started_at, intent.c.key_hash, *_FILE)
        .join(request_file, request_file.c.id == intent.c.file_id)
        .where(sa.or_(in_doubt, watched, resent), intent.c.body_complete.is_not(False))
        .order_by(intent.c.id)
    )
    return [
        replace(
            _sent(row, f"intent-{row.file_id}-{row.started_at}", row.started_at, row.key_hash),
            writes_cache=row.breakpoint is not None,
        )
        for row in tx.execute(statement)
    ]


@dataclass(frozen=True)
class TableInForce:
    """The results table of a partition.

    Attributes:
        pipeline: The pipeline.
        partition: The partition key; "" without partitions.
        version: Differs whenever the table may have changed; `None` if that is not known.
    """

    pipeline: str
    partition: str
    version: str | None


def tables_in_force(tx: Transaction) -> list[TableInForce]:
    """Return the results tables of the submissions in force."""
    columns = submission.c.pipeline, submission.c.partition, submission.c.id, submission.c.joined_at
    statement = sa.select(*columns).where(submission.c.seq.in_(newest_seqs())).order_by(submission.c.seq)
    return [
        TableInForce(row.pipeline, row.partition, f"{row.id} {row.joined_at!r}" if row.joined_at else None)
        for row in tx.execute(statement)
    ]


def refreshing_pipelines(tx: Transaction) -> set[str]:
    """Return the pipelines that have a refresh, so that a request may have several answers."""
    statement = sa.select(submission.c.pipeline).where(submission.c.fresh_after > 0.0).distinct()
    return set(tx.execute(statement).scalars())
