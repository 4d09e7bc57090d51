"""A growing set of digests that takes 16 bytes of memory for each, and little more while it grows."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from batch_assets.core.store.digests import Digests, halves_of, position_of_halves

# A set of more digests is divided by their first bits. To merge two runs takes as much memory again as they have,
# so the runs of a part are small compared with the set. Fewer digests are found faster in one part.
_UNDIVIDED = 1 << 19
_PART_BITS = 4

Halves = NDArray[np.uint64]


class DigestSet:
    """A growing set of digests. Takes 16 bytes per digest."""

    def __init__(self) -> None:
        self._parts = [_Part()]

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def contains(self, digests: Digests) -> NDArray[np.bool_]:
        """Whether each digest is in the set: bool, shape (n,).

        Args:
            digests: S16, shape (n,).
        """
        first, second = halves_of(digests)
        is_member = np.zeros(len(digests), dtype=bool)
        if (first[1:] >= first[:-1]).all():
            self._find(first, second, is_member)
        else:
            order = np.argsort(first)
            in_order = np.zeros(len(digests), dtype=bool)
            self._find(first[order], second[order], in_order)
            is_member[order] = in_order
        return is_member

    def add(self, digests: Digests) -> None:
        """Add digests. Those already in the set change nothing.

        Args:
            digests: S16, shape (n,).
        """
        new = np.unique(digests)
        self.add_new(new[~self.contains(new)])

    def add_new(self, digests: Digests) -> None:
        """Add digests that are not in the set.

        Args:
            digests: S16, shape (n,), sorted, unique.
        """
        first, second = halves_of(digests)
        if len(self._parts) == 1 and len(self) + len(digests) > _UNDIVIDED:
            (whole,) = self._parts
            self._parts = [_Part() for _ in range(1 << _PART_BITS)]
            for held_first, held_second in whole.runs:
                self._add(held_first, held_second)
        self._add(first, second)

    def _add(self, first: Halves, second: Halves) -> None:
        for part, bounds in zip(self._parts, self._slices(first), strict=True):
            if bounds.stop > bounds.start:
                part.add(first[bounds].copy(), second[bounds].copy())  # a slice would keep the whole array

    def _find(self, first: Halves, second: Halves, is_member: NDArray[np.bool_]) -> None:
        for part, bounds in zip(self._parts, self._slices(first), strict=True):
            if bounds.stop > bounds.start:
                part.find(first[bounds], second[bounds], is_member[bounds])

    def _slices(self, first: Halves) -> list[slice]:
        """Return which of some sorted first halves belong to each part."""
        if len(self._parts) == 1:
            return [slice(0, len(first))]
        starts = np.arange(len(self._parts), dtype=np.uint64) << np.uint64(64 - _PART_BITS)
        bounds = [*np.searchsorted(first, starts).tolist(), len(first)]
        return [slice(start, end) for start, end in pairwise(bounds)]


class _Part:
    """Some of the digests.

    Attributes:
        runs: The halves of digests, sorted by the first. Each run is at least twice as long as the next.
    """

    def __init__(self) -> None:
        self.runs: list[tuple[Halves, Halves]] = []

    def __len__(self) -> int:
        return sum(len(first) for first, _ in self.runs)

    def add(self, first: Halves, second: Halves) -> None:
        """Add digests, sorted by their first half."""
        while self.runs and len(self.runs[-1][0]) < 2 * len(first):
            held_first, held_second = self.runs.pop()
            first, second = np.concatenate([held_first, first]), np.concatenate([held_second, second])
            order = np.argsort(first, kind="stable")
            first, second = first[order], second[order]
        self.runs.append((first, second))

    def find(self, first: Halves, second: Halves, is_member: NDArray[np.bool_]) -> None:
        """Mark the digests that are here.

        Args:
            first: The first halves, sorted, shape (n,).
            second: The second halves, shape (n,).
            is_member: bool, shape (n,). Set to true for digests that are here.
        """
        for held_first, held_second in self.runs:
            position = position_of_halves(held_first, first)
            has_first = held_first[position] == first
            has_second = held_second[position] == second
            is_member |= has_first & has_second
            for at in np.flatnonzero(has_first & ~has_second).tolist():  # several digests may have this first half
                end = np.searchsorted(held_first, first[at], side="right")
                is_member[at] |= (held_second[position[at] : end] == second[at]).any()
