"""Estimate what requests would cost, from stored answers, the price list, and a sample of their params."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batch_assets.core.answers.follow_up_rules import FollowUpRules
from batch_assets.core.prices.prices import Prices
from batch_assets.core.prices.projection import LEAST_ANSWERS, project
from batch_assets.core.prices.range import Range
from batch_assets.core.prices.worst_case import parsed_params
from batch_assets.core.requests.caching import saved_by_caching
from batch_assets.core.requests.estimate import Estimate, InputBasis, OutputBasis
from batch_assets.core.requests.own_answers import IsWanted, OwnAnswers
from batch_assets.core.requests.prompt_parts import (
    characters,
    has_server_tools,
    media_tokens,
    most_searches,
    prompt_characters,
    shared_prefix,
)
from batch_assets.core.requests.request_sample import RequestSample
from batch_assets.core.requests.token_rates import tokens_by_characters
from batch_assets.core.text import count

CountTokens = Callable[[Sequence[bytes]], Mapping[str, float]]
"""Has the API count the tokens of params, and returns the tokens per byte by model; nothing if that failed."""
# How far the tokens of the prompts may be from what is expected, as a factor.
_INPUT_FACTORS = {InputBasis.ANSWERS: 1.1, InputBasis.COUNTED: 1.05, InputBasis.CHARACTERS: 1.5}
# More is a mistake, which the API refuses: no context window is longer.
_MOST_TOKENS, _MOST_SEARCHES = 1_000_000, 10_000
# What an answer that does not match adds to the next prompt, beside itself: the reason.
_REASON_TOKENS = 1_000
# A prefix that is cached pays from so many requests on.
_LEAST_CACHED = 3


def estimate_of(
    sample: RequestSample,
    answers: OwnAnswers,
    prices: Prices,
    is_wanted: IsWanted,
    count_tokens: CountTokens | None = None,
    follow_ups: FollowUpRules | None = None,
) -> Estimate | None:
    """Estimate the cost of requests.

    Args:
        sample: The requests.
        answers: Answers of the pipeline.
        prices: The price list.
        is_wanted: See `OwnAnswers.to_this_prompt`.
        count_tokens: Counts the tokens of some requests, if no answer tells them; `None` to estimate them.
        follow_ups: Which answers are followed by another request. With enough answers to this prompt, their
            follow-ups are what is expected; without them, the upper end has as many as there may be, or the
            estimate says that it has none.

    Returns:
        `None` without requests.
    """
    if not sample.requests:
        return None
    bodies = sample.params()
    requests = [_Request(parsed_params(body), len(body), b'"cache_control"' in body) for body in bodies]
    priced = [request for request in requests if prices.knows(request.model)]
    unpriced_models = tuple(sorted({request.model for request in requests} - {each.model for each in priced}))
    share = len(priced) / len(requests)
    scale = _Scale.of(priced, round(sample.requests * share), round(sample.bytes * share))
    own = answers.to_this_prompt(is_wanted)
    counted = count_tokens(bodies) if count_tokens is not None and len(own) < LEAST_ANSWERS else {}
    chains = _Chains.of(requests, own, follow_ups)
    own = chains.answers
    bounds = _Bounds(priced, scale, prices, answers, counted, chains.bounded)
    batch, live, output_basis, looked_at = bounds.batch, bounds.live, OutputBasis.MAX_TOKENS, len(answers)
    projected = project(chains.costs, own.sizes, scale.requests, scale.bytes) if priced else None
    if projected is not None and batch is not None:
        output_basis, looked_at = OutputBasis.ANSWERS, len(own)
        batch = _within(projected, batch, is_bounded=chains.is_bounded)
        live = batch.times(_live_factor(own, prices))
    return Estimate(
        requests=sample.requests,
        batch=batch,
        live=live,
        cached=_cached(batch, bounds, requests, sample.requests, prices),
        input_basis=InputBasis.ANSWERS if output_basis is OutputBasis.ANSWERS else bounds.basis,
        output_basis=output_basis,
        answers=looked_at,
        unpriced=sample.requests - scale.requests,
        unpriced_models=unpriced_models,
        unbounded=_unbounded(requests, output_basis, chains),
        has_follow_ups=follow_ups is not None and output_basis is OutputBasis.ANSWERS,
        notes=tuple(_notes(requests, output_basis, chains)),
    )


@dataclass(frozen=True)
class _Request:
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
class _Scale:
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
    def of(cls, priced: list[_Request], requests: int, bytes_: int) -> _Scale:
        if not priced:
            return cls(0, 0, 0.0, 0.0)
        size = sum(request.size for request in priced)
        return cls(requests, bytes_, requests / len(priced), bytes_ / size)


@dataclass(frozen=True)
class _Chains:
    """What is known of the follow-ups of requests.

    Attributes:
        rules: Which answers are followed by another request; `None` if none are.
        answers: The answers to this prompt: of those that are enough, only such whose follow-ups are all known.
        open: How many answers were left out for it, if too few would have been left, and are in all the same.
        pauses: Whether turns may be continued, with prompts whose length nothing tells.
    """

    rules: FollowUpRules | None
    answers: OwnAnswers
    open: int
    pauses: bool

    @classmethod
    def of(cls, requests: list[_Request], own: OwnAnswers, rules: FollowUpRules | None) -> _Chains:
        if rules is None:
            return cls(None, own, 0, False)
        has_tools = bool(rules.tools) or any(has_server_tools(request.params) for request in requests)
        whole = own.with_whole_chains()
        is_enough = len(whole) >= LEAST_ANSWERS
        return cls(
            rules,
            whole if is_enough else own,
            0 if is_enough else len(own) - len(whole),
            has_tools and bool(rules.paused),
        )

    @property
    def costs(self) -> NDArray[np.float64]:
        """What the answers cost, with their follow-ups: float64, shape (n,)."""
        if self.rules is None:
            return self.answers.costs
        return self.answers.costs + np.nan_to_num(self.answers.later_costs)

    @property
    def is_bounded(self) -> bool:
        """Whether the rules bound what follow-ups cost."""
        return not self.pauses

    @property
    def bounded(self) -> FollowUpRules | None:
        """The rules, if they bound what follow-ups cost."""
        return self.rules if self.is_bounded else None


class _Bounds:
    """The least and the most that requests can cost, by the tokens of their prompts and `max_tokens`.

    Args:
        requests: The sample.
        scale: What it represents.
        prices: The price list, which knows the models.
        answers: Answers of the pipeline.
        counted: The tokens per byte by model, as the API counted them.
        follow_ups: The rules of the follow-ups that the upper ends have; `None` for none.

    Attributes:
        batch: The cost in batches; `None` without requests.
        live: The cost as live calls.
        basis: Where the tokens of the prompts are known from.
    """

    def __init__(
        self,
        requests: list[_Request],
        scale: _Scale,
        prices: Prices,
        answers: OwnAnswers,
        counted: Mapping[str, float],
        follow_ups: FollowUpRules | None,
    ) -> None:
        self._answers, self._counted, self._follow_ups = answers, counted, follow_ups
        self._rates: dict[str, float | None] = {}
        self.basis = InputBasis.ANSWERS
        self.batch = self.live = None
        if requests:
            tokens = [self.tokens(request) for request in requests]
            ends = [self._ends(request, own, scale, prices) for request, own in zip(requests, tokens, strict=True)]
            low, high = (np.sum(amounts, axis=0) for amounts in zip(*ends, strict=True))
            self.batch, self.live = (Range(round(low[at]), None, round(high[at])) for at in (0, 1))

    def tokens(self, request: _Request) -> float:
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

    def part_tokens(self, request: _Request, part: list[Any]) -> int:
        """Return about how many tokens a part of a request's prompt has."""
        whole = prompt_characters(request.params)
        text = self.tokens(request) - media_tokens(request.params)
        return max(0, round(text * characters(part) / whole)) if whole else 0

    def _worst(self, basis: InputBasis) -> None:
        order = list(InputBasis)
        self.basis = max(self.basis, basis, key=order.index)

    def _ends(
        self, request: _Request, tokens: float, scale: _Scale, prices: Prices
    ) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Return the least and the most for the requests that one of the sample represents, each (batch, live)."""
        factor, geo = _INPUT_FACTORS[self.basis], request.geo
        least, most = (int(min(each, _MOST_TOKENS)) for each in (tokens / factor, tokens * factor + 1))
        caches = request.has_marks
        low: dict[str, Any] = {"input_tokens": 0 if caches else least, "inference_geo": geo}
        high: dict[str, Any] = {"input_tokens": 0 if caches else most, "inference_geo": geo}
        if caches:  # all of it read in the cheapest case, and written for an hour in the dearest
            low["cache_read_input_tokens"] = least
            high |= {"cache_creation_input_tokens": most, "cache_creation": {"ephemeral_1h_input_tokens": most}}
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


def _within(projected: Range, bounds: Range, *, is_bounded: bool) -> Range:
    """Cut a projection at the least and the most that is possible. Bounds that it contradicts are no use."""
    assert projected.expected is not None
    low = max(projected.low, min(bounds.low, projected.expected))
    high = min(projected.high, max(bounds.high, projected.expected)) if is_bounded else projected.high
    return Range(low, projected.expected, high)


def _live_factor(own: OwnAnswers, prices: Prices) -> float:
    known = ~np.isnan(own.live_costs)
    if known.any() and own.costs[known].sum():
        return float(own.live_costs[known].sum() / own.costs[known].sum())
    return float(1 / prices.table.batch_multiplier)


def _cached(
    batch: Range | None, bounds: _Bounds, sampled: list[_Request], requests: int, prices: Prices
) -> Range | None:
    if batch is None or len(sampled) < _LEAST_CACHED or sampled[0].has_marks:
        return None
    prefix = shared_prefix([request.params for request in sampled])
    if not prefix:
        return None
    first = sampled[0]
    tokens = bounds.part_tokens(first, prefix)
    saved = saved_by_caching(prices, first.model, requests, tokens, first.geo)
    return batch.less(saved) if saved is not None and saved > 0 else None


def _has_endless_searches(requests: list[_Request]) -> bool:
    return any(most_searches(request.params) is None for request in requests)


def _unbounded(requests: list[_Request], basis: OutputBasis, chains: _Chains) -> str:
    """Return why the upper end does not have everything; "" if it has."""
    if basis is OutputBasis.ANSWERS:
        return f"{count(chains.open, 'answer')} to this prompt may still have follow-ups" if chains.open else ""
    if _has_endless_searches(requests):
        return "no max_uses limits its web searches"
    return "" if chains.is_bounded else "what its follow-ups cost is not known before some are answered"


def _notes(requests: list[_Request], basis: OutputBasis, chains: _Chains) -> list[str]:
    if basis is OutputBasis.ANSWERS:
        followed = count(chains.open, "of these answers", "of these answers")
        return [f"without the follow-ups still to come of {followed}"] if chains.open else []
    notes = []
    if (rules := chains.rules) is not None:
        notes.append(rules.not_in_estimates if chains.pauses else rules.in_upper_ends)
    if any(has_server_tools(request.params) for request in requests):
        notes.append("without the input that web searches, fetched pages and code execution add")
    if _has_endless_searches(requests):
        notes.append("without the fees of web searches, which no max_uses limits")
    if any(media_tokens(request.params) for request in requests):
        notes.append("images and documents are counted roughly")
    return notes
