"""Project what requests will cost from answers, whether or not these have read their prompts from the cache."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from batch_assets.core.prices.prices import Prices
from batch_assets.core.prices.projection import LEAST_ANSWERS, project
from batch_assets.core.prices.range import Range
from batch_assets.core.requests.caching import CacheCosts, CacheUse, saved_in
from batch_assets.core.requests.own_answers import OwnAnswers

# How far the tokens of the shared prompt may be from what is expected, as a factor.
_TOKENS_FACTOR = 1.1


@dataclass(frozen=True)
class CachedProjection:
    """What answers to a prompt tell of the cost of other requests, which use the cache in their own way.

    The answers may have been asked without the cache, may have read it, or may have waited for it in vain. What
    they would have cost without it follows from their tokens. What those of files that have read it have saved is
    what others will save.

    Attributes:
        answers: The answers.
        prices: The price list.
        model: The model of the requests to come. It has a price.
        geo: Their `inference_geo`.
        use: What they do with the cache.
        shared_tokens: The tokens of the prompt that they share, about.
    """

    answers: OwnAnswers
    prices: Prices
    model: str
    geo: str | None
    use: CacheUse
    shared_tokens: float

    @property
    def is_seen(self) -> bool:
        """Whether answers show what requests save that wait for a stub, and none has waited in vain."""
        return self._has_read and not self.answers.in_vain.any()

    @property
    def _has_read(self) -> bool:
        return bool(self.answers.from_cache.sum() >= LEAST_ANSWERS)

    def of(self, costs: NDArray[np.float64], requests: int, bytes_: int) -> Range | None:
        """Return what requests would cost, `None` if too few costs are known.

        If answers do not show that requests read the cache, the upper end is without it.

        Args:
            costs: The costs of the answers in picodollars; float64, shape (n,).
            requests: The number of requests.
            bytes_: Their bytes.
        """
        sizes, saved = self.answers.sizes, saved_in(self.answers, self.prices, self.geo)
        plain = project(costs + saved, sizes, requests, bytes_)
        if plain is None or not self.use.tokens:
            return plain
        uncached = plain + self._stubs(0, self.shared_tokens)
        if self._has_read:
            known = self.answers.from_cache
            usual = float(saved[known].mean())
            cached = project(np.where(known, costs, costs + saved - usual), sizes, requests, bytes_)
            assert cached is not None, "there are enough costs"
            cached += self._stubs(usual, self._read_tokens)
            return cached if self.is_seen else Range(cached.low, cached.expected, max(cached.high, uncached.high))
        most_tokens = min(self.shared_tokens * _TOKENS_FACTOR, float(self.answers.input_tokens.min()))
        saves, most = (self._costs(tokens).read for tokens in (self.shared_tokens, most_tokens))
        cached, cheapest = (project(costs + saved - each, sizes, requests, bytes_) for each in (saves, most))
        assert cached is not None and cheapest is not None, "there are enough costs"
        cached += self._stubs(saves, self.shared_tokens)
        return Range(min(cached.low, cheapest.low), cached.expected, max(cached.high, uncached.high))

    @property
    def _read_tokens(self) -> float:
        """The tokens of the prompt that answers have read."""
        read = self.answers.read_tokens[self.answers.read_tokens > 0]
        return float(np.median(read)) if len(read) else self.shared_tokens

    def _costs(self, tokens: float) -> CacheCosts:
        return CacheCosts.of(self.prices, self.model, round(tokens), self.geo)

    def _stubs(self, saved: float, tokens: float) -> Range:
        """Return what the stubs cost more than requests that save an amount."""
        more = round(self.use.stubs * (self._costs(tokens).write + saved))
        return Range(more, more, more)
