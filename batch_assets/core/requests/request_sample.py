"""A random sample of the requests that a build writes, taken while they pass."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from batch_assets.core.requests.digest_sample import DigestSample
from batch_assets.core.store.digests import Digests

MOST_SAMPLED = 100
"""The most requests in a sample."""
_MOST_BYTES = 8 << 20


class RequestSample:
    """Counts requests and keeps some of them.

    Attributes:
        requests: The number of requests.
        bytes: The size of their params.
    """

    def __init__(self) -> None:
        self.requests = self.bytes = 0
        self._sample = DigestSample[bytes](MOST_SAMPLED, _MOST_BYTES, len)

    def add(self, digests: Digests, params: Sequence[bytes]) -> None:
        """Add requests, each once.

        Args:
            digests: Their digests: S16, shape (n,).
            params: The params of each.
        """
        self.requests += len(params)
        self.bytes += sum(map(len, params))
        chosen = np.flatnonzero(self._sample.takes(digests))
        if len(chosen):
            self._sample.add(digests[chosen], [params[at] for at in chosen.tolist()])

    def params(self) -> list[bytes]:
        """Return the params of the sampled requests."""
        return [params for _, params in self._sample.kept]
