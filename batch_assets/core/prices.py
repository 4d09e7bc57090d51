"""The cost of succeeded requests in USD, at the batch prices of prices.yaml."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

_MILLION = 1_000_000
NAMELESS = "an answer that names no model"
"""Listed in place of the model's name when an answer has none."""


@dataclass(frozen=True)
class _Rates:
    """USD per token, batch discount included."""

    input: float
    output: float
    write_5m: float
    write_1h: float
    read: float


@dataclass(frozen=True)
class _Model:
    usual: _Rates
    long_prompt: _Rates | None
    long_over: float


class Prices:
    """A price table. The cost of a model that is not in the table is unknown (`None`), never 0.

    Attributes:
        batch_multiplier: The price of a batch as a fraction of the price of the same calls made one by one.
    """

    def __init__(self, table: Mapping[str, Any]) -> None:
        self.batch_multiplier: float = table["batch_multiplier"]
        self._geo: dict[str, float] = dict(table["geo_multipliers"])
        self._models = {name: _model(entry, table) for name, entry in table["models"].items()}

    @property
    def models(self) -> list[str]:
        """The models that have a price."""
        return list(self._models)

    def knows(self, model: str) -> bool:
        """Whether a model has a price. A name that ends in a release date is also looked up without the date."""
        return self._entry(model) is not None

    def _entry(self, model: str) -> _Model | None:
        return self._models.get(model) or self._models.get(_undated(model))

    def cost(self, model: str, usage: Mapping[str, Any]) -> float | None:
        """Compute the cost of one succeeded message.

        Args:
            model: The model that the message names.
            usage: The message's `usage`. Its `input_tokens` do not include cached tokens.

        Returns:
            The cost in USD, or `None` if the model is not in the table.
        """
        entry = self._entry(model)
        if entry is None:
            return None
        get = usage.get
        fresh, output = get("input_tokens") or 0, get("output_tokens") or 0
        read, written = get("cache_read_input_tokens") or 0, get("cache_creation_input_tokens") or 0
        geo = get("inference_geo")
        multiplier = self._geo.get(geo, 1.0) if geo else 1.0
        rates = entry.usual
        if not (read or written) and entry.long_prompt is None:
            return (fresh * rates.input + output * rates.output) * multiplier
        write_1h = (get("cache_creation") or {}).get("ephemeral_1h_input_tokens") or 0
        write_5m = written - write_1h
        if entry.long_prompt is not None and fresh + read + written > entry.long_over:
            rates = entry.long_prompt
        return float(_totals(rates, fresh, output, write_5m, write_1h, read) * multiplier)

    def costs(
        self, model: str, geo: str | None, tokens: Sequence[NDArray[np.int64]], written_1h: NDArray[np.int64]
    ) -> NDArray[np.float64] | None:
        """Compute the costs of many succeeded messages of one model, each as `cost` does.

        Args:
            model: The model that the messages name; "" for none.
            geo: The `inference_geo` of their usage.
            tokens: Their tokens of input that is not cached, of output, written to the cache, and read from it;
                each int64, shape (n,).
            written_1h: The written tokens that are cached for an hour; int64, shape (n,).

        Returns:
            The costs in USD, float64, shape (n,), or `None` if the model is not in the table.
        """
        entry = self._entry(model)
        if entry is None:
            return None
        fresh, output, written, read = tokens
        if entry.long_prompt is None:  # `cost` reads how long tokens are cached only if there are any
            written_1h = np.where((read > 0) | (written > 0), written_1h, 0)
        costs: NDArray[np.float64] = _totals(entry.usual, fresh, output, written - written_1h, written_1h, read)
        if entry.long_prompt is not None:
            long_costs = _totals(entry.long_prompt, fresh, output, written - written_1h, written_1h, read)
            costs = np.where(fresh + read + written > entry.long_over, long_costs, costs)
        return costs * (self._geo.get(geo, 1.0) if geo else 1.0)


def _totals(rates: _Rates, fresh: Any, output: Any, write_5m: Any, write_1h: Any, read: Any) -> Any:
    """Sum up the classes of tokens, of one message or of many, always in the same order: the last digit counts."""
    return (
        fresh * rates.input
        + write_5m * rates.write_5m
        + write_1h * rates.write_1h
        + read * rates.read
        + output * rates.output
    )


def _model(entry: Mapping[str, Any], table: Mapping[str, Any]) -> _Model:
    long_prompt = entry.get("long_prompt")
    return _Model(
        usual=_rates(entry, table),
        long_prompt=_rates(long_prompt, table) if long_prompt else None,
        long_over=long_prompt["over"] if long_prompt else 0,
    )


def _rates(entry: Mapping[str, Any], table: Mapping[str, Any]) -> _Rates:
    token = table["batch_multiplier"] / _MILLION
    return _Rates(
        input=entry["input"] * token,
        output=entry["output"] * token,
        write_5m=entry["input"] * table["cache_write_5m_multiplier"] * token,
        write_1h=entry["input"] * table["cache_write_1h_multiplier"] * token,
        read=entry["cache_read"] * token,
    )


def _undated(model: str) -> str:
    """claude-haiku-4-5-20251001 -> claude-haiku-4-5"""
    return re.sub(r"-\d{8}$", "", model)


def no_price_for(models: Collection[str]) -> str:
    """Explain why a cost is unknown: "no price for claude-a, claude-b"."""
    return f"no price for {', '.join(sorted(models))}"


@cache
def default_prices() -> Prices:
    """The price table that is shipped with this package."""
    return Prices(yaml.safe_load(Path(__file__).with_name("prices.yaml").read_text("utf-8")))
