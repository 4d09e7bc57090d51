"""`min_requests` and `max_wait`: few requests are held until there are more, or they have waited long enough."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from batch_assets.core.ledger.records import RequestFile
from batch_assets.core.ledger.states import HoldReason
from batch_assets.core.pipeline.blocks import BatchingConfig
from batch_assets.core.pipeline.time_span import seconds_of
from batch_assets.core.text import count

# What held a file that nothing has let go yet.
_NOT_LET_GO = (HoldReason.CONFIRM, HoldReason.PILOT, HoldReason.MORE)


@dataclass(frozen=True)
class Enough:
    """When requests are enough to be sent, or old enough.

    Attributes:
        min_requests: So many are enough.
        max_wait: Seconds after which the oldest is not held any longer.
    """

    min_requests: int
    max_wait: float

    @classmethod
    def of(cls, batching: BatchingConfig) -> Enough | None:
        """Return the rule of a pipeline; `None` if it sends any number at once."""
        if batching.min_requests is None or batching.max_wait is None:
            return None
        return cls(batching.min_requests, seconds_of(batching.max_wait))

    def held(self, requests: int, replaced: Collection[RequestFile], now: float) -> HeldForMore | None:
        """Decide whether requests that are about to be registered are held.

        Requests that were let go once are not held again. Those that take the place of held ones wait no longer
        than these would have.

        Args:
            requests: Their number.
            replaced: The unsent files whose requests are among them.
            now: The time, by the ledger's clock.

        Returns:
            `None` if they are not held.
        """
        was_let_go = any(file.hold not in _NOT_LET_GO for file in replaced)
        if requests >= self.min_requests or was_let_go:
            return None
        before = [file.not_before for file in replaced if file.is_held_for_more]
        until = min([now + self.max_wait, *before])
        why = f"{count(requests, 'request is', 'requests are')} there, and min_requests is {self.min_requests:,}"
        return HeldForMore(until, why) if until > now else None


@dataclass(frozen=True)
class HeldForMore:
    """Requests that are held until there are more.

    Attributes:
        until: When they are sent at the latest, by the ledger's clock.
        why: Why they are held, for users.
    """

    until: float
    why: str
