"""The random requests that become a pilot, taken while the requests of a build pass."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import NamedTuple

import numpy as np

from batch_assets.core.store.digests import DIGEST_BYTES, Digests, pack

# A pilot has fewer requests rather than more bytes.
_MOST_BYTES = 64 << 20


class Sampled(NamedTuple):
    """Requests of one kind.

    Attributes:
        kind: What decides the request file, see `kinds_of`.
        lines: The lines of the request file.
        digests: Their digests: S16, shape (lines,).
        params: The params of each.
    """

    kind: int
    lines: list[bytes]
    digests: Digests
    params: list[bytes]


class PilotSample:
    """Keeps the requests with the smallest digests, and gives back the others.

    A digest is as good as random, so these are a random sample of any dataset, and the same one each time.

    Args:
        rows: The most requests.
    """

    def __init__(self, rows: int) -> None:
        self._most = rows
        self._kept: list[tuple[bytes, int, bytes, bytes]] = []
        self._bound: bytes | None = None

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, requests: Sampled) -> Iterator[Sampled]:
        """Add requests, each once. Yields those that are not in the sample, by kind.

        Args:
            requests: The requests.
        """
        digests = requests.digests
        is_small = np.ones(len(digests), bool) if self._bound is None else digests < self._bound
        if not is_small.all():
            others = np.flatnonzero(~is_small).tolist()
            yield Sampled(
                requests.kind,
                [requests.lines[at] for at in others],
                digests[others],
                [requests.params[at] for at in others],
            )
        for at in np.flatnonzero(is_small).tolist():
            digest = bytes(digests[at]).ljust(DIGEST_BYTES, b"\0")  # NumPy drops zeros at the end
            self._kept.append((digest, requests.kind, requests.lines[at], requests.params[at]))
        yield from _by_kind(self._evicted())

    def _evicted(self) -> list[tuple[bytes, int, bytes, bytes]]:
        self._kept.sort(key=lambda kept: kept[0])
        sizes = np.cumsum([len(line) for _, _, line, _ in self._kept])
        within = int(np.searchsorted(sizes, _MOST_BYTES, side="right"))
        if len(self._kept) > within:
            self._most = min(self._most, max(1, within))
        evicted = self._kept[self._most :]
        del self._kept[self._most :]
        if evicted or len(self._kept) == self._most:
            self._bound = self._kept[-1][0]
        return evicted

    def take(self) -> Iterator[Sampled]:
        """Yield the requests of the sample, by kind."""
        yield from _by_kind(self._kept)


def _by_kind(kept: list[tuple[bytes, int, bytes, bytes]]) -> Iterator[Sampled]:
    for kind, some in groupby(sorted(kept, key=lambda each: each[1]), key=lambda each: each[1]):
        digests, _, lines, params = zip(*some, strict=True)
        yield Sampled(kind, [*lines], pack([*digests]), [*params])
