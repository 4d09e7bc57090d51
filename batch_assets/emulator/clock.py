"""The server's clock, which tests may freeze, advance and skew."""

import time
from dataclasses import dataclass


@dataclass
class Clock:
    """Time in microseconds since the epoch.

    `shift` is how far the clock has been advanced, `frozen_at` the instant at which it stands still
    (None while it runs), `skew` what is added to timestamps shown to clients and to nothing else.
    """

    shift: int = 0
    frozen_at: int | None = None
    skew: int = 0

    def now(self) -> int:
        """The instant by which batches progress."""
        return self.frozen_at if self.frozen_at is not None else time.time_ns() // 1000 + self.shift

    def freeze(self) -> None:
        """Stand still at the current instant."""
        self.frozen_at = self.now()

    def unfreeze(self) -> None:
        """Run on from the instant at which the clock stood still."""
        if self.frozen_at is not None:
            self.shift = self.frozen_at - time.time_ns() // 1000
            self.frozen_at = None

    def advance(self, microseconds: int) -> None:
        """Jump forward, whether the clock runs or stands still."""
        if self.frozen_at is not None:
            self.frozen_at += microseconds
        else:
            self.shift += microseconds
