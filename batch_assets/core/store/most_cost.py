"""The most that requests of a request file can cost, by the price list."""

from __future__ import annotations

from collections.abc import Collection

from batch_assets.core.errors import DamagedFileError, UnboundedCostError
from batch_assets.core.prices.prices import Prices
from batch_assets.core.prices.worst_case import worst_case
from batch_assets.core.store.request_files import StoredRequestFile
from batch_assets.core.store.request_lines import own_tail, params_of


def most_of(
    file: StoredRequestFile,
    prices: Prices,
    requests: int,
    tails: Collection[bytes] | None = None,
    *,
    writes_cache: bool = False,
    is_live: bool = False,
) -> int:
    """Return the most that requests of a request file can cost, in picodollars.

    Args:
        file: The request file.
        prices: The prices in force.
        requests: The number of these requests.
        tails: The last 22 characters of their custom_ids; `None` for all requests of the file.
        writes_cache: See `worst_case`.
        is_live: See `worst_case`.

    Raises:
        UnboundedCostError: When nothing bounds the cost of one of them.
        FileNotFoundError: When the file is missing.
        DamagedFileError: When a request is missing in it, or is not as it was written.
    """
    total = count = 0
    for number, line in enumerate(file.lines(), 1):
        if tails is not None and own_tail(line) not in tails:
            continue
        count += 1
        try:
            total += worst_case(prices, params_of(line), writes_cache=writes_cache, is_live=is_live)
        except UnboundedCostError as error:
            raise UnboundedCostError(f"line {number:,} of the file: {error}") from None
        except ValueError:
            raise DamagedFileError(f"line {number:,} is not what was written") from None
    if count != requests:
        raise DamagedFileError(f"it has {count:,} of {requests:,} lines")
    return total
