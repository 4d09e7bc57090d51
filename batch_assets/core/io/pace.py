"""Begin no more transfers than can end in the time that a run has.

Transfers share a line. If a run ends before any of its transfers is complete, it has achieved nothing, and the
next run would end the same way. So one transfer begins alone, and another one begins only if the speed so far
shows that all of them will end in time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import Generic, TypeVar

# The speed of the first second is that of buffers, not of the line.
_MEASURED_SECONDS = 1.0

SLOW_LINE = "the line is too slow to complete it before this run ends. A later run begins with it"
"""The reason why a transfer was left."""

Item = TypeVar("Item")


class Pace(Generic[Item]):
    """Says whether another transfer may begin.

    Args:
        seconds: The time that the run has left; `None` for no limit.
        weight: Returns the size of an item before it is transferred.
        bytes_per_weight: How many bytes are transferred for a weight of one; `None` if finished transfers show it.
        now: Returns the seconds of a clock that advances evenly.
    """

    def __init__(
        self,
        seconds: float | None,
        weight: Callable[[Item], float],
        bytes_per_weight: float | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._weight, self._bytes_per_weight, self._now = weight, bytes_per_weight, now
        self._end = None if seconds is None else now() + seconds
        self._began: float | None = None
        self._in_progress: dict[int, int] = {}
        self._finished_bytes = 0
        self._finished_weight = 0.0

    def begun(self, item: Item) -> None:
        """Note that a transfer begins."""
        self._began = self._began if self._began is not None else self._now()
        self._in_progress[id(item)] = 0

    def progress(self, item: Item, done: int) -> None:
        """Note how many bytes of a transfer are done."""
        self._in_progress[id(item)] = done

    def ended(self, item: Item) -> None:
        """Note that a transfer has ended."""
        self._finished_bytes += self._in_progress.pop(id(item), 0)
        self._finished_weight += self._weight(item)

    def may_begin(self, item: Item, in_progress: Collection[Item]) -> bool:
        """Whether a transfer may begin. The first one of a run always may."""
        if self._end is None or self._began is None:
            return True
        elapsed = self._now() - self._began
        bytes_per_weight = self._bytes_per_weight
        if bytes_per_weight is None and self._finished_bytes:
            bytes_per_weight = self._finished_bytes / self._finished_weight
        done = self._finished_bytes + sum(self._in_progress.values())
        if bytes_per_weight is None or not done or (in_progress and elapsed < _MEASURED_SECONDS):
            return not in_progress
        remaining = sum(
            max(self._weight(other) * bytes_per_weight - self._in_progress.get(id(other), 0), 0.0)
            for other in in_progress
        )
        return (remaining + self._weight(item) * bytes_per_weight) * elapsed / done <= self._end - self._now()
