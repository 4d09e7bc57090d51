"""Leases: who may do a piece of work now, until when. A process that dies or freezes loses its own."""

from __future__ import annotations

import hashlib
import math
import os
import secrets
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType

import sqlalchemy as sa

from batch_assets.core.errors import BusyError, DamagedFileError, LeaseLostError, SettingsError
from batch_assets.core.ledger.connection import Ledger, Transaction, process_name
from batch_assets.core.ledger.tables import lease

PATIENCE = 600.0
"""Seconds to wait for work that others do one after the other, such as the partitions of a backfill."""
_SECONDS = 60.0
# A longer name, such as one with a long partition key, has no room in the table.
_NAME_LENGTH, _NAME_KEPT = 150, 100


class Lease:
    """A lease that is held, kept alive by a thread.

    Every piece of work asks `check` before a step that cannot be taken back, and `confirm` inside the
    transaction that records the outcome.

    Attributes:
        name: of the work, for people: as long as it was given.
    """

    def __init__(self, ledger: Ledger, name: str, owner: str, seconds: float) -> None:
        self.name = name
        self._ledger, self._owner, self._seconds = ledger, owner, seconds
        self._stored = _stored(name)
        self._renewed = _clock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep_alive, name=f"lease {name}", daemon=True)

    def check(self) -> None:
        """Raises LeaseLostError when the lease may have run out: the process slept, or the ledger is away."""
        if _clock() - self._renewed > self._seconds * 0.8:
            self._renew()

    def confirm(self, tx: Transaction) -> None:
        """Raises LeaseLostError unless the ledger says, inside this transaction, that the lease is ours."""
        if not self.is_ours(tx):
            raise LeaseLostError(f"another process has taken over {self.name}")

    def is_ours(self, tx: Transaction) -> bool:
        """Whether the ledger says, inside this transaction, that the lease is ours."""
        row = tx.execute(sa.select(lease).where(lease.c.name == self._stored)).first()
        return row is not None and row.owner == self._owner and row.until >= tx.now

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Releases it.

        Errors:
            LeaseLostError: a file was gone because another has taken over: who does so after a process was
                frozen removes what that was writing.
        """
        try:
            if isinstance(error, FileNotFoundError):
                with self._ledger.read() as tx:
                    self.confirm(tx)
        finally:
            self.release()

    def release(self) -> None:
        self._stop.set()
        self._thread.join()
        with self._ledger.write() as tx:
            tx.execute(sa.delete(lease).where(lease.c.name == self._stored, lease.c.owner == self._owner))

    def start(self) -> None:
        self._thread.start()

    def _renew(self) -> None:
        asked = _clock()
        with self._ledger.write() as tx:
            self.confirm(tx)
            until = tx.now + self._seconds
            tx.execute(sa.update(lease).where(lease.c.name == self._stored).values(until=until))
        self._renewed = asked

    def _keep_alive(self) -> None:
        while not self._stop.wait(self._seconds / 4):
            try:
                self._renew()
            except LeaseLostError:
                return
            except (sa.exc.SQLAlchemyError, DamagedFileError):
                continue  # the database is away: `check` speaks up when that lasts too long


def _clock() -> float:
    """Seconds from any beginning. On Linux time.monotonic stands still while the machine is suspended, and a
    lease runs out meanwhile.
    """
    boottime: int | None = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boottime is None else time.clock_gettime(boottime)


def _stored(name: str) -> str:
    """The name as the table holds it."""
    if len(name) <= _NAME_LENGTH:
        return name
    digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    return f"{name[:_NAME_KEPT]}#{digest}"


def _default_seconds() -> float:
    """How long a lease lasts without being renewed."""
    text = os.environ.get("BATCH_ASSETS_LEASE_SECONDS")
    if not text:
        return _SECONDS
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise SettingsError(f"BATCH_ASSETS_LEASE_SECONDS is {text!r}: give a number of seconds above 0")
    return seconds


def try_take(ledger: Ledger, name: str, seconds: float | None = None) -> Lease | None:
    """Takes a lease that is free or has run out; None when somebody else holds it.

    Args:
        seconds: that it lasts without being renewed; default BATCH_ASSETS_LEASE_SECONDS, or 60.

    Errors:
        SettingsError: BATCH_ASSETS_LEASE_SECONDS is no such number.
    """
    seconds = _default_seconds() if seconds is None else seconds
    owner, stored = f"{process_name()}:{secrets.token_hex(6)}", _stored(name)
    with ledger.write() as tx:
        row = tx.execute(sa.select(lease).where(lease.c.name == stored)).first()
        if row is not None and row.until >= tx.now:
            return None
        if row is not None:
            tx.execute(sa.delete(lease).where(lease.c.name == stored))
        tx.execute(sa.insert(lease).values(name=stored, owner=owner, until=tx.now + seconds))
    taken = Lease(ledger, name, owner, seconds)
    taken.start()
    return taken


@contextmanager
def hold(ledger: Ledger, name: str, *, wait: float = 0.0, seconds: float | None = None) -> Iterator[Lease]:
    """Holds a lease for the block.

    Args:
        wait: seconds to wait for another holder to finish.
        seconds: as try_take.

    Errors:
        BusyError: another process holds it.
        SettingsError: as try_take.
    """
    deadline = time.monotonic() + wait
    while (taken := try_take(ledger, name, seconds)) is None:
        if time.monotonic() >= deadline:
            raise BusyError(f"another run is busy with {name}; this one can be repeated when it is done")
        time.sleep(0.1)
    with taken:
        yield taken


@contextmanager
def mark(ledger: Ledger, name: str) -> Iterator[None]:
    """Lets others see, for the block, that somebody is at a piece of work. It keeps nobody from it."""
    taken = try_take(ledger, name)
    try:
        yield
    finally:
        if taken is not None:
            taken.release()


def is_held(tx: Transaction, name: str) -> bool:
    """Whether somebody holds the lease now."""
    row = tx.execute(sa.select(lease.c.until).where(lease.c.name == _stored(name))).first()
    return row is not None and row.until >= tx.now


def held_among(tx: Transaction, names: Iterable[str]) -> set[str]:
    """Those of some leases that somebody holds now, in one statement however many are asked for: the table has no
    more rows than there is work under way.
    """
    held = set(tx.execute(sa.select(lease.c.name).where(lease.c.until >= tx.now)).scalars())
    return {name for name in names if _stored(name) in held}


def ended_at(tx: Transaction, name: str) -> float | None:
    """When a lease that nobody holds ran out; None when it was released."""
    return tx.execute(sa.select(lease.c.until).where(lease.c.name == _stored(name))).scalar()
