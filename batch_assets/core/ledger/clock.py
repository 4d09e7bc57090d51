"""The ledger's clock: seconds since 1970 that go on evenly when the wall clock is set.

Leases, waits and ages are differences of these times. If the wall clock jumps, forward or back, the ledger's clock
goes on as before and then approaches the wall clock so slowly that no duration changes by more than a hundredth.

The steady part is the time since the machine was started, which all its processes share. The ledger records the
last reading, so that a process that begins after the jump continues it too. After a restart, and on another
machine, the recorded distance from the wall clock is kept.

The writers of each pipeline, and those of the whole root, record their readings in a row of their own, because two
pipelines may be written at the same time. Every reading continues the latest of all rows. So the clock never goes
back between two transactions of which the second began after the first had ended.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from batch_assets.core.ledger import tables

# How much faster or slower than the steady part the clock may go to approach the wall clock.
_SLEW = 0.01
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Reading:
    """One reading of the clock.

    Attributes:
        boot_id: Identifies the start of the machine that `steady` counts from.
        steady: Seconds since then.
        now: The time, in seconds since 1970.
        offset: How far `now` was ahead of the wall clock.
    """

    boot_id: str
    steady: float
    now: float
    offset: float


class LedgerClock:
    """Reads the clock of one ledger.

    Attributes:
        last: The last reading of this process; `None` before the first.
    """

    def __init__(self) -> None:
        self.last: Reading | None = None

    def read(self, connection: Connection, wall: float) -> Reading:
        """Read the clock within a transaction.

        Args:
            connection: The transaction.
            wall: The wall clock of the database, in seconds since 1970.
        """
        latest = sa.select(tables.clock).order_by(tables.clock.c.now.desc()).limit(1)
        row = connection.execute(latest).first()
        recorded = Reading(row.boot_id, row.steady, row.now, row.offset) if row is not None else None
        self.last = reading = _next(recorded, self.last, boot_id(), steady(), wall)
        return reading

    def record(self, connection: Connection, wall: float, pipeline: str) -> Reading:
        """Read the clock within a transaction that locks out other writers, and record the reading.

        Args:
            connection: The transaction.
            wall: See `read`.
            pipeline: The pipeline whose other writers are locked out; "" for the whole root.
        """
        reading = self.read(connection, wall)
        values = {
            "boot_id": reading.boot_id,
            "steady": reading.steady,
            "now": reading.now,
            "offset": reading.offset,
        }
        own = sa.update(tables.clock).where(tables.clock.c.pipeline == pipeline)
        if connection.execute(own.values(values)).rowcount == 0:
            connection.execute(sa.insert(tables.clock).values(pipeline=pipeline, **values))
        return reading


def _next(recorded: Reading | None, last: Reading | None, boot: str, now_steady: float, wall: float) -> Reading:
    if recorded is None:
        return Reading(boot, now_steady, wall, 0.0)
    before = recorded if recorded.boot_id == boot else last
    if before is None or before.boot_id != boot:
        now = wall + recorded.offset
    else:
        elapsed = max(0.0, now_steady - before.steady)
        expected, room = before.now + elapsed, _SLEW * elapsed
        now = min(max(wall, expected - room), expected + room)
    now = max(now, recorded.now)
    return Reading(boot, now_steady, now, now - wall)


@cache
def boot_id() -> str:
    """Return what identifies the start of this machine; where the system does not tell, of this process."""
    try:
        return _BOOT_ID.read_text().strip()[:64]
    except OSError:
        return uuid.uuid4().hex


def steady() -> float:
    """Return seconds since the machine was started.

    On Linux time.monotonic stops while the machine is suspended, but leases still expire during that time.
    """
    boottime: int | None = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boottime is None else time.clock_gettime(boottime)
