"""What caching the prefix that requests share would save, and has saved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batch_assets.core.prices.prices import Prices
from batch_assets.core.requests.own_answers import OwnAnswers
from batch_assets.core.requests.token_rates import least_cached_tokens


@dataclass(frozen=True)
class CacheUse:
    """What requests would do with the prompt cache under `cache: auto`.

    Attributes:
        tokens: The tokens of the prompt that they share, by its characters; 0 if nothing is cached.
        stubs: How many of them write it. All others read it.
    """

    tokens: int = 0
    stubs: int = 0


@dataclass(frozen=True)
class CacheCosts:
    """What the cache does to the cost of one request in a batch, in picodollars.

    Attributes:
        read: What reading a prompt from the cache saves.
        write: What writing it for an hour costs more.
    """

    read: int
    write: int

    @classmethod
    def of(cls, prices: Prices, model: str, tokens: int, geo: str | None) -> CacheCosts:
        """Compute them for a prompt of some tokens. The model has a price."""
        written = {"cache_creation_input_tokens": tokens, "cache_creation": {"ephemeral_1h_input_tokens": tokens}}
        usages: list[dict[str, Any]] = [
            {"input_tokens": tokens},
            {"input_tokens": 0, "cache_read_input_tokens": tokens},
            {"input_tokens": 0, **written},
        ]
        plain, read, write = (prices.cost(model, usage | {"inference_geo": geo}) for usage in usages)
        assert plain is not None and read is not None and write is not None, "the model has a price"
        return cls(plain.batch - read.batch, write.batch - plain.batch)


def saved_in(answers: OwnAnswers, prices: Prices, geo: str | None) -> NDArray[np.float64]:
    """Return what the cache has saved for each answer in picodollars, negative if it cost more: float64, (n,).

    Args:
        answers: Answers, whose prompts were written to the cache for an hour, if they were.
        prices: The price list. Models that it does not have saved nothing.
        geo: The `inference_geo` of the requests.
    """
    saved = np.zeros(len(answers))
    whole, written, read = (
        each.astype(np.int64) for each in (answers.input_tokens, answers.written_tokens, answers.read_tokens)
    )
    none = np.zeros(len(answers), np.int64)
    for model in np.unique(answers.models).tolist():
        plain = prices.costs(model, geo, (whole, none, none, none), none)
        cached = prices.costs(model, geo, (whole - written - read, none, written, read), written)
        if plain is not None and cached is not None:
            saved = np.where(answers.models == model, plain[0] - cached[0], saved)
    return saved


def saved_by_caching(
    prices: Prices, model: str, requests: int, prefix_tokens: int, geo: str | None = None
) -> int | None:
    """Return what caching a shared prefix would save in batches.

    One request, which ends before the others are sent, writes the prefix to the cache for an hour, and all others
    read it. So one or two requests save nothing.

    Args:
        prices: The price list.
        model: The model.
        requests: The number of requests that share the prefix.
        prefix_tokens: The tokens of the prefix.
        geo: The `inference_geo` of the requests.

    Returns:
        Picodollars, negative if it would cost more; `None` if the model does not cache so short a prefix, or has
        no price.
    """
    if prefix_tokens < least_cached_tokens(model) or not prices.knows(model):
        return None
    costs = CacheCosts.of(prices, model, prefix_tokens, geo)
    return (requests - 1) * costs.read - costs.write
