"""A growing set of digests: a million of them are in memory with 16 bytes each, and all others with 4."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from batch_assets.core.io.scratch_file import ScratchFile
from batch_assets.core.store.digests import (
    DIGEST_BYTES,
    Digests,
    digests_of_halves,
    halves_of,
    position_of_halves,
)

# More digests than this in memory are moved to a scratch file.
_IN_MEMORY = 1 << 20
# More digests are divided by their first bits. To merge two runs takes as much memory again as they have, so the
# runs of a part are small compared with the set. Fewer digests are found faster in one part.
_UNDIVIDED = 1 << 19
_PART_BITS = 4
# Which first bits the digests in the file have, in 8 MiB. Most digests that are not there are not searched for.
_FILTER_BITS = 26
_BITS = 64
_START_BITS = np.uint64(32)

Halves = NDArray[np.uint64]


class DigestSet:
    """A growing set of digests.

    The newest are in memory. The others are in sorted runs in a scratch file, and memory has the first 4 bytes of
    each. What these bytes find is compared with the file: two digests are equal only if all their bytes are.

    Raises:
        StorageError: From `add` and `add_new`, when the scratch file cannot be written.
    """

    def __init__(self) -> None:
        self._parts = [_Part()]
        self._stored: list[_StoredRun] = []
        self._file: ScratchFile | None = None
        self._filter = np.empty(0, np.uint8)

    def __len__(self) -> int:
        return self._in_memory + sum(map(len, self._stored))

    @property
    def _in_memory(self) -> int:
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
        in_memory = self._in_memory
        if in_memory and in_memory + len(digests) > _IN_MEMORY:
            self._store()
        elif len(self._parts) == 1 and in_memory + len(digests) > _UNDIVIDED:
            self._divide()
        self._add(first, second)

    def _divide(self) -> None:
        (whole,) = self._parts
        self._parts = [_Part() for _ in range(1 << _PART_BITS)]
        for held_first, held_second in whole.runs:
            self._add(held_first, held_second)

    def _store(self) -> None:
        """Move the digests in memory to the scratch file, as one run."""
        if self._file is None:
            self._file, self._filter = ScratchFile(), np.zeros(1 << (_FILTER_BITS - 3), np.uint8)
        if len(self._parts) == 1:
            self._divide()
        offset, starts = self._file.append(b""), np.empty(self._in_memory, np.uint32)
        stored = 0
        filters = np.split(self._filter, len(self._parts))
        for part, filter_ in zip(self._parts, filters, strict=True):
            first, second = part.taken()
            filter_ |= np.packbits(_first_bits_among(first))
            self._file.append(digests_of_halves(first, second).data)
            starts[stored : stored + len(first)] = first >> _START_BITS
            stored += len(first)
        self._stored.append(_StoredRun(self._file, offset, starts))

    def _add(self, first: Halves, second: Halves) -> None:
        for part, bounds in zip(self._parts, self._slices(first), strict=True):
            if bounds.stop > bounds.start:
                part.add(first[bounds].copy(), second[bounds].copy())  # a slice would keep the whole array

    def _find(self, first: Halves, second: Halves, is_member: NDArray[np.bool_]) -> None:
        for part, bounds in zip(self._parts, self._slices(first), strict=True):
            if bounds.stop > bounds.start:
                part.find(first[bounds], second[bounds], is_member[bounds])
        if self._stored:
            self._find_stored(first, second, is_member)

    def _find_stored(self, first: Halves, second: Halves, is_member: NDArray[np.bool_]) -> None:
        bit = first >> np.uint64(_BITS - _FILTER_BITS)
        shift = (~bit & np.uint64(7)).astype(np.uint8)  # `packbits` begins with the highest bit of a byte
        maybe = np.flatnonzero((self._filter[bit >> np.uint64(3)] >> shift) & 1)
        found = np.zeros(len(maybe), bool)
        for run in self._stored:
            run.find(first[maybe], second[maybe], found)
        is_member[maybe] |= found

    def _slices(self, first: Halves) -> list[slice]:
        """Return which of some sorted first halves belong to each part."""
        if len(self._parts) == 1:
            return [slice(0, len(first))]
        starts = np.arange(len(self._parts), dtype=np.uint64) << np.uint64(_BITS - _PART_BITS)
        bounds = [*np.searchsorted(first, starts).tolist(), len(first)]
        return [slice(start, end) for start, end in pairwise(bounds)]


class _Part:
    """Some of the digests in memory.

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
            first, second = _merged([self.runs.pop(), (first, second)])
        self.runs.append((first, second))

    def taken(self) -> tuple[Halves, Halves]:
        """Return all digests, sorted by their first half, and remove them."""
        runs, self.runs = self.runs, []
        return _merged(runs) if runs else (np.empty(0, np.uint64), np.empty(0, np.uint64))

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


def _first_bits_among(first: Halves) -> NDArray[np.bool_]:
    """Return for each value of the first bits that the digests of a part may have, whether one of them has it."""
    has_one = np.zeros(1 << (_FILTER_BITS - _PART_BITS), bool)
    has_one[(first << np.uint64(_PART_BITS)) >> np.uint64(_BITS - _FILTER_BITS + _PART_BITS)] = True
    return has_one


def _merged(runs: list[tuple[Halves, Halves]]) -> tuple[Halves, Halves]:
    first, second = (np.concatenate(halves) for halves in zip(*runs, strict=True))
    order = np.argsort(first, kind="stable")
    return first[order], second[order]


class _StoredRun:
    """Digests in the scratch file, sorted by their first half.

    Args:
        file: The scratch file.
        offset: Where they begin in the file.
        starts: Their first 4 bytes as numbers: uint32, shape (n,), sorted.
    """

    def __init__(self, file: ScratchFile, offset: int, starts: NDArray[np.uint32]) -> None:
        self._file, self._offset, self._starts = file, offset, starts

    def __len__(self) -> int:
        return len(self._starts)

    def find(self, first: Halves, second: Halves, is_member: NDArray[np.bool_]) -> None:
        """Mark the digests that are here, see `_Part.find`."""
        wanted = (first >> _START_BITS).astype(np.uint32)
        low = np.searchsorted(self._starts, wanted)
        maybe = np.flatnonzero(~is_member & (self._starts[np.minimum(low, len(self) - 1)] == wanted))
        if not len(maybe):
            return
        high = np.searchsorted(self._starts, wanted[maybe], side="right")
        bounds = zip(low[maybe].tolist(), high.tolist(), strict=True)
        digests = digests_of_halves(first[maybe], second[maybe]).tobytes()
        for number, (start, end) in enumerate(bounds):
            digest = digests[number * DIGEST_BYTES : (number + 1) * DIGEST_BYTES]
            is_member[maybe[number]] = self._has(digest, start, end)

    def _has(self, digest: bytes, start: int, end: int) -> bool:
        held = self._file.read(self._offset + start * DIGEST_BYTES, (end - start) * DIGEST_BYTES)
        return any(held[at : at + DIGEST_BYTES] == digest for at in range(0, len(held), DIGEST_BYTES))
