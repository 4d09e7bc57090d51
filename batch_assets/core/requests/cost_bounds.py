"""The least and the most that requests can cost, from a sample of their params and the price list."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batch_assets.core.answers.follow_up_rules import FollowUpRules
from batch_assets.core.prices.prices import Prices
from batch_assets.core.prices.projection import LEAST_ANSWERS
from batch_assets.core.prices.range import Range
from batch_assets.core.requests.cached_projection import CachedProjection
from batch_assets.core.requests.caching import CacheCosts, CacheUse
from batch_assets.core.requests.estimate import InputBasis
from batch_assets.core.requests.own_answers import OwnAnswers
from batch_assets.core.requests.prompt_parts import characters, media_tokens, most_searches, prompt_characters
from batch_assets.core.requests.token_rates import tokens_by_characters

# How far the tokens of the prompts may be from what is expected, as a factor.
_INPUT_FACTORS = {InputBasis.ANSWERS: 1.1, InputBasis.COUNTED: 1.05, InputBasis.CHARACTERS: 1.5}
# More is a mistake, which the API refuses: no context window is longer.
_MOST_TOKENS, _MOST_SEARCHES = 1_000_000, 10_000
# What an answer that does not match adds to the next prompt, beside itself: the reason.
_REASON_TOKENS = 1_000


@dataclass(frozen=True)
class SampledRequest:
    """A request of the sample.

    Attributes:
        params: Its params.
        size: Their bytes.
        has_marks: Whether its author has it cached.
    """

    params: dict[str, Any]
    size: int
    has_marks: bool

    @property
    def model(self) -> str:
        return str(self.params.get("model"))

    @property
    def geo(self) -> str | None:
        geo = self.params.get("inference_geo")
        return geo if isinstance(geo, str) else None

    @property
    def max_tokens(self) -> int:
        limit = self.params.get("max_tokens")
        return min(max(limit, 0), _MOST_TOKENS) if isinstance(limit, int) else 0


@dataclass(frozen=True)
class Scale:
    """How many requests a sample represents.

    Attributes:
        requests: The number of requests.
        bytes: Their bytes.
        by_requests: The number of requests for each of the sample.
        by_bytes: The number of bytes for each of the sample.
    """

    requests: int
    bytes: int
    by_requests: float
    by_bytes: float

    @classmethod
    def of(cls, priced: list[SampledRequest], requests: int, bytes_: int) -> Scale:
        if not priced:
            return cls(0, 0, 0.0, 0.0)
        size = sum(request.size for request in priced)
        return cls(requests, bytes_, requests / len(priced), bytes_ / size)


class CostBounds:
    """The least and the most that requests can cost, by the tokens of their prompts and `max_tokens`.

    Args:
        requests: The sample.
        scale: What it represents.
        prices: The price list, which knows the models.
        answers: Answers of the pipeline.
        counted: The tokens per byte by model, as the API counted them.
        follow_ups: The rules of the follow-ups that the upper ends have; `None` for none.
        cache: What the requests do with the prompt cache. The upper ends are without it, as if the stub failed.

    Attributes:
        batch: The cost in batches; `None` without requests.
        live: The cost as live calls.
        basis: Where the tokens of the prompts are known from.
    """

    def __init__(
        self,
        requests: list[SampledRequest],
        scale: Scale,
        prices: Prices,
        answers: OwnAnswers,
        counted: Mapping[str, float],
        follow_ups: FollowUpRules | None,
        cache: CacheUse,
    ) -> None:
        self._requests, self._prices, self._cache = requests, prices, cache
        self._answers, self._counted, self._follow_ups = answers, counted, follow_ups
        self._rates: dict[str, float | None] = {}
        self.basis = InputBasis.ANSWERS
        self.batch = self.live = None
        if requests:
            tokens = [self.tokens(request) for request in requests]
            ends = [self._ends(request, own, scale, prices) for request, own in zip(requests, tokens, strict=True)]
            low, high = (np.sum(amounts, axis=0) for amounts in zip(*ends, strict=True))
            low, high = (each + more for each, more in zip((low, high), self._of_stubs(), strict=True))
            self.batch, self.live = (Range(round(low[at]), None, round(high[at])) for at in (0, 1))

    def tokens(self, request: SampledRequest) -> float:
        """Return about how many tokens the prompt of a request has."""
        if request.model in self._counted:
            self._worst(InputBasis.COUNTED)
            return request.size * self._counted[request.model]
        if (rate := self._rate(request.model)) is not None:
            return request.size * rate
        self._worst(InputBasis.CHARACTERS)
        return tokens_by_characters(request.params)

    def _rate(self, model: str) -> float | None:
        """Return the tokens per byte of a model's prompts; `None` if too few answers tell them."""
        if model not in self._rates:
            own = self._answers.of_model(model)
            known = len(own) >= LEAST_ANSWERS
            self._rates[model] = float(own.input_tokens.sum() / own.sizes.sum()) if known else None
        return self._rates[model]

    def part_tokens(self, request: SampledRequest, part: list[Any]) -> int:
        """Return about how many tokens a part of a request's prompt has."""
        whole = prompt_characters(request.params)
        text = self.tokens(request) - media_tokens(request.params)
        return max(0, round(text * characters(part) / whole)) if whole else 0

    @property
    def shared_tokens(self) -> float:
        """About how many tokens the prompt has that requests share in the cache; 0 if nothing is cached."""
        return self._shared_tokens(self._requests[0]) if self._requests else 0.0

    def _shared_tokens(self, request: SampledRequest) -> float:
        whole = tokens_by_characters(request.params)
        return self.tokens(request) * min(1.0, self._cache.tokens / whole) if whole else 0.0

    def _of_stubs(self) -> list[NDArray[np.float64]]:
        """Return the least and the most that stubs cost more than other requests, each (batch, live)."""
        request, factor = self._requests[0], _INPUT_FACTORS[self.basis]
        of_ends = [
            CacheCosts.of(self._prices, request.model, round(tokens), request.geo)
            for tokens in (self.shared_tokens / factor, self.shared_tokens * factor)
        ]
        more = [self._cache.stubs * each for each in (of_ends[0].write + of_ends[0].read, of_ends[1].write)]
        return [np.array([each, each / float(self._prices.table.batch_multiplier)]) for each in more]

    def cached_projection(self, own: OwnAnswers) -> CachedProjection | None:
        """Return what projects the costs of answers to the requests; `None` if their author has them cached.

        Args:
            own: The answers to this prompt.
        """
        if not self._requests or (any(request.has_marks for request in self._requests) and not self._cache.tokens):
            return None
        first = self._requests[0]
        return CachedProjection(own, self._prices, first.model, first.geo, self._cache, self.shared_tokens)

    def _worst(self, basis: InputBasis) -> None:
        order = list(InputBasis)
        self.basis = max(self.basis, basis, key=order.index)

    def _ends(
        self, request: SampledRequest, tokens: float, scale: Scale, prices: Prices
    ) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Return the least and the most for the requests that one of the sample represents, each (batch, live)."""
        factor, geo = _INPUT_FACTORS[self.basis], request.geo
        least, most = (int(min(each, _MOST_TOKENS)) for each in (tokens / factor, tokens * factor + 1))
        caches = request.has_marks
        low: dict[str, Any] = {"input_tokens": 0 if caches else least, "inference_geo": geo}
        high: dict[str, Any] = {"input_tokens": 0 if caches else most, "inference_geo": geo}
        read = min(least, int(self._shared_tokens(request) * factor))
        if caches:  # all of it read in the cheapest case, and written for an hour in the dearest
            low["cache_read_input_tokens"] = least
            high |= {"cache_creation_input_tokens": most, "cache_creation": {"ephemeral_1h_input_tokens": most}}
        elif read:
            low |= {"input_tokens": least - read, "cache_read_input_tokens": read}
        cheap, dear = prices.cost(request.model, low), prices.cost(request.model, high)
        searches = {
            "server_tool_use": {"web_search_requests": min(most_searches(request.params) or 0, _MOST_SEARCHES)}
        }
        whole = prices.cost(request.model, high | searches | {"output_tokens": request.max_tokens})
        assert cheap is not None and dear is not None and whole is not None, "the models have prices"
        answer = np.subtract(whole, dear, dtype=float) * scale.by_requests
        most_costly = np.array(dear, float) * scale.by_bytes + answer
        if (rules := self._follow_ups) is not None:
            output = _most_tokens(rules, request.max_tokens, prices.max_output(request.model))
            prompt = "cache_creation_input_tokens" if caches else "input_tokens"
            longer = high | {prompt: most + rules.invalid * (output + _REASON_TOKENS), "output_tokens": output}
            if caches:
                longer |= {"cache_creation": {"ephemeral_1h_input_tokens": longer[prompt]}}
            last = prices.cost(request.model, longer | searches)
            assert last is not None, "the model has a price"
            added = np.subtract(last, dear, dtype=float) * scale.by_requests
            most_costly += rules.most_without_pauses * (np.array(dear, float) * scale.by_bytes + added)
        return np.array(cheap, float) * scale.by_bytes, most_costly


def _most_tokens(rules: FollowUpRules, max_tokens: int, most: int | None) -> int:
    """Return the largest max_tokens of the follow-ups of a request."""
    if (rule := rules.truncated) is not None:
        for _ in range(rule.times):
            max_tokens = rule.raised(max_tokens, most) or max_tokens
    return min(max_tokens, _MOST_TOKENS)
