"""What collected batches cost, and which event of Dagster's log reports it, so that the events can be added up.

Before an event is logged, the amounts that it reports are marked with its id. If a process is killed before it can
note that the event is in the log, a later run looks there. No two events report an amount as spent: if its event
is missing, the next one reports it as not logged.
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from batch_assets.core.ledger.connection import Transaction
from batch_assets.core.ledger.id_chunks import id_chunks
from batch_assets.core.ledger.tables import spend


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
class SpendEvent:
    """What an event of Dagster's log reports about a partition.

    Attributes:
        id: The event.
        new: What no event reported before.
        not_logged: What was to be reported by events that are missing from the log.
    """

    id: str
    new: Spend
    not_logged: Spend


def record(tx: Transaction, batch_id: str, pipeline: str, partition: str, cost: Spend, *, left_out: bool) -> None:
    """Record what a batch cost when it is collected. Nothing happens if that is recorded, or it cost nothing.

    Args:
        tx: The transaction that records it as collected.
        batch_id: The batch.
        pipeline: Its pipeline.
        partition: The partition that its request file belongs to.
        cost: What its answers cost.
        left_out: An event may have reported it before, so it is not reported as spent.
    """
    known = tx.execute(sa.select(spend.c.batch_id).where(spend.c.batch_id == batch_id)).first()
    if known is not None or cost == NOTHING:
        return
    tx.execute(
        sa.insert(spend).values(
            batch_id=batch_id,
            pipeline=pipeline,
            partition=partition,
            picodollars=cost.picodollars,
            unpriced=cost.unpriced,
            left_out=left_out,
            is_logged=False,
        )
    )


def report(
    tx: Transaction,
    pipeline: str,
    partitions: Collection[str],
    run_id: str,
    is_logged: Callable[[str, str], bool | None],
) -> dict[str, SpendEvent]:
    """Mark what the next event of each partition reports. It has to be logged afterwards, and then `note_logged`.

    The number of statements does not grow with the number of partitions, but by the thousands.

    Args:
        tx: A transaction.
        pipeline: The pipeline.
        partitions: The partition keys; "" without partitions.
        run_id: Dagster's run that logs the events.
        is_logged: Returns for a run and an event whether Dagster's log has it; `None` if that may still change.

    Returns:
        The events by partition, without those that have nothing to report.
    """
    rows = [row for keys in id_chunks(sorted(partitions)) for row in _open(tx, pipeline, keys)]
    states = {(row.run_id, row.event): is_logged(row.run_id, row.event) for row in rows if row.event is not None}
    note_logged(tx, [event for (_, event), state in states.items() if state])
    new: dict[str, list[Any]] = defaultdict(list)
    left_out: dict[str, list[Any]] = defaultdict(list)
    for row in rows:
        if row.event is None:
            (left_out if row.left_out else new)[row.partition].append(row)
        elif states[row.run_id, row.event] is False:
            left_out[row.partition].append(row)
    events = {
        partition: SpendEvent(uuid.uuid4().hex, _sum(new[partition]), _sum(left_out[partition]))
        for partition in sorted({*new, *left_out})
    }
    marks = [
        {"id": row.batch_id, "its_event": events[partition].id, "is_left_out": by_partition is left_out}
        for by_partition in (new, left_out)
        for partition, its_rows in by_partition.items()
        for row in its_rows
    ]
    if marks:
        mark = sa.update(spend).where(spend.c.batch_id == sa.bindparam("id"))
        values = {"event": sa.bindparam("its_event"), "left_out": sa.bindparam("is_left_out"), "run_id": run_id}
        tx.connection.execute(mark.values(values), marks)
    return events


def note_logged(tx: Transaction, events: Collection[str]) -> None:
    """Record that events are in Dagster's log."""
    for some in id_chunks(sorted(events)):
        tx.execute(sa.update(spend).where(spend.c.event.in_(some)).values(is_logged=True))


def _open(tx: Transaction, pipeline: str, partitions: Sequence[str]) -> Sequence[sa.Row[Any]]:
    """Return the amounts of some partitions that are in no event, or in one that may not be in the log."""
    is_open = sa.and_(
        spend.c.pipeline == pipeline, spend.c.partition.in_(partitions), spend.c.is_logged.is_(False)
    )
    return tx.execute(sa.select(spend).where(is_open)).all()


def _sum(rows: Sequence[Any]) -> Spend:
    return Spend(sum(row.picodollars for row in rows), sum(row.unpriced for row in rows))
