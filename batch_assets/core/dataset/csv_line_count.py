"""Count the lines of a CSV file whose content passes through a buffer."""

from __future__ import annotations

from bisect import bisect_right
from operator import itemgetter


class LineCount:
    """The numbers of the lines in a buffer. Each part of it is counted once, whatever is asked for.

    Args:
        buffer: The content that is in memory. The owner appends to it, and calls `leave` before it removes content
            from its start.
        first_line: The number of the line with which the content begins.
    """

    def __init__(self, buffer: bytearray, first_line: int) -> None:
        self._buffer, self._ends_with_return = buffer, False
        # The counted positions in the buffer with their lines, in order.
        self._counted = [(0, first_line)]

    def at(self, position: int) -> int:
        """Return the number of the line at a position in the buffer."""
        # A text may name a later line before an earlier one.
        before = bisect_right(self._counted, position, key=itemgetter(0))
        start, line = self._counted[before - 1]
        if start == position:
            return line
        count = self._buffer.count
        line += count(b"\n", start, position)
        if returns := count(b"\r", start, position):
            line += returns - count(b"\r\n", max(0, start - 1), position)
        if start == 0 and position and self._ends_with_return and self._buffer.startswith(b"\n"):
            line -= 1
        self._counted.insert(before, (position, line))
        return line

    def leave(self, end: int) -> None:
        """Go on at a position: what is before it is about to be removed from the buffer."""
        self._counted = [(0, self.at(end))]
        if end:
            self._ends_with_return = self._buffer[end - 1 : end] == b"\r"
