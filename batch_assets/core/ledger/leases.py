"""Leases: the right to do a piece of work until a time. A dead or frozen process loses its leases."""

from __future__ import annotations

import hashlib
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import TracebackType

import sqlalchemy as sa

from batch_assets.core.env_values import lease_seconds
from batch_assets.core.errors import (
    BusyError,
    DamagedFileError,
    LeaseLostError,
    LedgerUnavailableError,
    MissingFileError,
)
from batch_assets.core.ledger.clock import steady
from batch_assets.core.ledger.connection import Ledger, Transaction, process_name
from batch_assets.core.ledger.tables import lease

PATIENCE = 600.0
"""Seconds to wait for work that processes do one after the other, such as the partitions of a backfill."""
PAUSE = 0.1
"""Seconds between two looks at work that is waited for."""
# A longer name, such as one with a long partition key, does not fit into the table's column.
_NAME_LENGTH, _NAME_KEPT = 150, 100

BlockedBy = Callable[[Transaction], str | None]


class Lease:
    """A lease that this process holds. A thread renews it.

    Call `check` before every step that cannot be undone, and `confirm` inside the transaction that records the
    outcome.

    Attributes:
        name: The name of the lease, in full.
        work: What the lease protects, for errors.
    """

    def __init__(
        self, ledger: Ledger, name: str, owner: str, seconds: float, work: str = "", pipeline: str | None = None
    ) -> None:
        self.name, self.work = name, work or name
        self._pipeline = pipeline
        self._ledger, self._owner, self._seconds = ledger, owner, seconds
        self._stored = _stored(name)
        self._renewed = steady()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep_alive, name=f"lease {name}", daemon=True)

    def check(self) -> None:
        """Renew the lease if it is about to expire.

        Raises:
            LeaseLostError: When it has expired and another process has taken over.
        """
        if steady() - self._renewed > self._seconds * 0.8:
            self._renew()

    def confirm(self, tx: Transaction) -> None:
        """Check inside a transaction that the ledger records the lease as ours.

        Raises:
            LeaseLostError: When another process has taken over.
        """
        if not self.is_ours(tx):
            raise LeaseLostError(f"another process has taken over {self.work}")

    def is_ours(self, tx: Transaction) -> bool:
        """Whether the ledger records the lease as ours, inside this transaction."""
        row = tx.execute(sa.select(lease).where(lease.c.name == self._stored)).first()
        return row is not None and row.owner == self._owner and row.until >= tx.now

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release the lease.

        Raises:
            LeaseLostError: When a file was missing because another process has taken over. A process that takes
                over from a frozen one removes what that one was writing.
        """
        try:
            if isinstance(error, FileNotFoundError | MissingFileError):
                with self._ledger.read() as tx:
                    self.confirm(tx)
        finally:
            self.release()

    def release(self) -> None:
        self._stop.set()
        self._thread.join()
        with self._ledger.write(self._pipeline) as tx:
            tx.execute(sa.delete(lease).where(lease.c.name == self._stored, lease.c.owner == self._owner))

    def start(self) -> None:
        self._thread.start()

    def _renew(self) -> None:
        started = steady()
        with self._ledger.write(self._pipeline) as tx:
            self.confirm(tx)
            until = tx.now + self._seconds
            tx.execute(sa.update(lease).where(lease.c.name == self._stored).values(until=until))
        self._renewed = started

    def _keep_alive(self) -> None:
        while not self._stop.wait(self._seconds / 4):
            try:
                self._renew()
            except LeaseLostError:
                return
            except (sa.exc.SQLAlchemyError, DamagedFileError, LedgerUnavailableError):
                continue  # the database is unavailable: `check` raises if that lasts too long


def _stored(name: str) -> str:
    """Return the name under which the table stores a lease."""
    if len(name) <= _NAME_LENGTH:
        return name
    digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    return f"{name[:_NAME_KEPT]}#{digest}"


def _new_owner() -> str:
    """Return a unique name for a holder of leases in this process."""
    return f"{process_name()}:{secrets.token_hex(6)}"


def try_take(
    ledger: Ledger,
    name: str,
    seconds: float | None = None,
    work: str = "",
    *,
    pipeline: str | None = None,
    blocked_by: BlockedBy | None = None,
) -> Lease | None:
    """Take a lease that is free or has expired.

    Args:
        ledger: The ledger.
        name: The name of the lease.
        seconds: How long the lease lasts without being renewed; BATCH_ASSETS_LEASE_SECONDS or 60 by default.
        work: What the lease protects, for errors: "the requests of review_triage". By default its name.
        pipeline: The pipeline whose rows the work concerns, which is the same for all who take the lease. `None`:
            it concerns the whole root.
        blocked_by: Returns, in the transaction that takes the lease, the other work that excludes it.

    Returns:
        `None` if another process or thread holds it, or if other work excludes it.

    Raises:
        SettingsError: When BATCH_ASSETS_LEASE_SECONDS is not a number above 0.
    """
    seconds = lease_seconds(os.environ) if seconds is None else seconds
    owner, stored = _new_owner(), _stored(name)
    with ledger.write(pipeline) as tx:
        row = tx.execute(sa.select(lease).where(lease.c.name == stored)).first()
        if (row is not None and row.until >= tx.now) or (blocked_by is not None and blocked_by(tx) is not None):
            return None
        if row is not None:
            tx.execute(sa.delete(lease).where(lease.c.name == stored))
        tx.execute(sa.insert(lease).values(name=stored, owner=owner, until=tx.now + seconds))
    new_lease = Lease(ledger, name, owner, seconds, work, pipeline)
    new_lease.start()
    return new_lease


@contextmanager
def hold(
    ledger: Ledger,
    name: str,
    *,
    wait: float = 0.0,
    seconds: float | None = None,
    work: str = "",
    pipeline: str | None = None,
    blocked_by: BlockedBy | None = None,
) -> Iterator[Lease]:
    """Hold a lease for the block.

    Args:
        ledger: The ledger.
        name: The name of the lease.
        wait: Seconds to wait for another holder to finish.
        seconds: How long the lease lasts without being renewed, as in `try_take`.
        work: What the lease protects, as in `try_take`.
        pipeline: The pipeline that it concerns, as in `try_take`.
        blocked_by: The other work that excludes it, as in `try_take`.

    Raises:
        BusyError: When another holder has not finished by then.
        SettingsError: When BATCH_ASSETS_LEASE_SECONDS is not a number above 0.
    """
    deadline = time.monotonic() + wait
    while (own_lease := try_take(ledger, name, seconds, work, pipeline=pipeline, blocked_by=blocked_by)) is None:
        if time.monotonic() >= deadline:
            raise busy(_blocking(ledger, blocked_by) or work or name)
        time.sleep(PAUSE)
    with own_lease:
        yield own_lease


def busy(work: str) -> BusyError:
    """Return the error for a run that has waited in vain for other work."""
    return BusyError(f"another run is busy with {work}; repeat this one when that is done")


def _blocking(ledger: Ledger, blocked_by: BlockedBy | None) -> str | None:
    if blocked_by is None:
        return None
    with ledger.read() as tx:
        return blocked_by(tx)


@contextmanager
def mark(ledger: Ledger, name: str, pipeline: str) -> Iterator[None]:
    """Show other processes, for the block, that this one does a piece of work. It does not exclude any.

    Args:
        ledger: The ledger.
        name: The name of the lease that shows it.
        pipeline: The pipeline that it concerns, as in `try_take`.
    """
    with mark_all(ledger, [name], pipeline):
        yield


@contextmanager
def mark_all(ledger: Ledger, names: Sequence[str], pipeline: str) -> Iterator[None]:
    """Show other processes, for the block, that this one does some pieces of work, see `mark`.

    Args:
        ledger: The ledger.
        names: The names of the leases that show it. One thread renews all of them.
        pipeline: The pipeline that they concern, as in `try_take`.
    """
    seconds, owner = lease_seconds(os.environ), _new_owner()
    among = lease.c.name.in_(stored := sorted({_stored(name) for name in names}))
    with ledger.write(pipeline) as tx:
        tx.execute(sa.delete(lease).where(among, lease.c.until < tx.now))
        taken = set(tx.execute(sa.select(lease.c.name).where(among)).scalars())
        for name in stored:
            if name not in taken:
                tx.execute(sa.insert(lease).values(name=name, owner=owner, until=tx.now + seconds))
    over = threading.Event()

    def keep_alive() -> None:
        while not over.wait(seconds / 4):
            # The database may be unavailable. Then the marks expire, which excludes no one.
            with (
                suppress(sa.exc.SQLAlchemyError, DamagedFileError, LedgerUnavailableError),
                ledger.write(pipeline) as tx,
            ):
                tx.execute(sa.update(lease).where(lease.c.owner == owner).values(until=tx.now + seconds))

    thread = threading.Thread(target=keep_alive, name=f"marks {names[0]}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        with ledger.write(pipeline) as tx:
            tx.execute(sa.delete(lease).where(lease.c.owner == owner))


def is_held(tx: Transaction, name: str) -> bool:
    """Return whether a process holds the lease now."""
    row = tx.execute(sa.select(lease.c.until).where(lease.c.name == _stored(name))).first()
    return row is not None and row.until >= tx.now


def held_among(tx: Transaction, names: Iterable[str]) -> set[str]:
    """Return those of some leases that a process holds now.

    It takes one statement for any number of names, because the table has only leases of work in progress.
    """
    held_names = set(tx.execute(sa.select(lease.c.name).where(lease.c.until >= tx.now)).scalars())
    return {name for name in names if _stored(name) in held_names}


def ended_at(tx: Transaction, name: str) -> float | None:
    """Return when a lease that no process holds expired; `None` if it was released."""
    return tx.execute(sa.select(lease.c.until).where(lease.c.name == _stored(name))).scalar()
