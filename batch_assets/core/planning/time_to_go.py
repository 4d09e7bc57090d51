"""When the open batches will probably have ended, by how long the last ones took."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from batch_assets.core.ledger.recent import RecentBatch
from batch_assets.core.ledger.records import Batch
from batch_assets.core.ledger.states import BatchState

# Fewer than these say little about the next one. The newest of them count.
_FEW, _MOST = 3, 50


@dataclass(frozen=True)
class TimeToGo:
    """How long open batches probably still take.

    Attributes:
        seconds: Until the last of them has probably ended; `None` if too few batches have ended to tell.
        until: When the API will have ended all of them, at the latest, seconds since 1970; `None` if unknown.
        basis: The number of ended batches that it is computed from.
    """

    seconds: float | None
    until: float | None
    basis: int


def time_to_go(running: Iterable[Batch], ended: Sequence[RecentBatch], now: float) -> TimeToGo | None:
    """Return how long open batches probably still take; `None` if none is open.

    Each is taken to end after as long as the ended ones took in the middle, and now if it has run for longer.

    Args:
        running: The batches that are not collected.
        ended: Batches of the same kind, the newest first.
        now: The ledger's time.
    """
    open_batches = [batch for batch in running if batch.state is BatchState.OPEN]
    if not open_batches:
        return None
    took = [seconds for each in ended if (seconds := each.seconds) is not None][:_MOST]
    until = max((batch.expires_at for batch in open_batches if batch.expires_at is not None), default=None)
    if len(took) < _FEW:
        return TimeToGo(None, until, len(took))
    typical = median(took)
    left = max((batch.submitted_at or batch.created_at or now) + typical - now for batch in open_batches)
    return TimeToGo(max(0.0, left), until, len(took))
