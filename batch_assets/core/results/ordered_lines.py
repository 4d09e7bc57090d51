"""Read the lines of a download in the order of the request file, some thousand at a time.

The API sends results in any order. If they are in another order than the requests, short lines are first sorted
into a file of row groups: reading each on its own would take several times as long. That file has no name, and
needs as much space as the download beside it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryFile
from types import TracebackType
from typing import BinaryIO, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batch_assets.core.results.result_lines import ResultLines
from batch_assets.core.store.responses import GROUP_BYTES, GROUP_ROWS

_WINDOW = 4 << 20
LONG_LINES = 1500
"""If lines have more bytes than this on average, reading and parsing them one by one is faster."""


@dataclass(frozen=True)
class LineGroup:
    """The result lines of consecutive requests.

    Attributes:
        first: The number of the first request.
        chunk: Bytes that contain the lines, in any order.
        starts: The offset of each request's line in `chunk`, -1 without a line; int64, shape (n,).
        ends: The exclusive end of each line, -1 without a line; int64, shape (n,).
    """

    first: int
    chunk: bytes
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]

    def line(self, position: int) -> bytes | None:
        """Return the line at a position of the group; `None` if there is none."""
        start = int(self.starts[position])
        return self.chunk[start : int(self.ends[position])] if start >= 0 else None


class OrderedLines:
    """The result lines of a batch, in groups of consecutive requests. A context manager.

    A group has at most GROUP_ROWS requests, and ends with the request whose line exceeds GROUP_BYTES.

    Args:
        raw: The path of the download; `None` without one.
        lines: Where the requests' lines are in it.
    """

    def __init__(self, raw: Path | None, lines: ResultLines) -> None:
        self._raw, self._starts, self._ends = raw, lines.start, lines.end
        self._sizes = lines.end - lines.start
        self._bounds = bounds_of(self._sizes)
        self._opened = ExitStack()
        self._download: BinaryIO | None = None
        self._sorted: BinaryIO | None = None

    def __enter__(self) -> OrderedLines:
        with ExitStack() as opened:
            if self._raw is not None:
                self._download = opened.enter_context(cast(BinaryIO, self._raw.open("rb", buffering=0)))
                is_compact = all(self._is_compact(first, end) for first, end in pairwise(self._bounds))
                if not is_compact and self._mean() <= LONG_LINES:
                    # Beside the download, where there is space for results.
                    self._sorted = opened.enter_context(
                        cast(BinaryIO, TemporaryFile(dir=self._raw.parent, buffering=0))
                    )
                    self._sort(self._download, self._sorted)
            self._opened = opened.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.close()

    def groups(self) -> Iterator[LineGroup]:
        """Yield the groups, in the order of the requests."""
        begin = 0
        for first, end in pairwise(self._bounds):
            starts, ends, sizes = self._starts[first:end], self._ends[first:end], self._sizes[first:end]
            if self._sorted is not None:
                order = np.argsort(starts, kind="stable")
                stops = np.empty_like(sizes)
                stops[order] = np.cumsum(sizes[order])
                chunk = _read(self._sorted, begin, begin + int(sizes.sum()))
                begin += len(chunk)
                yield _group(first, chunk, starts >= 0, stops - sizes, stops)
            elif self._download is not None:
                yield _group_of(self._download, first, starts, ends)
            else:
                yield LineGroup(first, b"", starts, ends)

    def _mean(self) -> float:
        """The average size of the lines."""
        return float(self._sizes.sum()) / max(1, int((self._starts >= 0).sum()))

    def _is_compact(self, first: int, end: int) -> bool:
        """Whether the lines of a group are close to each other in the download."""
        return _is_compact(self._starts[first:end], self._ends[first:end])

    def _sort(self, download: BinaryIO, target: BinaryIO) -> None:
        """Copy the lines to a file in which each group's lines follow those of the group before.

        Within a group they stay in the order of the download.
        """
        group_of = np.repeat(np.arange(len(self._bounds) - 1), np.diff(self._bounds))
        ends_of_groups = np.cumsum(np.bincount(group_of, self._sizes).astype(np.int64))
        begins = np.concatenate([[0], ends_of_groups[:-1]])
        order = np.argsort(self._starts, kind="stable")
        order = order[self._starts[order] >= 0]
        start = 0
        while start < len(order):
            offset = int(self._starts[order[start]])
            end = max(start + 1, int(np.searchsorted(self._ends[order], offset + _WINDOW, side="right")))
            lines, start = order[start:end], end
            chunk = _read(download, offset, int(self._ends[lines[-1]]))
            by_group = np.argsort(group_of[lines], kind="stable")
            # Seen as lines and what is between them, such as lines that are not ours.
            cuts = np.column_stack([self._starts[lines], self._ends[lines]]).ravel() - offset
            pieces = pa.LargeBinaryArray.from_buffers(
                pa.large_binary(), len(cuts) - 1, [None, pa.py_buffer(cuts), pa.py_buffer(chunk)]
            )
            text = pieces.take(pa.array(2 * by_group)).buffers()[2]
            groups, first = np.unique(group_of[lines][by_group], return_index=True)
            ends = np.append(np.cumsum(self._sizes[lines][by_group])[first[1:] - 1], len(text))
            position = 0
            for group, stop in zip(groups.tolist(), ends.tolist(), strict=True):
                _write(target, text[position:stop], int(begins[group]))
                begins[group] += stop - position
                position = stop


def _is_compact(starts: NDArray[np.int64], ends: NDArray[np.int64]) -> bool:
    """Whether lines are close to each other in the download.

    Args:
        starts: The offset of each line, -1 for none; int64, shape (n,).
        ends: The exclusive end of each line, -1 for none; int64, shape (n,).
    """
    if (starts < 0).all():
        return True
    span = int(ends.max()) - int(starts[starts >= 0].min())
    return span <= 2 * max(GROUP_BYTES, int((ends - starts).sum()))


def _group_of(download: BinaryIO, first: int, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> LineGroup:
    """See `read_lines`."""
    has_line = starts >= 0
    if not has_line.any():
        return LineGroup(first, b"", starts, ends)
    if _is_compact(starts, ends):
        offset = int(starts[has_line].min())
        chunk = _read(download, offset, int(ends.max()))
        return _group(first, chunk, has_line, starts - offset, ends - offset)
    spans = zip(starts[has_line].tolist(), ends[has_line].tolist(), strict=True)
    chunk = b"".join([_read(download, start, end) for start, end in spans])
    stops = np.cumsum(ends - starts)
    return _group(first, chunk, has_line, stops - (ends - starts), stops)


def _group(
    first: int, chunk: bytes, has_line: NDArray[np.bool_], starts: NDArray[np.int64], ends: NDArray[np.int64]
) -> LineGroup:
    return LineGroup(first, chunk, np.where(has_line, starts, -1), np.where(has_line, ends, -1))


def _read(file: BinaryIO, start: int, end: int) -> bytes:
    """Read a part of a file.

    Raises:
        OSError: When the file has become shorter.
    """
    pieces = []
    while start < end:
        piece = os.pread(file.fileno(), end - start, start)
        if not piece:
            raise OSError(errno.EIO, "the download has become shorter while it was read")
        pieces.append(piece)
        start += len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _write(file: BinaryIO, content: pa.Buffer, offset: int) -> None:
    """Write all of `content`. The system may write only a part at a time, such as when a disk is nearly full.

    Raises:
        OSError: When it cannot be written.
    """
    written = 0
    while written < len(content):
        written += os.pwrite(file.fileno(), content[written:], offset + written)


def read_lines(raw: Path, first: int, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> LineGroup:
    """Read the lines of a group from a download, wherever they are in it.

    Args:
        raw: The path of the download.
        first: The number of the first request.
        starts: The offset of each request's line in the download, -1 without a line; int64, shape (n,).
        ends: The exclusive end of each line, -1 without a line; int64, shape (n,).
    """
    with raw.open("rb", buffering=0) as file:
        return _group_of(cast(BinaryIO, file), first, starts, ends)


def bounds_of(sizes: NDArray[np.int64]) -> list[int]:
    """Return the number of the first request of each group, and of the one after the last.

    Args:
        sizes: The size of each request's line, 0 without a line; int64, shape (requests,).
    """
    ends, bounds = np.cumsum(sizes), [0]
    while (first := bounds[-1]) < len(ends):
        before = int(ends[first - 1]) if first else 0
        over = int(np.searchsorted(ends, before + GROUP_BYTES, side="right")) + 1
        bounds.append(min(over, first + GROUP_ROWS, len(ends)))
    return bounds
