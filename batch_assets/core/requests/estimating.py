"""Estimate what requests would cost, from stored answers, the price list, and a sample of their params."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from batch_assets.core.answers.follow_up_rules import FollowUpRules
from batch_assets.core.prices.prices import Prices
from batch_assets.core.prices.projection import LEAST_ANSWERS, project
from batch_assets.core.prices.range import Range
from batch_assets.core.prices.worst_case import parsed_params
from batch_assets.core.requests.caching import CacheUse, saved_by_caching
from batch_assets.core.requests.cost_bounds import CostBounds, SampledRequest, Scale
from batch_assets.core.requests.estimate import Estimate, InputBasis, OutputBasis
from batch_assets.core.requests.own_answers import IsWanted, OwnAnswers
from batch_assets.core.requests.prompt_parts import (
    has_server_tools,
    media_tokens,
    most_searches,
    shared_prefix,
)
from batch_assets.core.requests.request_sample import RequestSample
from batch_assets.core.text import count

CountTokens = Callable[[Sequence[bytes]], Mapping[str, float]]
"""Has the API count the tokens of params, and returns the tokens per byte by model; nothing if that failed."""
# A prefix that is cached pays from so many requests on.
_LEAST_CACHED = 3


def estimate_of(
    sample: RequestSample,
    answers: OwnAnswers,
    prices: Prices,
    is_wanted: IsWanted,
    count_tokens: CountTokens | None = None,
    follow_ups: FollowUpRules | None = None,
    cache: CacheUse | None = None,
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
        cache: What the requests do with the prompt cache; `None` without `cache: auto`.

    Returns:
        `None` without requests.
    """
    if not sample.requests:
        return None
    bodies = sample.params()
    requests = [SampledRequest(parsed_params(body), len(body), b'"cache_control"' in body) for body in bodies]
    priced = [request for request in requests if prices.knows(request.model)]
    unpriced_models = tuple(sorted({request.model for request in requests} - {each.model for each in priced}))
    share = len(priced) / len(requests)
    scale = Scale.of(priced, round(sample.requests * share), round(sample.bytes * share))
    own = answers.to_this_prompt(is_wanted)
    counted = count_tokens(bodies) if count_tokens is not None and len(own) < LEAST_ANSWERS else {}
    chains = _Chains.of(requests, own, follow_ups)
    own = chains.answers
    bounds = CostBounds(priced, scale, prices, answers, counted, chains.bounded, cache or CacheUse())
    batch, live, output_basis, looked_at = bounds.batch, bounds.live, OutputBasis.MAX_TOKENS, len(answers)
    cached = bounds.cached_projection(own)
    if cached is None:
        projected = project(chains.costs, own.sizes, scale.requests, scale.bytes) if priced else None
    else:
        projected = cached.of(chains.costs, scale.requests, scale.bytes)
    if projected is not None and batch is not None:
        output_basis, looked_at = OutputBasis.ANSWERS, len(own)
        batch = _within(projected, batch, is_bounded=chains.is_bounded)
        live = batch.times(_live_factor(own, prices))
    return Estimate(
        requests=sample.requests,
        batch=batch,
        live=live,
        cached=_cached(batch, bounds, requests, sample.requests, prices) if cache is None else None,
        input_basis=InputBasis.ANSWERS if output_basis is OutputBasis.ANSWERS else bounds.basis,
        output_basis=output_basis,
        answers=looked_at,
        unpriced=sample.requests - scale.requests,
        unpriced_models=unpriced_models,
        unbounded=_unbounded(requests, output_basis, chains),
        has_follow_ups=follow_ups is not None and output_basis is OutputBasis.ANSWERS,
        notes=(
            *_notes(requests, output_basis, chains),
            *_cache_notes(cache, is_seen=projected is not None and cached is not None and cached.is_seen),
        ),
    )


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
    def of(cls, requests: list[SampledRequest], own: OwnAnswers, rules: FollowUpRules | None) -> _Chains:
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
    batch: Range | None, bounds: CostBounds, sampled: list[SampledRequest], requests: int, prices: Prices
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


def _has_endless_searches(requests: list[SampledRequest]) -> bool:
    return any(most_searches(request.params) is None for request in requests)


def _unbounded(requests: list[SampledRequest], basis: OutputBasis, chains: _Chains) -> str:
    """Return why the upper end does not have everything; "" if it has."""
    if basis is OutputBasis.ANSWERS:
        return f"{count(chains.open, 'answer')} to this prompt may still have follow-ups" if chains.open else ""
    if _has_endless_searches(requests):
        return "no max_uses limits its web searches"
    return "" if chains.is_bounded else "what its follow-ups cost is not known before some are answered"


def _notes(requests: list[SampledRequest], basis: OutputBasis, chains: _Chains) -> list[str]:
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


def _cache_notes(cache: CacheUse | None, *, is_seen: bool) -> list[str]:
    """Return what a range says of the cache that no answers show."""
    if cache is None or not cache.tokens or is_seen:
        return []
    return ["the lower end is with the shared prompt read from the cache, the upper end without the cache"]
