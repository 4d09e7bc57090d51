"""The most that requests can cost whose answers are not known."""

from __future__ import annotations

from collections.abc import Collection

from batch_assets.core.errors import UnboundedCostError
from batch_assets.core.prices.prices import Prices
from batch_assets.core.prices.worst_case import worst_case
from batch_assets.core.store.request_files import StoredRequestFile
from batch_assets.core.store.request_lines import own_tail, params_of


def most_of(
    file: StoredRequestFile,
    prices: Prices,
    requests: int,
    tails: Collection[bytes] | None,
    *,
    writes_cache: bool = False,
) -> int | None:
    """Return the most that requests of a request file can cost in a batch.

    Args:
        file: The request file.
        prices: The prices in force.
        requests: The number of these requests.
        tails: The last 22 characters of their custom_ids; `None` for all requests of the file.
        writes_cache: See `worst_case`.

    Returns:
        The amount in picodollars. `None` if nothing bounds the cost of a request, or if a request is not in the
        file: retention has removed it, or it is damaged.
    """
    count = total = 0
    try:
        for line in file.lines():
            if tails is None or own_tail(line) in tails:
                count += 1
                total += worst_case(prices, params_of(line), writes_cache=writes_cache)
    except (FileNotFoundError, UnboundedCostError, ValueError):
        return None
    return total if count == requests else None
