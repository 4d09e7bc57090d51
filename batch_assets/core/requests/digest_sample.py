"""A random sample of requests, taken while they pass: those with the smallest digests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from batch_assets.core.store.digests import DIGEST_BYTES, Digests

T = TypeVar("T")


class DigestSample(Generic[T]):
    """Keeps the requests with the smallest digests.

    A digest is as good as random, so these are a random sample of any dataset, and the same one each time.

    Args:
        most: The most requests.
        most_bytes: The most bytes. Few large requests are a smaller sample of all, not one of small requests.
        size: Returns the bytes of what is kept of a request.

    Attributes:
        kept: The digest of each request of the sample, and what is kept of it. The smallest digest is first.
    """

    def __init__(self, most: int, most_bytes: int, size: Callable[[T], int]) -> None:
        self.kept: list[tuple[bytes, T]] = []
        self._most, self._most_bytes, self._size = most, most_bytes, size
        self._bound: bytes | None = None

    def takes(self, digests: Digests) -> NDArray[np.bool_]:
        """Whether each request may become one of the sample: bool, shape (n,).

        Args:
            digests: The digests of the requests: S16, shape (n,).
        """
        return np.ones(len(digests), bool) if self._bound is None else digests < self._bound

    def add(self, digests: Digests, values: Sequence[T]) -> list[tuple[bytes, T]]:
        """Add requests, each once.

        Args:
            digests: Their digests: S16, shape (n,).
            values: What is kept of each.

        Returns:
            Those that are not, or no longer, in the sample, as in `kept`.
        """
        whole = (bytes(digest).ljust(DIGEST_BYTES, b"\0") for digest in digests)  # NumPy drops zeros at the end
        self.kept += zip(whole, values, strict=True)
        self.kept.sort(key=lambda kept: kept[0])
        ends = np.cumsum([self._size(value) for _, value in self.kept])
        within = int(np.searchsorted(ends, self._most_bytes, side="right"))
        if len(self.kept) > within:
            self._most = min(self._most, max(1, within))
        left_out = self.kept[self._most :]
        del self.kept[self._most :]
        if len(self.kept) == self._most:
            self._bound = self.kept[-1][0]
        return left_out
