"""What caching the prefix that requests share would save."""

from __future__ import annotations

from typing import Any

from batch_assets.core.prices.prices import Prices
from batch_assets.core.requests.token_rates import least_cached_tokens


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
    if prefix_tokens < least_cached_tokens(model):
        return None
    written = {"ephemeral_1h_input_tokens": prefix_tokens}
    usages: list[dict[str, Any]] = [
        {"input_tokens": prefix_tokens},
        {"input_tokens": 0, "cache_read_input_tokens": prefix_tokens},
        {"input_tokens": 0, "cache_creation_input_tokens": prefix_tokens, "cache_creation": written},
    ]
    costs = [prices.cost(model, usage | {"inference_geo": geo}) for usage in usages]
    plain, read, write = (cost.batch if cost is not None else None for cost in costs)
    if plain is None or read is None or write is None:
        return None
    return requests * plain - (requests - 1) * read - write
