"""The most that requests of a request file can cost, by the price list."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from batch_assets.core.errors import DamagedFileError, UnboundedCostError
from batch_assets.core.prices.prices import Prices
from batch_assets.core.prices.worst_case import worst_case
from batch_assets.core.store.erased import WorstCases
from batch_assets.core.store.request_files import StoredRequestFile
from batch_assets.core.store.request_lines import custom_id_of, own_tail, params_of


def most_of(
    file: StoredRequestFile,
    prices: Prices,
    requests: int,
    tails: Collection[bytes] | None = None,
    *,
    writes_cache: bool = False,
    is_live: bool = False,
    erased: Mapping[str, WorstCases] | None = None,
) -> int:
    """Return the most that requests of a request file can cost, in picodollars.

    Args:
        file: The request file.
        prices: The prices in force.
        requests: The number of these requests.
        tails: The last 22 characters of their custom_ids; `None` for all requests of the file.
        writes_cache: See `worst_case`.
        is_live: See `worst_case`.
        erased: See `ErasedRecord`.

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
        if (kept := (erased or {}).get(custom_id_of(line) or "")) is not None:
            total += _known(kept.of(writes_cache=writes_cache, is_live=is_live))
            continue
        try:
            total += worst_case(prices, params_of(line), writes_cache=writes_cache, is_live=is_live)
        except UnboundedCostError as error:
            raise UnboundedCostError(f"line {number:,} of the file: {error}") from None
        except ValueError:
            raise DamagedFileError(f"line {number:,} is not what was written") from None
    if count != requests:
        raise DamagedFileError(f"it has {count:,} of {requests:,} lines")
    return total


def worst_cases(prices: Prices, params: bytes) -> WorstCases:
    """Return the most that a request can cost, in each way to ask it.

    Args:
        prices: The prices in force.
        params: Its params.
    """

    def most(**way: bool) -> int | None:
        try:
            return worst_case(prices, params, **way)
        except (UnboundedCostError, ValueError):
            return None

    return WorstCases(batch=most(), cached=most(writes_cache=True), live=most(is_live=True))


def _known(most: int | None) -> int:
    if most is None:
        raise UnboundedCostError("nothing bounded the cost of a request that was erased")
    return most
