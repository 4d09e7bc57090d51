"""Put requests in the order of their priority, before they are divided into request files.

The priority of a request is known only at the end, because a later row may share it. So the lines wait in a
scratch file, and memory has only small numbers: 16 bytes for each request, and 40 to 60 while they are sorted.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from batch_assets.core.io.scratch_file import ScratchFile
from batch_assets.core.io.slices import bounds_by_weight
from batch_assets.core.requests.pilot_sample import Sampled
from batch_assets.core.requests.row_priorities import Priorities
from batch_assets.core.store.digests import DIGEST_BYTES, Digests

_DIGEST = np.dtype(f"S{DIGEST_BYTES}")
_LATER = np.dtype([("digest", _DIGEST), ("priority", np.float64)])
# So many requests are taken from the order at once, and so much of the lines is in memory.
_AT_ONCE = 1 << 16
_GROUP_ROWS, _GROUP_BYTES = 4096, 4 << 20


def highest(digests: Digests, priorities: Priorities) -> Priorities:
    """Return for each row the highest priority among the rows that share its request.

    Args:
        digests: The digest of each row's request: S16, shape (n,).
        priorities: The priority of each row, shape (n,).
    """
    distinct, place = np.unique(digests, return_inverse=True)
    most = np.full(len(distinct), -np.inf)
    np.maximum.at(most, place, priorities)
    return most[place]


class PriorityOrder:
    """Keeps requests until all rows are known, and then gives them back with the highest priority first.

    Requests of equal priority keep their order.
    """

    def __init__(self) -> None:
        self._lines, self._digests, self._later = ScratchFile(), ScratchFile(), ScratchFile()
        self._later_count = 0
        self._priorities: list[Priorities] = []
        self._sizes: list[NDArray[np.int32]] = []
        self._kinds: list[NDArray[np.int32]] = []

    def close(self) -> None:
        """Remove the scratch files."""
        for file in (self._lines, self._digests, self._later):
            file.close()

    def add(self, requests: Sampled) -> None:
        """Add requests, each once."""
        self._lines.append(b"".join(requests.lines))
        self._digests.append(requests.digests.astype(_DIGEST).tobytes())
        self._priorities.append(np.array(requests.priorities, np.float64))
        self._sizes.append(np.array([len(line) for line in requests.lines], np.int32))
        self._kinds.append(np.full(len(requests.lines), requests.kind, np.int32))

    def note(self, digests: Digests, priorities: Priorities) -> None:
        """Note the priorities of further rows, which may share a request that was added.

        Args:
            digests: The digest of each row's request: S16, shape (n,).
            priorities: The priority of each row, shape (n,).
        """
        rows = np.empty(len(digests), _LATER)
        rows["digest"], rows["priority"] = digests, priorities
        self._later.append(rows.tobytes())
        self._later_count += len(rows)

    def in_order(self) -> Iterator[tuple[int, list[bytes]]]:
        """Yield the kind and the lines of requests of one kind, highest priority first."""
        if not self._sizes:
            return
        priorities = np.concatenate(self._priorities)
        self._priorities.clear()
        if self._later_count:
            self._raise(priorities)
        order = np.argsort(-priorities, kind="stable")
        del priorities
        sizes, kinds = np.concatenate(self._sizes), np.concatenate(self._kinds)
        self._sizes.clear()
        self._kinds.clear()
        offsets = np.cumsum(sizes, dtype=np.int64) - sizes
        for first in range(0, len(order), _AT_ONCE):
            some = order[first : first + _AT_ONCE]
            for start, end in bounds_by_weight(sizes[some], _GROUP_ROWS, _GROUP_BYTES):
                group = some[start:end]
                lines = self._read(group, offsets, sizes)
                own_kinds = kinds[group]
                present, begins = np.unique(own_kinds, return_index=True)
                for kind in present[np.argsort(begins)].tolist():
                    yield kind, [lines[at] for at in np.flatnonzero(own_kinds == kind).tolist()]

    def _raise(self, priorities: Priorities) -> None:
        """Raise the priorities of requests to those of the rows that were noted."""
        digests = np.frombuffer(self._digests.read(0, len(priorities) * _DIGEST.itemsize), _DIGEST)
        by_digest = np.argsort(digests)
        ascending = digests[by_digest]
        for first in range(0, self._later_count, _AT_ONCE):
            count = min(_AT_ONCE, self._later_count - first)
            content = self._later.read(first * _LATER.itemsize, count * _LATER.itemsize)
            rows = np.frombuffer(content, _LATER)
            at = np.minimum(np.searchsorted(ascending, rows["digest"]), len(ascending) - 1)
            is_added = ascending[at] == rows["digest"]
            np.maximum.at(priorities, by_digest[at[is_added]], rows["priority"][is_added])

    def _read(
        self, positions: NDArray[np.intp], offsets: NDArray[np.int64], sizes: NDArray[np.int32]
    ) -> list[bytes]:
        """Read lines, neighbors together. Returns them in the order of their positions in the argument."""
        ascending = np.sort(positions)
        lines: dict[int, bytes] = {}
        for run in np.split(ascending, np.flatnonzero(np.diff(ascending) != 1) + 1):
            start = int(offsets[run[0]])
            content = self._lines.read(start, int(sizes[run].sum()))
            for position in run.tolist():
                begin = int(offsets[position]) - start
                lines[position] = content[begin : begin + int(sizes[position])]
        return [lines[position] for position in positions.tolist()]
