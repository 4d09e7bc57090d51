"""The server's clock, which tests can freeze, advance and skew."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass
class Clock:
    """A clock that counts microseconds since 1970.

    Attributes:
        shift: How far the clock has been advanced, in microseconds.
        frozen_at: The instant at which the clock is frozen; `None` while it runs.
        skew: Microseconds added to the timestamps that clients see, and to nothing else.
    """

    shift: int = 0
    frozen_at: int | None = None
    skew: int = 0

    def now(self) -> int:
        """Return the current instant, which determines the progress of batches."""
        return self.frozen_at if self.frozen_at is not None else time.time_ns() // 1000 + self.shift

    def freeze(self) -> None:
        """Stop the clock at the current instant."""
        self.frozen_at = self.now()

    def unfreeze(self) -> None:
        """Let the clock run again from the instant at which it was frozen."""
        if self.frozen_at is not None:
            self.shift = self.frozen_at - time.time_ns() // 1000
            self.frozen_at = None

    def advance(self, microseconds: int) -> None:
        """Move the clock forward, whether it runs or is frozen."""
        if self.frozen_at is not None:
            self.frozen_at += microseconds
        else:
            self.shift += microseconds
