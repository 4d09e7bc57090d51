"""How many requests wait or run at the API, and whether request files fit into its queue.

The account takes a number of requests at once, over all batches. Whoever writes an intent has locked out every
other writer of an intent, see `connection.py`. So two files never take the same room.

Pipelines that wait for room take turns: the one with the fewest queued requests comes first, then the one that
was last sent longest ago. Room that it needs is kept for it, but not for ever: no process may be there to send.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from batch_assets.core.ledger.budgets import GOES, Fit, Prospect
from batch_assets.core.ledger.connection import Transaction
from batch_assets.core.ledger.id_chunks import id_chunks
from batch_assets.core.ledger.records import RequestFile
from batch_assets.core.ledger.states import FILES_IN_DOUBT, BatchState, FileState, HoldReason
from batch_assets.core.ledger.tables import batch, queue, request_file, submission

ROOT = ""
"""In place of a pipeline's name: the limits of the root and of the account."""
# Room is kept for a pipeline for so long after it could have been taken.
TURN_SECONDS = 900.0
# A limit that a refusal showed is forgotten after this time: others may have filled the queue then.
LEARNED_SECONDS = 6 * 3600.0


@dataclass(frozen=True)
class _Limit:
    """The largest number of queued requests.

    Attributes:
        requests: The number.
        whose: What it is, for texts.
        is_certain: A user or the API gave it. Otherwise a larger file may still fit into an empty queue.
    """

    requests: int
    whose: str
    is_certain: bool = True


@dataclass(frozen=True)
class _Waiter:
    """A pipeline that waits for room.

    Attributes:
        seq: Its oldest submission with a file that waits.
        requests: The largest of these files.
    """

    seq: int
    requests: int


def recorded(tx: Transaction) -> dict[str, int]:
    """Return `max_in_flight` of the pipelines that have it and, under `ROOT`, of the root."""
    statement = sa.select(queue.c.pipeline, queue.c.max_in_flight).where(queue.c.max_in_flight.is_not(None))
    return {row.pipeline: row.max_in_flight for row in tx.execute(statement)}


def keep(tx: Transaction, pipeline: str, **values: Any) -> None:
    """Record values in the row of a pipeline, or in that of the root under `ROOT`."""
    if not tx.execute(sa.update(queue).where(queue.c.pipeline == pipeline).values(values)).rowcount:
        tx.execute(sa.insert(queue).values(pipeline=pipeline, **values))


def note_asked(tx: Transaction, pipeline: str, *, is_served: bool) -> None:
    """Record that a pipeline takes room or asks for it in vain: it does not let its turn pass.

    Nothing is recorded while there is no limit.
    """
    limits = sa.or_(*(column.is_not(None) for column in (queue.c.max_in_flight, queue.c.account, queue.c.learned)))
    if tx.execute(sa.select(queue.c.pipeline).where(limits).limit(1)).first() is not None:
        keep(tx, pipeline, passed_at=None, **({"served_at": tx.now} if is_served else {}))


def has_passed(tx: Transaction, pipeline: str) -> bool:
    """Whether a pipeline could have taken its turn, and did not yet."""
    passed = sa.and_(queue.c.pipeline == pipeline, queue.c.passed_at.is_not(None))
    return tx.execute(sa.select(queue.c.pipeline).where(passed)).first() is not None


def account_is_due(tx: Transaction) -> bool:
    """Whether the API may be asked for the account's limit again."""
    ask_at = tx.execute(sa.select(queue.c.ask_at).where(queue.c.pipeline == ROOT)).scalar()
    return ask_at is None or ask_at <= tx.now


def queued(tx: Transaction) -> dict[str, int]:
    """Return by pipeline the requests that are at the API, or may be. Requests of no known pipeline are under "".

    A file that becomes a batch meanwhile is counted once: it is one statement.
    """
    uploads = sa.select(request_file.c.pipeline, request_file.c.requests).where(
        request_file.c.state.in_(FILES_IN_DOUBT)
    )
    # The API deletes only batches that have ended: one that it does not show may run in another workspace.
    may_run = sa.and_(batch.c.state == BatchState.UNREACHABLE, batch.c.expires_at > tx.now)
    batches = sa.select(sa.func.coalesce(batch.c.pipeline, ""), batch.c.requests).where(
        sa.or_(batch.c.state == BatchState.OPEN, may_run)
    )
    both = sa.union_all(uploads, batches).subquery()
    sums = sa.select(both.c.pipeline, sa.func.sum(both.c.requests).label("total")).group_by(both.c.pipeline)
    return {row.pipeline: int(row.total) for row in tx.execute(sums)}


def learn(tx: Transaction, file: RequestFile) -> None:
    """Record what a refusal shows: the account takes less than what is queued together with the refused file.

    Nothing is learned if nothing is queued: the file may be too large, or others may have filled the queue.
    """
    total = sum(queued(tx).values())
    if total:
        keep(tx, ROOT, learned=total + file.requests - 1, learned_at=tx.now)


def prospects(tx: Transaction, files: Sequence[RequestFile], of_root: int | None = None) -> dict[str, Prospect]:
    """Return by id when request files may be sent. Each that fits takes its room from those after it.

    The number of statements does not grow with the number of files.

    Args:
        tx: A transaction.
        files: The files.
        of_root: The limit of the root in force; `None` for the one that is recorded.
    """
    state = _Queue(tx, files, of_root)
    return {file.id: state.judge(file) for file in state.in_turn(files)}


def note_turns(tx: Transaction) -> list[str]:
    """Return the pipelines that could take their turn, and of which that is not recorded yet."""
    return _Queue(tx, (), None).to_note()


class _Queue:
    """The limits, what is queued and who waits, read once for some files."""

    def __init__(self, tx: Transaction, files: Sequence[RequestFile], of_root: int | None) -> None:
        self._now = tx.now
        rows = {row.pipeline: row for row in tx.execute(sa.select(queue))}
        self._limit = _limit(rows.get(ROOT), of_root, tx.now)
        self._caps = {name: row.max_in_flight for name, row in rows.items() if name and row.max_in_flight}
        is_capped = any(file.pipeline in self._caps for file in files)
        self._queued = queued(tx) if self._limit is not None or is_capped else {}
        self._waiters = _waiters(tx) if self._limit is not None else {}
        self._served_at = {name: row.served_at for name, row in rows.items() if row.served_at is not None}
        self._passed_at = {name: row.passed_at for name, row in rows.items() if row.passed_at is not None}
        self._seqs = _seqs(tx, {file.submission_id for file in files}) if self._waiters else {}

    def in_turn(self, files: Sequence[RequestFile]) -> list[RequestFile]:
        """Return the files in the order in which they get room. Those of one submission keep theirs."""
        return sorted(files, key=self._turn_of)

    def judge(self, file: RequestFile) -> Prospect:
        """Return when a file may be sent, and take the room that it takes."""
        used = sum(self._queued.values())
        own = self._queued.get(file.pipeline, 0)
        limits = [(self._limit, used, self._kept_before(file))] if self._limit is not None else []
        if (cap := self._caps.get(file.pipeline)) is not None:
            limits.append((_Limit(cap, "batching.max_in_flight"), own, {}))
        for limit, taken, kept in limits:
            prospect = _judge(limit, taken, sum(kept.values()), file)
            if prospect.fit is not Fit.WHOLE:
                times = [self._passed_at[name] + TURN_SECONDS for name in kept if name in self._passed_at]
                return Prospect(prospect.fit, prospect.why, min(times, default=None), comes_free=True)
        self._queued[file.pipeline] = own + file.requests
        waiter = self._waiters.get(file.pipeline)
        if waiter is not None and waiter.seq == self._seqs.get(file.submission_id):
            del self._waiters[file.pipeline]
        return GOES

    def to_note(self) -> list[str]:
        """See `note_turns`."""
        if self._limit is None:
            return []
        room, could = self._limit.requests - sum(self._queued.values()), list[str]()
        for name in sorted(self._waiters, key=lambda name: self._turn(name, self._waiters[name].seq)):
            room -= self._need(name)
            if room < 0:
                break
            could.append(name)
        return [name for name in could if self._need(name) and name not in self._passed_at]

    def _turn_of(self, file: RequestFile) -> tuple[int, float, int]:
        return self._turn(file.pipeline, self._seqs.get(file.submission_id, 0))

    def _turn(self, pipeline: str, seq: int) -> tuple[int, float, int]:
        """Return what the order of turns goes by."""
        return self._queued.get(pipeline, 0), self._served_at.get(pipeline, 0.0), seq

    def _kept_before(self, file: RequestFile) -> dict[str, int]:
        """Return the room that is kept for pipelines whose turn is before a file's, its own included."""
        turn, kept = self._turn_of(file), dict[str, int]()
        for name, waiter in self._waiters.items():
            if name == file.pipeline:
                is_before = waiter.seq < turn[-1]
            else:
                is_before = self._turn(name, waiter.seq) < turn
            if is_before and (need := self._need(name)):
                kept[name] = need
        return kept

    def _need(self, name: str) -> int:
        """Return the room that is kept for a pipeline: none if it let its turn pass, or may not take it."""
        assert self._limit is not None
        if self._now >= self._passed_at.get(name, self._now) + TURN_SECONDS:
            return 0
        cap = self._caps.get(name)
        most = self._limit.requests if cap is None else min(cap, self._limit.requests)
        need = min(self._waiters[name].requests, most)
        return need if cap is None or self._queued.get(name, 0) + need <= cap else 0


def _judge(limit: _Limit, used: int, kept: int, file: RequestFile) -> Prospect:
    free = limit.requests - used
    if file.requests <= free - kept:
        return GOES
    size = f"this file has {file.requests:,}"
    if limit.is_certain and file.requests > limit.requests:
        return Prospect(Fit.IN_PART, f"{limit.whose} is {limit.requests:,} requests, and {size}")
    if not used and not kept:  # a limit that was learned: the file alone may still be taken
        return GOES
    if file.requests <= free:
        return Prospect(Fit.NOT_NOW, f"it is the turn of another: {limit.whose} has room for {free:,} requests")
    queued_now = f"{used:,} of {limit.requests:,} requests are queued"
    return Prospect(Fit.NOT_NOW, f"{limit.whose} is reached: {queued_now}, and {size}")


def _limit(row: Any, of_root: int | None, now: float) -> _Limit | None:
    """Return the limit of all pipelines together: as set, else as the API says, else as learned."""
    if of_root is not None:
        return _Limit(of_root, "the root's limit")
    if row is None:
        return None
    if row.max_in_flight is not None:
        return _Limit(row.max_in_flight, "the root's limit")
    if row.account is not None:
        return _Limit(row.account, "the account's limit")
    if row.learned is not None and now < row.learned_at + LEARNED_SECONDS:
        return _Limit(row.learned, "the limit that the API showed", is_certain=False)
    return None


def _waiters(tx: Transaction) -> dict[str, _Waiter]:
    """Return the pipelines that wait for room."""
    waits = sa.and_(request_file.c.state == FileState.HELD, request_file.c.hold == HoldReason.QUEUE)
    joined = request_file.join(submission, submission.c.id == request_file.c.submission_id)
    oldest = (
        sa.select(request_file.c.pipeline, sa.func.min(submission.c.seq).label("seq"))
        .select_from(joined)
        .where(waits)
        .group_by(request_file.c.pipeline)
        .subquery()
    )
    statement = (
        sa.select(oldest.c.pipeline, oldest.c.seq, sa.func.max(request_file.c.requests).label("requests"))
        .join(submission, submission.c.seq == oldest.c.seq)
        .join(request_file, request_file.c.submission_id == submission.c.id)
        .where(waits)
        .group_by(oldest.c.pipeline, oldest.c.seq)
    )
    return {row.pipeline: _Waiter(row.seq, row.requests) for row in tx.execute(statement)}


def _seqs(tx: Transaction, submission_ids: Iterable[str]) -> dict[str, int]:
    seqs: dict[str, int] = {}
    for chunk in id_chunks(sorted(submission_ids)):
        statement = sa.select(submission.c.id, submission.c.seq).where(submission.c.id.in_(chunk))
        seqs |= {row.id: row.seq for row in tx.execute(statement)}
    return seqs
