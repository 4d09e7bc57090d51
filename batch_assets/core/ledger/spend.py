"""What stored batches cost, and which event of Dagster's log reports it, so that the events can be added up.

Each event names the batches that it counts. So the log says which amounts were reported, also beside a ledger that
was lost or restored from a copy. Before an event is logged, its batches are marked with its id: a later run then
sees that a process was killed between the two. An amount whose event is missing from the log is reported as not
logged, and never as spent.
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from batch_assets.core.ledger.connection import Transaction
from batch_assets.core.ledger.id_chunks import id_chunks
from batch_assets.core.ledger.states import BATCHES_STORED
from batch_assets.core.ledger.tables import batch, request_file, spend


@dataclass(frozen=True)
class Spend:
    """What answers cost.

    Attributes:
        picodollars: The cost of the answers whose cost is known.
        unpriced: The number of the other answers.
    """

    picodollars: int
    unpriced: int


NOTHING = Spend(0, 0)


@dataclass(frozen=True)
class BatchSpend:
    """A batch that no event counts, or one that may not be in the log.

    Attributes:
        batch_id: The batch.
        partition: The partition that its request file belongs to.
        since: When it was submitted, or 0.0 if that is not known. No event before counts it.
        cost: What its answers cost; `None` if the ledger does not know it yet.
        event: The event that was to count it; `None` if none was.
        run_id: Dagster's run that was to log the event.
    """

    batch_id: str
    partition: str
    since: float
    cost: Spend | None
    event: str | None
    run_id: str | None


@dataclass(frozen=True)
class SpendEvent:
    """What an event reports about a partition.

    Attributes:
        id: The event.
        batches: The ids of the batches that it counts.
        new: What no event reported before.
        not_logged: What was to be reported by events that are missing from the log.
    """

    id: str
    batches: list[str]
    new: Spend
    not_logged: Spend


def stored(tx: Transaction, batch_id: str) -> None:
    """Record that the answers of a batch are stored, so that an event has to count it. Its cost is read later."""
    if tx.execute(sa.select(spend.c.batch_id).where(spend.c.batch_id == batch_id)).first() is None:
        tx.execute(sa.insert(spend).values(batch_id=batch_id, unpriced=0, is_logged=False))


def record(tx: Transaction, batch_id: str, cost: Spend) -> None:
    """Record what a batch cost, unless that is recorded.

    Args:
        tx: A transaction.
        batch_id: The batch, whose answers are stored.
        cost: What its answers cost.
    """
    unknown = sa.and_(spend.c.batch_id == batch_id, spend.c.picodollars.is_(None))
    tx.execute(sa.update(spend).where(unknown).values(picodollars=cost.picodollars, unpriced=cost.unpriced))


def not_logged(tx: Transaction, pipeline: str, partitions: Collection[str]) -> list[BatchSpend]:
    """Return the batches of some partitions whose answers are stored and which are in no event that was logged.

    Args:
        tx: A transaction.
        pipeline: The pipeline.
        partitions: The partition keys; "" without partitions.
    """
    statement = (
        sa.select(
            batch.c.id,
            request_file.c.partition,
            sa.func.coalesce(batch.c.submitted_at, batch.c.created_at, 0.0).label("since"),
            spend.c.picodollars,
            spend.c.unpriced,
            spend.c.event,
            spend.c.run_id,
        )
        .select_from(spend)
        .join(batch, batch.c.id == spend.c.batch_id)
        .join(request_file, request_file.c.id == sa.func.coalesce(batch.c.file_id, batch.c.live_of))
        .where(
            spend.c.is_logged.is_(False),
            request_file.c.pipeline == pipeline,
            batch.c.state.in_(BATCHES_STORED),
        )
        .order_by(batch.c.id)
    )
    return [
        BatchSpend(
            row.id,
            row.partition,
            row.since,
            Spend(row.picodollars, row.unpriced) if row.picodollars is not None else None,
            row.event,
            row.run_id,
        )
        for some in id_chunks(sorted(partitions))
        for row in tx.execute(statement.where(request_file.c.partition.in_(some)))
    ]


def report(tx: Transaction, seen: Sequence[BatchSpend], run_id: str) -> dict[str, SpendEvent]:
    """Mark what the next event of each partition reports. It has to be logged afterwards, and then `logged`.

    Args:
        tx: A transaction.
        seen: The batches to report, with the cost of each, as `not_logged` returned them. Those that another
            process has reported since then are left out.
        run_id: Dagster's run that logs the events.

    Returns:
        The events by partition, without those that have nothing to report.
    """
    ids = [known.batch_id for known in seen]
    columns = (spend.c.batch_id, spend.c.event)
    now = {
        row.batch_id: row.event
        for some in id_chunks(ids)
        for row in tx.execute(sa.select(*columns).where(spend.c.batch_id.in_(some), spend.c.is_logged.is_(False)))
    }
    by_partition: dict[str, list[BatchSpend]] = defaultdict(list)
    for known in seen:
        if known.batch_id in now and now[known.batch_id] == known.event:
            by_partition[known.partition].append(known)
    events = {
        partition: SpendEvent(
            uuid.uuid4().hex,
            [known.batch_id for known in its_batches],
            _sum(known for known in its_batches if known.event is None),
            _sum(known for known in its_batches if known.event is not None),
        )
        for partition, its_batches in by_partition.items()
    }
    marks = [{"id": batch_id, "its_event": event.id} for event in events.values() for batch_id in event.batches]
    if marks:
        mark = sa.update(spend).where(spend.c.batch_id == sa.bindparam("id"))
        tx.connection.execute(mark.values(event=sa.bindparam("its_event"), run_id=run_id), marks)
    return events


def logged(tx: Transaction, batch_ids: Collection[str]) -> None:
    """Record that an event in Dagster's log counts some batches."""
    for some in id_chunks(sorted(batch_ids)):
        tx.execute(sa.update(spend).where(spend.c.batch_id.in_(some)).values(is_logged=True))


def _sum(batches: Iterable[BatchSpend]) -> Spend:
    costs: list[Any] = [known.cost or NOTHING for known in batches]
    return Spend(sum(cost.picodollars for cost in costs), sum(cost.unpriced for cost in costs))
