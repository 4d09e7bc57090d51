"""Parse result lines in processes of their own, if that takes longer than to start them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batch_assets.core.io.worker_processes import WorkerProcesses
from batch_assets.core.results.line_parser import LineParser, ParsedGroup
from batch_assets.core.results.ordered_lines import OrderedLines, bounds_of, read_lines
from batch_assets.core.results.result_lines import ResultLines
from batch_assets.core.store.responses import GROUP_BYTES

# So many bytes of results are parsed before processes have imported what they need.
_LEAST_BYTES = 64 << 20
# A group of longer lines is parsed by the run: several at a time would take as many times the memory.
_MOST_BYTES = 4 * GROUP_BYTES
_NO_LINES = np.empty(0, np.int64)


@dataclass(frozen=True)
class _Task:
    """A group of result lines for a process.

    Attributes:
        parser: How they are parsed.
        raw: The path of the download.
        first: The number of the first request.
        starts: The offset of each request's line in the download, -1 without a line; int64, shape (n,). Empty for
            a group that the run parses.
        ends: The exclusive end of each line, -1 without a line; int64, shape (n,).
    """

    parser: LineParser
    raw: Path
    first: int
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]


class ParallelLines:
    """Parses the result lines of batches in several processes. It is a context manager.

    Args:
        count: The number of processes. With 1 the run parses lines itself.
    """

    def __init__(self, count: int) -> None:
        task = "parses results"
        self._processes = WorkerProcesses(
            count, lines_parser, None, task=task, undone="This batch is not collected"
        )
        self._count, self._bytes = count, 0

    def __enter__(self) -> ParallelLines:
        return self

    def __exit__(self, *_: object) -> None:
        self._processes.__exit__()

    def parse(self, parser: LineParser, raw: Path | None, lines: ResultLines) -> Iterator[ParsedGroup]:
        """Parse the lines of a batch in the order of its requests, some thousand at a time.

        The lines of the first batches are parsed here.

        Args:
            parser: How they are parsed.
            raw: The path of the download; `None` without one.
            lines: Where the requests' lines are in it.

        Raises:
            WorkerProcessError: When a process has failed or was killed.
        """
        sizes = lines.end - lines.start
        self._bytes += int(sizes.sum())
        if raw is None or self._count == 1 or self._bytes < _LEAST_BYTES:
            with OrderedLines(raw, lines) as ordered:
                yield from map(parser.parse, ordered.groups())
            return
        bounds = list(pairwise(bounds_of(sizes)))
        tasks = (
            _Task(parser, raw, first, lines.start[first:end], lines.end[first:end])
            if int(sizes[first:end].sum()) <= _MOST_BYTES
            else _Task(parser, raw, first, _NO_LINES, _NO_LINES)
            for first, end in bounds
        )
        for (first, end), parsed in zip(bounds, self._processes.map(tasks), strict=True):
            if parsed is None:
                group = read_lines(raw, first, lines.start[first:end], lines.end[first:end])
                yield parser.parse(group)
                continue
            content, unreadable, odd = parsed
            (rows,) = pa.ipc.open_stream(content)
            yield ParsedGroup(first, rows, unreadable, odd)


def lines_parser(_: None) -> Callable[[_Task], tuple[bytes, int, int] | None]:
    """Return the function that parses a group in a process of its own.

    Returns:
        The rows of the group as a stream of Arrow, and the numbers of unreadable and odd lines; `None` for a group
        that the run parses.
    """

    def parse(task: _Task) -> tuple[bytes, int, int] | None:
        if not len(task.starts):
            return None
        parsed = task.parser.parse(read_lines(task.raw, task.first, task.starts, task.ends))
        sink: Any = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, parsed.rows.schema) as stream:
            stream.write_batch(parsed.rows)
        return sink.getvalue().to_pybytes(), parsed.unreadable, parsed.odd

    return parse
