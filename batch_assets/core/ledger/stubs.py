"""Stubs: requests that are sent first, so that the others can read the prompt that they share from the cache.

A request file with a breakpoint names the file of its stub. It waits until the stub is answered, and is sent with
the breakpoint only if the stub has certainly written the cache, and the cache has certainly not expired.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import Enum

import sqlalchemy as sa

from batch_assets.core.answers.result_types import ResultType
from batch_assets.core.ledger import batches, files, holds
from batch_assets.core.ledger.connection import Transaction
from batch_assets.core.ledger.records import Batch, RequestFile
from batch_assets.core.ledger.states import FileState, HoldReason
from batch_assets.core.ledger.tables import request_file

# The cache is kept for an hour after it was written. What is sent after this time may be processed later.
WARM_SECONDS = 45 * 60.0
WHY_HELD = "the first request is answered before, so that the others read what they share from the prompt cache"


class Warmth(Enum):
    """What is known of the cache that a stub writes."""

    AWAITED = "awaited"
    """The stub may still write it."""
    WARM = "warm"
    """The stub has written it."""
    COLD = "cold"
    """The stub has not written it, or it may be about to expire."""


@dataclass(frozen=True)
class Stub:
    """The file of a stub.

    Attributes:
        file: The file.
        batch: The batch that it became; `None` if it became none yet.
    """

    file: RequestFile
    batch: Batch | None

    def warmth(self, now: float) -> Warmth:
        """Return what is known of the cache.

        Args:
            now: The ledger's clock.
        """
        if not self.file.state.sent:
            return Warmth.COLD if self.file.state.let_go else Warmth.AWAITED
        until = self.until
        if self.batch is None or until is None or now >= until:
            return Warmth.COLD
        if self.batch.state.unended or self.batch.provisional:
            return Warmth.AWAITED
        return Warmth.WARM if self.batch.count_map.get(ResultType.SUCCEEDED, 0) else Warmth.COLD

    @property
    def until(self) -> float | None:
        """When the cache counts as expired: it was not written before the batch was created. `None`: unknown."""
        times = (self.batch.created_at, self.batch.submitted_at) if self.batch is not None else ()
        earliest = min((time for time in times if time is not None), default=None)
        return earliest + WARM_SECONDS if earliest is not None else None


def by_id(tx: Transaction, file_ids: Collection[str]) -> dict[str, Stub]:
    """Return stubs by the ids of their files. Those that the ledger does not know are left out."""
    found = files.by_ids(tx, file_ids)
    became = {each.id: each for each in batches.by_ids(tx, [file.batch_id for file in found if file.batch_id])}
    return {file.id: Stub(file, became.get(file.batch_id or "")) for file in found}


def warmth_for(tx: Transaction, file: RequestFile) -> Warmth:
    """Return what is known of the cache that a file with a breakpoint is to read. A stub itself writes it."""
    if file.stub is None:
        return Warmth.COLD
    if file.stub == file.id:
        return Warmth.WARM
    stub = by_id(tx, [file.stub]).get(file.stub)
    return stub.warmth(tx.now) if stub is not None else Warmth.COLD


def replace_file(tx: Transaction, file: RequestFile, new_id: str) -> None:
    """Record that a file without erased requests has replaced an unsent one, which may be a stub."""
    if file.stub == file.id:
        tx.execute(sa.update(request_file).where(request_file.c.stub == file.id).values(stub=new_id))


def waits_for_stub(file: RequestFile) -> bool:
    """Whether a file may have to wait for its stub, or waits for it."""
    if file.stub in (None, file.id):
        return False
    return file.state is FileState.READY or file.is_held_for_stub


def hold_or_release(tx: Transaction, waiting: Sequence[RequestFile]) -> bool:
    """Hold files whose stub is awaited, and let the others go.

    The number of statements does not grow with the number of files.

    Args:
        tx: The transaction.
        waiting: Files that `waits_for_stub` names.

    Returns:
        Whether the state of a file has changed.
    """
    current = [file for file in files.by_ids(tx, [file.id for file in waiting]) if waits_for_stub(file)]
    known = by_id(tx, {file.stub for file in current if file.stub is not None})
    awaited = {stub_id for stub_id, stub in known.items() if stub.warmth(tx.now) is Warmth.AWAITED}
    to_hold = [file for file in current if file.state is FileState.READY and file.stub in awaited]
    to_release = [file for file in current if file.is_held_for_stub and file.stub not in awaited]
    holds.hold(tx, to_hold, HoldReason.CACHE, WHY_HELD)
    holds.release(tx, to_release, "its stub is answered, or has failed, or took too long")
    return bool(to_hold or to_release)
