"""Divide requests into files within the limits of one batch, to write them or only to count the files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from batch_assets.core.settings import MOST_TRANSFERS
from batch_assets.core.store.request_lines import body_bytes, line_bytes

# Two files with the same number of requests are never uploaded at the same time. So among as many consecutive full
# files as can be uploaded at once, no two have the same number: each has one request fewer than the one before.
# This is not done if it would make files too small.
_FEWEST_REQUESTS, _FEWEST_LINES = 1000, 200


class Span(NamedTuple):
    """Consecutive lines for one file.

    Attributes:
        start: The first line.
        stop: The line after the last one.
        bytes: The size of the lines.
        is_new: Whether a new file begins with them.
    """

    start: int
    stop: int
    bytes: int
    is_new: bool


class FileDivision:
    """Where new files begin.

    Args:
        limits: The most requests and the most bytes of the HTTP body in one file.
        bytes_added: The bytes that each line may grow by while it is sent.

    Attributes:
        files: The number of files that have begun.
        bytes: The size of their bodies.
    """

    def __init__(self, limits: tuple[int, int], bytes_added: int = 0) -> None:
        self._max_requests, self._max_bytes = limits
        self._bytes_added = bytes_added
        self.files = self._finished_bytes = 0
        self._requests = self._bytes = 0  # of the last file
        self._lines = self._all_bytes = 0

    @property
    def bytes(self) -> int:
        return self._finished_bytes + (body_bytes(self._bytes) if self.files else 0)

    def spans(self, sizes: Sequence[int]) -> Iterator[Span]:
        """Divide lines. A new file begins when a line would exceed a limit.

        Args:
            sizes: The bytes of each line, with its newline.
        """
        added = self._bytes_added
        ends = np.cumsum(np.asarray(sizes, np.int64) + added)
        self._lines += len(sizes)
        self._all_bytes += int(ends[-1]) if len(sizes) else 0
        start = done = 0
        is_new = not self.files
        while start < len(sizes):
            if is_new:
                self._begin()
            max_requests, max_bytes = self._limits()
            room = max_bytes - body_bytes(self._bytes + self._requests * added)
            stop = min(
                int(np.searchsorted(ends, done + room, side="right")),
                start + max_requests - self._requests,
            )
            if stop <= start:
                if self._requests:
                    is_new = True
                    continue
                stop = start + 1
            size = int(ends[stop - 1]) - done - added * (stop - start)
            self._requests += stop - start
            self._bytes += size
            yield Span(start, stop, size, is_new)
            start, done, is_new = stop, int(ends[stop - 1]), False

    def _begin(self) -> None:
        self._finished_bytes = self.bytes
        self.files += 1
        self._requests = self._bytes = 0

    def _limits(self) -> tuple[int, int]:
        """Return the largest number of requests and of bytes in the last file."""
        fewer, average = (self.files - 1) % MOST_TRANSFERS, self._all_bytes // self._lines
        if self._max_requests < _FEWEST_REQUESTS:
            return self._max_requests, self._max_bytes
        if average * _FEWEST_LINES > self._max_bytes:
            return self._max_requests - fewer, self._max_bytes
        return self._max_requests - fewer, self._max_bytes - fewer * average


class PlannedFiles:
    """Counts the request files of a submission that is not written.

    Args:
        limits: See `FileDivision`.
        bytes_added: See `FileDivision`.
    """

    def __init__(self, limits: tuple[int, int], bytes_added: int = 0) -> None:
        self._limits, self._bytes_added = limits, bytes_added
        self._divisions: dict[int, FileDivision] = {}

    def add(self, kind: int, ids: Sequence[bytes], params: Sequence[bytes]) -> None:
        """Count requests.

        Args:
            kind: What decides the file: attempt and headers.
            ids: The custom_ids of the requests.
            params: Their params.
        """
        division = self._divisions.setdefault(kind, FileDivision(self._limits, self._bytes_added))
        for _ in division.spans([line_bytes(id_, body) for id_, body in zip(ids, params, strict=True)]):
            pass

    @property
    def files(self) -> int:
        """The number of files."""
        return sum(division.files for division in self._divisions.values())

    @property
    def bytes(self) -> int:
        """The size of the HTTP bodies that they become."""
        return sum(division.bytes for division in self._divisions.values())
