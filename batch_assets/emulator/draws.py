"""A small deterministic random generator, much cheaper to seed than `random.Random`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")

_MASK = (1 << 64) - 1


class Draws:
    """A linear congruential generator. Its choices depend only on the seed."""

    __slots__ = ("_state",)

    def __init__(self, seed: int) -> None:
        self._state = (seed * 0x9E3779B97F4A7C15 + 1) & _MASK

    def bits(self) -> int:
        """Draw 48 random bits."""
        self._state = state = (self._state * 0x5851F42D4C957F2D + 0x14057B7EF767814F) & _MASK
        return state >> 16  # the low bits of such a generator have a short period

    def below(self, limit: int) -> int:
        """Draw an integer from 0 to `limit - 1`."""
        return self.bits() % limit

    def between(self, low: int, high: int) -> int:
        """Draw an integer from `low` to `high`, both included."""
        return low + self.bits() % (high - low + 1)

    def pick(self, options: Sequence[T]) -> T:
        """Draw one of the options."""
        return options[self.bits() % len(options)]
