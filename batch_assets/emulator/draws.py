"""A small deterministic source of choices, far cheaper to seed than `random.Random`."""

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")

_MASK = (1 << 64) - 1


class Draws:
    """An endless sequence of choices that depends on nothing but `seed` (a linear congruential generator)."""

    __slots__ = ("_state",)

    def __init__(self, seed: int) -> None:
        self._state = (seed * 0x9E3779B97F4A7C15 + 1) & _MASK

    def bits(self) -> int:
        """48 bits."""
        self._state = state = (self._state * 0x5851F42D4C957F2D + 0x14057B7EF767814F) & _MASK
        return state >> 16  # the low bits of such a generator repeat soon

    def below(self, limit: int) -> int:
        """An integer from 0 up to but not including `limit`."""
        return self.bits() % limit

    def between(self, low: int, high: int) -> int:
        """An integer from `low` to `high`, both included."""
        return low + self.bits() % (high - low + 1)

    def pick(self, options: Sequence[T]) -> T:
        """One of `options`."""
        return options[self.bits() % len(options)]
