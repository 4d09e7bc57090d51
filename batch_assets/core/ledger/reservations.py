"""What request files may cost until their answers are stored, and what they did cost: the sums that budgets cap.

Each upload has a reservation, written in the transaction that writes its intent. It counts as the worst case of
its file until the cost of its batch is known, and as nothing once the API has certainly refused it. Without a
budget no worst case is computed; under one it is computed for what is open. The day of a reservation is the day on
which the file was sent, in UTC: it never changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from batch_assets.core.ledger.connection import Transaction
from batch_assets.core.ledger.id_chunks import id_chunks
from batch_assets.core.ledger.intents import INTENTS_IN_DOUBT
from batch_assets.core.ledger.records import RequestFile, to_record
from batch_assets.core.ledger.states import BATCHES_STORED, ReservationState
from batch_assets.core.ledger.tables import batch, intent, request_file, reservation
from batch_assets.core.prices.budget import Budget, Hold, Period, day_of

# Of so many batches, the newest ones, the mean cost of a request is taken.
_RECENT = 100


@dataclass(frozen=True)
class Amounts:
    """What one reservation counts in picodollars.

    Attributes:
        worst: Under `hold: worst`; `None` if it was not computed.
        expected: Under `hold: expected`.
    """

    worst: int | None
    expected: int | None


NOT_COMPUTED = Amounts(None, None)


@dataclass(frozen=True)
class Total:
    """What counts in a budget.

    Attributes:
        settled: What stored answers did cost, in picodollars.
        reserved: What is reserved for the files whose cost is not known yet.
        awaited: What of it may come free: the rest is for uploads whose batch was looked for in vain.
        unknown: Ids of files with no bound, which were sent before there was a budget.
        is_stale: Whether there are reservations about which something can be found out.
    """

    settled: int
    reserved: int
    awaited: int = 0
    unknown: tuple[str, ...] = ()
    is_stale: bool = False

    @property
    def picodollars(self) -> int:
        """The sum of what is settled and reserved."""
        return self.settled + self.reserved


NOTHING = Total(0, 0)


@dataclass(frozen=True)
class MeanCost:
    """What the newest batches of a pipeline did cost.

    Attributes:
        picodollars: The sum.
        requests: The number of their requests; 0 if there are none.
    """

    picodollars: int
    requests: int


NO_MEAN = MeanCost(0, 0)
NO_BOUND = -1
"""In place of a worst case: it cannot be computed."""


@dataclass(frozen=True)
class OpenReservation:
    """A reservation about which something is left to find out.

    Attributes:
        id: Its number.
        file: Its request file.
        batch_id: The batch that the file became; `None` if that is not known.
        is_stored: Whether the answers of the batch are stored, so that its cost can be read.
    """

    id: int
    file: RequestFile
    batch_id: str | None
    is_stored: bool


def reserve(
    tx: Transaction,
    file: RequestFile,
    intent_id: int | None,
    amounts: Amounts = NOT_COMPUTED,
    *,
    batch_id: str | None = None,
    sent_at: float | None = None,
) -> None:
    """Reserve what a request file may cost.

    Args:
        tx: A transaction.
        file: The file.
        intent_id: The intent of its upload; `None` if the ledger does not have it.
        amounts: What it counts.
        batch_id: The batch that it became; `None` if that is not known.
        sent_at: When it was sent; `None` for now.
    """
    at = tx.now if sent_at is None else sent_at
    values = {
        "file_id": file.id,
        "submission_id": file.submission_id,
        "pipeline": file.pipeline,
        "intent_id": intent_id,
        "batch_id": batch_id,
        "day": day_of(at),
        "state": ReservationState.OPEN,
        "worst": amounts.worst,
        "expected": amounts.expected,
    }
    tx.execute(sa.insert(reservation).values(values))


def attach(
    tx: Transaction, file: RequestFile, batch_id: str, intent_id: int | None, sent_at: float | None
) -> None:
    """Find the reservation of a batch among those of its file, or add one: the API accepted it.

    Args:
        tx: A transaction.
        file: The request file.
        batch_id: Its batch.
        intent_id: The intent that sent it; `None` if the ledger does not know it.
        sent_at: When the batch was created; `None` if that is not known.
    """
    statement = sa.select(reservation).where(reservation.c.file_id == file.id).order_by(reservation.c.id)
    rows = tx.execute(statement).all()
    if any(row.batch_id == batch_id for row in rows):
        return
    free = [row for row in rows if row.batch_id is None and row.state is not ReservationState.SETTLED]
    free.sort(key=lambda row: (row.intent_id != intent_id, row.state is not ReservationState.OPEN))
    if not free:
        known = file.worst_case
        reserve(tx, file, None, Amounts(known, known), batch_id=batch_id, sent_at=sent_at)
        return
    if free[0].state is ReservationState.RELEASED:
        _reopen(tx, reservation.c.id == free[0].id)
    tx.execute(sa.update(reservation).where(reservation.c.id == free[0].id).values(batch_id=batch_id))


def detach(tx: Transaction, batch_id: str) -> None:
    """Take a batch from its file's reservation, because it is not the file's. The reservation stays open."""
    tx.execute(sa.update(reservation).where(reservation.c.batch_id == batch_id).values(batch_id=None))


def release(tx: Transaction, intent_id: int) -> None:
    """Give back what was reserved for an upload that the API has certainly not accepted."""
    of_intent = sa.and_(reservation.c.intent_id == intent_id, reservation.c.batch_id.is_(None))
    _set(tx, sa.and_(of_intent, reservation.c.state == ReservationState.OPEN), ReservationState.RELEASED, 0)


def reopen(tx: Transaction, intent_id: int) -> None:
    """Reserve again for an upload that may have been accepted although it was refused."""
    _reopen(tx, reservation.c.intent_id == intent_id)


def settle(tx: Transaction, batch_id: str, picodollars: int | None) -> None:
    """Replace what is reserved for a batch by what it did cost.

    Args:
        tx: A transaction.
        batch_id: The batch, whose answers are stored.
        picodollars: Their cost; `None` if it is not certain, because answers were never seen or have no price. The
            batch then goes on counting as the worst case, if that was computed.
    """
    is_open = sa.and_(reservation.c.batch_id == batch_id, reservation.c.state == ReservationState.OPEN)
    if picodollars is not None:
        _set(tx, is_open, ReservationState.SETTLED, picodollars)
        return
    computed = sa.update(reservation).where(is_open, reservation.c.worst.is_not(None))
    tx.execute(computed.values(state=ReservationState.SETTLED, expected=reservation.c.worst))


def _set(tx: Transaction, where: Any, state: ReservationState, picodollars: int) -> None:
    values = {"state": state, "worst": picodollars, "expected": picodollars}
    tx.execute(sa.update(reservation).where(where).values(values))


def _reopen(tx: Transaction, where: Any) -> None:
    known = sa.select(request_file.c.worst_case).where(request_file.c.id == reservation.c.file_id)
    values = {
        "state": ReservationState.OPEN,
        "worst": known.scalar_subquery(),
        "expected": known.scalar_subquery(),
    }
    released = reservation.c.state == ReservationState.RELEASED
    tx.execute(sa.update(reservation).where(where, released).values(values))


def to_find_out(tx: Transaction, scope: Any) -> list[OpenReservation]:
    """Return the reservations that do not count what they could: no worst case, or the cost can be read.

    Args:
        tx: A transaction.
        scope: Which reservations, from `of_budget`.
    """
    statement = (
        sa.select(
            reservation.c.id.label("number"), reservation.c.batch_id.label("its_batch"), batch.c.state.label("now")
        )
        .add_columns(request_file)
        .join(request_file, request_file.c.id == reservation.c.file_id)
        .outerjoin(batch, batch.c.id == reservation.c.batch_id)
        .where(scope, reservation.c.state == ReservationState.OPEN)
        .where(
            sa.or_(
                reservation.c.worst.is_(None),
                reservation.c.expected.is_(None),
                batch.c.state.in_(BATCHES_STORED),
            )
        )
        .order_by(reservation.c.id)
    )
    return [
        OpenReservation(
            row.number, to_record(RequestFile, row), row.its_batch, row.now is not None and row.now.stored
        )
        for row in tx.execute(statement).all()
    ]


def compute(tx: Transaction, number: int, amounts: Amounts) -> None:
    """Record what an open reservation counts."""
    is_open = sa.and_(reservation.c.id == number, reservation.c.state == ReservationState.OPEN)
    tx.execute(sa.update(reservation).where(is_open).values(worst=amounts.worst, expected=amounts.expected))


def of_budget(budget: Budget, pipeline: str | None, submission_ids: Sequence[str], now: float) -> Any:
    """Return the condition for the reservations that count in a budget.

    Args:
        budget: The budget.
        pipeline: The pipeline; `None` for the whole root.
        submission_ids: The submissions, for a budget per run.
        now: The ledger's time.
    """
    days = budget.days(now)
    if days is None:
        return reservation.c.submission_id.in_(submission_ids)
    of_days = reservation.c.day.between(*days)
    return of_days if pipeline is None else sa.and_(reservation.c.pipeline == pipeline, of_days)


def totals(
    tx: Transaction, budget: Budget, pipeline: str | None, submission_ids: Sequence[str]
) -> dict[str, Total]:
    """Return what counts in a budget: by submission for a budget per run, otherwise under "".

    Args:
        tx: A transaction.
        budget: The budget.
        pipeline: The pipeline; `None` for the whole root.
        submission_ids: The submissions, for a budget per run.
    """
    if budget.per is not Period.RUN:
        return {"": _total(tx, of_budget(budget, pipeline, (), tx.now), budget.hold).get("", NOTHING)}
    found: dict[str, Total] = {}
    for some in id_chunks(submission_ids):
        found |= _total(tx, of_budget(budget, pipeline, some, tx.now), budget.hold, reservation.c.submission_id)
    return found


def _total(tx: Transaction, scope: Any, hold: Hold, key: Any = None) -> dict[str, Total]:
    amount = reservation.c.worst if hold is Hold.WORST else reservation.c.expected
    key = sa.cast(sa.literal(""), sa.String) if key is None else key  # PostgreSQL groups by no constant
    known = sa.case((amount > 0, amount), else_=0)
    columns = key.label("key"), reservation.c.state, sa.func.sum(known).label("picodollars")
    may_settle = sa.or_(reservation.c.batch_id.is_not(None), intent.c.outcome.in_(INTENTS_IN_DOUBT))
    awaited = sa.func.sum(sa.case((may_settle, known), else_=0)).label("awaited")
    unbound = sa.func.sum(sa.case((amount == NO_BOUND, 1), else_=0)).label("unbound")
    statement = (
        sa.select(*columns, awaited, unbound)
        .select_from(reservation)
        .outerjoin(intent, intent.c.id == reservation.c.intent_id)
        .where(scope)
        .group_by(key, reservation.c.state)
    )
    sums: dict[str, dict[ReservationState, int]] = {}
    awaited_by_key: dict[str, int] = {}
    unknown: set[str] = set()
    for row in tx.execute(statement):
        sums.setdefault(row.key, {})[row.state] = int(row.picodollars or 0)
        if row.state is ReservationState.OPEN:
            awaited_by_key[row.key] = int(row.awaited or 0)
        if row.unbound:
            unknown.add(row.key)
    stale = (
        sa.select(key.label("key"))
        .select_from(reservation)
        .outerjoin(batch, batch.c.id == reservation.c.batch_id)
        .where(scope, reservation.c.state == ReservationState.OPEN)
        .where(sa.or_(amount.is_(None), batch.c.state.in_(BATCHES_STORED)))
        .distinct()
    )
    stale_keys = set(tx.execute(stale).scalars())
    names: dict[str, tuple[str, ...]] = {}
    for each in unknown:
        of_key = sa.select(reservation.c.file_id).where(scope, key == each, amount == NO_BOUND)
        names[each] = tuple(tx.execute(of_key.order_by(reservation.c.id).limit(3)).scalars())
    return {
        each: Total(
            by_state.get(ReservationState.SETTLED, 0),
            by_state.get(ReservationState.OPEN, 0),
            awaited_by_key.get(each, 0),
            names.get(each, ()),
            each in stale_keys,
        )
        for each, by_state in sums.items()
    }


def mean_cost(tx: Transaction, pipeline: str) -> MeanCost:
    """Return what the newest batches of a pipeline did cost."""
    settled = sa.and_(
        reservation.c.pipeline == pipeline,
        reservation.c.state == ReservationState.SETTLED,
        reservation.c.worst >= 0,
    )
    newest = (
        sa.select(reservation.c.worst, batch.c.requests)
        .join(batch, batch.c.id == reservation.c.batch_id)
        .where(settled)
        .order_by(reservation.c.day.desc(), reservation.c.id.desc())
        .limit(_RECENT)
        .subquery()
    )
    sums = sa.select(
        sa.func.sum(newest.c.worst).label("picodollars"), sa.func.sum(newest.c.requests).label("requests")
    )
    row = tx.execute(sums).one()
    return MeanCost(int(row.picodollars or 0), int(row.requests or 0))


def is_watched(tx: Transaction, intent_id: int) -> bool:
    """Whether a refused upload may still prove to have been accepted."""
    watched = sa.select(intent.c.id).where(intent.c.id == intent_id, intent.c.watch_until.is_not(None))
    return tx.execute(watched).first() is not None


def keep_worst_case(tx: Transaction, file_id: str, picodollars: int | None) -> None:
    """Record the most that a request file can cost; `None` if nothing bounds it."""
    tx.execute(sa.update(request_file).where(request_file.c.id == file_id).values(worst_case=picodollars))
