"""Begin no more transfers than can end in the time that a run has.

Transfers share a line. If a run ends before any of its transfers is complete, it has achieved nothing, and the
next run would end the same way. So one transfer begins alone, and another one begins only if the speed so far
shows that all of them will end in time. Runs that share a line with others give way, see `Line`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import Generic, Protocol, TypeVar

# The speed of the first second is that of buffers, not of the line.
_MEASURED_SECONDS = 1.0
# A transfer is measured for this long before it may give way to those of other runs, and then this often.
_GIVES_WAY_SECONDS = 60.0

SLOW_LINE = "the line is too slow to complete it before this run ends. A later run begins with it"
"""The reason why a transfer was left."""

Item = TypeVar("Item")


class BrokenOffError(Exception):
    """Stops the work of a transfer whose run is over."""


class GivenWayError(BrokenOffError):
    """Stops a transfer that cannot end in time, so that one of another run can."""


class Line(Protocol):
    """What a run knows about other runs that transfer, and may share its line."""

    def is_taken(self) -> bool:
        """Whether the line is known to be slow, and a run transfers that began earlier."""
        ...

    def gives_way(self) -> bool:
        """Whether a transfer that cannot end in time gives way, because a run transfers that began earlier."""
        ...


class Pace(Generic[Item]):
    """Says whether another transfer may begin.

    Args:
        seconds: The time that the run has left; `None` for no limit.
        weight: Returns the size of an item before it is transferred.
        bytes_per_weight: How many bytes are transferred for a weight of one; `None` if finished transfers show it.
        now: Returns the seconds of a clock that advances evenly.
        line: The transfers of other runs; `None` if there are none.
    """

    def __init__(
        self,
        seconds: float | None,
        weight: Callable[[Item], float],
        bytes_per_weight: float | None = None,
        now: Callable[[], float] = time.monotonic,
        line: Line | None = None,
    ) -> None:
        self._weight, self._bytes_per_weight, self._now = weight, bytes_per_weight, now
        self._end, self._line = None if seconds is None else now() + seconds, line
        self._began: float | None = None
        self._in_progress: dict[int, int] = {}
        self._next_check = 0.0
        self._finished_bytes = 0
        self._finished_weight = 0.0

    def begun(self, item: Item) -> None:
        """Note that a transfer begins."""
        if self._began is None:
            self._began = self._now()
            self._next_check = self._began + _GIVES_WAY_SECONDS
        self._in_progress[id(item)] = 0

    def progress(self, item: Item, done: int) -> None:
        """Note how many bytes of a transfer are done."""
        self._in_progress[id(item)] = done

    def ended(self, item: Item) -> None:
        """Note that a transfer has ended."""
        self._finished_bytes += self._in_progress.pop(id(item), 0)
        self._finished_weight += self._weight(item)

    def gives_way(self, item: Item) -> bool:
        """Whether a transfer in progress has to be broken off, because it cannot end in time and others may.

        The size of a download is unknown until one has ended. Then no transfer of the run has ended so far, and a
        quarter of the time has to be over.
        """
        if self._end is None or self._line is None or self._began is None or self._now() < self._next_check:
            return False
        self._next_check = self._now() + _GIVES_WAY_SECONDS
        size, done = self._size(item), self._in_progress.get(id(item), 0)
        elapsed, left = self._now() - self._began, self._end - self._now()
        if size is None:
            is_late = elapsed > left / 3
        else:
            rate = (
                (self._finished_bytes + sum(self._in_progress.values())) / elapsed / max(len(self._in_progress), 1)
            )
            is_late = size - done > rate * left
        return is_late and self._line.gives_way()

    def may_begin(self, item: Item, in_progress: Collection[Item]) -> bool:
        """Whether a transfer may begin. The first one of a run may, unless other runs need a slow line."""
        if self._end is None:
            return True
        if not in_progress and self._line is not None and self._line.is_taken():
            return False
        if self._began is None:
            return True
        elapsed = self._now() - self._began
        bytes_per_weight = self._rate_of_weight()
        done = self._finished_bytes + sum(self._in_progress.values())
        if bytes_per_weight is None or not done or (in_progress and elapsed < _MEASURED_SECONDS):
            return not in_progress
        remaining = sum(
            max(self._weight(other) * bytes_per_weight - self._in_progress.get(id(other), 0), 0.0)
            for other in in_progress
        )
        return (remaining + self._weight(item) * bytes_per_weight) * elapsed / done <= self._end - self._now()

    def _size(self, item: Item) -> float | None:
        bytes_per_weight = self._rate_of_weight()
        return None if bytes_per_weight is None else self._weight(item) * bytes_per_weight

    def _rate_of_weight(self) -> float | None:
        if self._bytes_per_weight is None and self._finished_bytes:
            return self._finished_bytes / self._finished_weight
        return self._bytes_per_weight
