"""A random sample of the requests that a build writes, taken while they pass."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from batch_assets.core.store.digests import Digests

MOST_SAMPLED = 100
"""The most requests in a sample."""
_MOST_BYTES = 8 << 20


class RequestSample:
    """Counts requests and keeps some of them.

    A digest is as good as random, so the requests with the smallest digests are a random sample, and the same one
    each time.

    Attributes:
        requests: The number of requests.
        bytes: The size of their params.
    """

    def __init__(self) -> None:
        self.requests = self.bytes = 0
        self._kept: list[tuple[bytes, bytes]] = []
        self._most = MOST_SAMPLED
        self._bound: bytes | None = None

    def add(self, digests: Digests, params: Sequence[bytes]) -> None:
        """Add requests, each once.

        Args:
            digests: Their digests: S16, shape (n,).
            params: The params of each.
        """
        if not params:
            return
        self.requests += len(params)
        self.bytes += sum(map(len, params))
        chosen = range(len(params)) if self._bound is None else np.flatnonzero(digests < self._bound).tolist()
        self._kept += [(bytes(digests[at]), params[at]) for at in chosen]
        if len(self._kept) > 2 * self._most or self._bound is None:
            self._prune()

    def _prune(self) -> None:
        self._kept.sort(key=lambda kept: kept[0])
        sizes = np.cumsum([len(body) for _, body in self._kept])
        within = int(np.searchsorted(sizes, _MOST_BYTES, side="right"))
        # Few large requests are a smaller sample of all, not one of small requests.
        if len(self._kept) > within:
            self._most = min(self._most, max(1, within))
        del self._kept[self._most :]
        if len(self._kept) == self._most:
            self._bound = self._kept[-1][0]

    def params(self) -> list[bytes]:
        """Return the params of the sampled requests."""
        self._prune()
        return [body for _, body in self._kept]
