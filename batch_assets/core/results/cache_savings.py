"""What the prompt cache has saved, or what it has cost in addition."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from batch_assets.core.prices.money import picodollars_of
from batch_assets.core.prices.prices import Prices
from batch_assets.core.prices.usage import usage_of

_COLUMNS = (
    *("input_tokens", "output_tokens", "cache_creation_input_tokens", "cache_read_input_tokens"),
    *("cost_usd", "response_model", "response_json"),
)


def saved_by_cache(table: pa.Table, prices: Prices) -> int:
    """Return what answers would have cost without the prompt cache, less what they did cost, in picodollars.

    Answers whose cost is unknown, or was computed with other prices, count nothing.

    Args:
        table: Rows of a results table.
        prices: The prices in force.
    """
    written, read = table["cache_creation_input_tokens"], table["cache_read_input_tokens"]
    is_cached = pc.or_kleene(pc.greater(written, 0), pc.greater(read, 0))
    if not pc.any(is_cached).as_py():
        return 0
    rows = table.select(list(_COLUMNS)).filter(is_cached)
    rows = rows.filter(pc.and_(rows["cost_usd"].is_valid(), rows["response_model"].is_valid()))
    fresh, output, written, read = (_numbers(rows[name]) for name in _COLUMNS[:4])
    cost = picodollars_of(rows["cost_usd"])
    saved, is_left = 0, np.ones(len(rows), bool)
    models = rows["response_model"].to_numpy()
    for model in set(models.tolist()):  # those that only read, all at once
        chosen = np.flatnonzero((models == model) & (written == 0))
        nothing = np.zeros(len(chosen), np.int64)
        with_cache = prices.costs(model, None, [fresh[chosen], output[chosen], nothing, read[chosen]], nothing)
        prompt = (fresh + read)[chosen]
        without = prices.costs(model, None, [prompt, output[chosen], nothing, nothing], nothing)
        if with_cache is None or without is None:
            continue
        is_usual = with_cache[0] == cost[chosen]
        saved += int((without[0] - cost[chosen])[is_usual].sum())
        is_left[chosen[is_usual]] = False
    left = np.flatnonzero(is_left)
    messages = rows["response_json"].take(pa.array(left)).to_pylist()
    usages = zip(left.tolist(), models[left].tolist(), messages, strict=True)
    return saved + sum(_saved_by(prices, model, message, int(cost[at])) for at, model, message in usages)


def _saved_by(prices: Prices, model: str, message: str | None, cost: int) -> int:
    usage = usage_of(message)
    parts = prices.cost_parts(model, usage) if usage is not None else None
    if parts is None or sum(parts.costs) + parts.fees != cost:
        return 0
    return parts.uncached + parts.fees - cost


def _numbers(column: pa.ChunkedArray) -> NDArray[np.int64]:
    numbers: NDArray[np.int64] = column.fill_null(0).to_numpy().astype(np.int64)
    return numbers
