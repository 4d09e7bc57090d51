"""The cost of succeeded requests by a price table, in picodollars (see `money`)."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from fractions import Fraction
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from batch_assets.core.prices.money import PICODOLLARS
from batch_assets.core.prices.table import ModelPrices, PriceTable, Rates, read_table
from batch_assets.core.prices.usage import priced_parts

_MILLION, _ONE = 1_000_000, Decimal(1)
NAMELESS = "an answer that names no model"
"""Listed in place of the model's name when an answer has none."""
MOST_TOKENS_AT_ONCE = 10**8
"""The most tokens of a class for `Prices.costs`."""
# No answer costs $1,000. A usage that says so is no usage, and float64 would not have each picodollar.
_MOST = 1_000 * PICODOLLARS


class Cost(NamedTuple):
    """What one answer costs, in picodollars, fees included.

    Attributes:
        batch: In a batch.
        live: As a call of its own.
    """

    batch: int
    live: int


class Parts(NamedTuple):
    """Numbers by the classes of tokens of one answer: the tokens, or what they cost in picodollars.

    Attributes:
        input: Tokens of the prompt that are not cached.
        write_5m: Those that are written to the cache for five minutes.
        write_1h: Those that are written to it for an hour.
        read: Those that are read from it.
        output: Tokens of the answer.
    """

    input: int
    write_5m: int
    write_1h: int
    read: int
    output: int


class CostParts(NamedTuple):
    """What one answer costs, by classes of tokens.

    Attributes:
        tokens: The tokens.
        costs: What they cost, in picodollars.
        fees: What is paid beside tokens, in picodollars.
        uncached: What the tokens would cost if the cache were not used, in picodollars.
    """

    tokens: Parts
    costs: Parts
    fees: int
    uncached: int


@dataclass(frozen=True)
class _Rates:
    """Picodollars per token."""

    input: int
    output: int
    write_5m: int
    write_1h: int
    read: int


@dataclass(frozen=True)
class _Tier:
    """The rates of a batch and of a live call."""

    batch: _Rates
    live: _Rates


@dataclass(frozen=True)
class _Model:
    """The rates of a model by the region of inference; "" is any that has no rates of its own."""

    usual: dict[str, _Tier]
    long_prompt: dict[str, _Tier] | None
    long_over: int


class Prices:
    """A price table. The cost of a model that is not in the table is unknown (`None`), never 0.

    Args:
        table: Its content.

    Attributes:
        table: The argument `table`.
    """

    def __init__(self, table: PriceTable) -> None:
        self.table = table
        self._models = {name: _model(entry, table) for name, entry in table.models.items()}
        self._search = round(Fraction(table.fees.web_search_requests) * PICODOLLARS)

    @property
    def models(self) -> list[str]:
        """The models that have a price."""
        return list(self._models)

    def knows(self, model: str) -> bool:
        """Whether a model has a price. A name that ends in a release date is also looked up without the date."""
        return self._entry(model) is not None

    def end_of(self, model: str) -> date | None:
        """Return the day from which requests to a model fail, if it was announced."""
        ends = [each.retires for each in self._dated(model)]
        ends += map(self.table.retired.get, (model, undated(model)))
        return next((end for end in ends if end is not None), None)

    def deprecated_since(self, model: str) -> date | None:
        """Return the day on which it was announced that a model retires; `None` if it was not, or is not known."""
        return next((each.deprecated for each in self._dated(model) if each.deprecated is not None), None)

    def _dated(self, model: str) -> list[ModelPrices]:
        models = self.table.models
        return [models[name] for name in (model, undated(model)) if name in models]

    @property
    def search_fee(self) -> int:
        """The picodollars of one web search."""
        return self._search

    def context_window(self, model: str) -> int | None:
        """Return the most tokens of a prompt to a model; `None` if that is not known."""
        entry = self._listed(model)
        return entry.context_window if entry is not None else None

    def max_output(self, model: str) -> int | None:
        """Return the most tokens of an answer of a model; `None` if that is not known."""
        entry = self._listed(model)
        return entry.max_output if entry is not None else None

    def at_most(
        self, model: str, prompt: int, output: int, *, writes_cache: bool, geo: object, is_live: bool = False
    ) -> int:
        """Return the most that one call of a model can cost, in picodollars, fees excluded.

        Args:
            model: The model, which must have a price.
            prompt: The most tokens of its prompt.
            output: The most tokens of its answer.
            writes_cache: Whether the prompt may be written to the cache, for five minutes or an hour.
            geo: The region of inference that the request names; `None` if the workspace decides.
            is_live: Whether it is a live call, and not in a batch.
        """
        entry = self._entry(model)
        assert entry is not None
        tiers = [entry.usual]
        if entry.long_prompt is not None and prompt > entry.long_over:
            tiers.append(entry.long_prompt)
        all_rates = [
            tier.live if is_live else tier.batch
            for regions in tiers
            for tier in (regions.values() if geo is None else [_in_region(regions, str(geo))])
        ]
        input_rate = max(max(rates.input, rates.read) for rates in all_rates)
        if writes_cache:
            input_rate = max(input_rate, *(max(rates.write_5m, rates.write_1h) for rates in all_rates))
        return prompt * input_rate + output * max(rates.output for rates in all_rates)

    def why_unknown(self, models: Collection[str]) -> str:
        """Explain why costs are unknown: "no price for claude-a, claude-b".

        Args:
            models: The models of answers whose cost is unknown, or `NAMELESS`.
        """
        unknown = sorted(model for model in models if not self.knows(model))
        reasons = [f"no price for {', '.join(unknown)}"] if unknown else []
        if known := sorted(model for model in models if self.knows(model)):
            reasons.append(f"no tokens, or a model without a price, in the usage of answers of {', '.join(known)}")
        return "; ".join(reasons)

    def _listed(self, model: str) -> ModelPrices | None:
        models = self.table.models
        return models.get(model) or models.get(undated(model))

    def _entry(self, model: str) -> _Model | None:
        return self._models.get(model) or self._models.get(undated(model))

    def cost(self, model: str, usage: Mapping[str, Any]) -> Cost | None:
        """Compute the cost of one succeeded message.

        Args:
            model: The model that the message names.
            usage: The message's `usage`. Its `input_tokens` do not include cached tokens.

        Returns:
            The cost; `None` if a model is not in the table, or the usage does not say how many tokens there are,
            or says more than an answer can have.

        Raises:
            ValueError: When a number of tokens is none.
        """
        if usage.get("input_tokens") is None and usage.get("output_tokens") is None:
            return None
        batch = live = self._fees(usage)
        for name, part in priced_parts(model, usage):
            entry = self._entry(name)
            if entry is None:
                return None
            tier, tokens = _priced(entry, part, usage.get("inference_geo"))
            batch += _total(tier.batch, *tokens)
            live += _total(tier.live, *tokens)
        return Cost(batch, live) if live < _MOST else None

    def cost_parts(self, model: str, usage: Mapping[str, Any], *, is_live: bool = False) -> CostParts | None:
        """Compute the cost of one succeeded message by classes of tokens.

        Args:
            model: See `cost`.
            usage: See `cost`.
            is_live: Whether it is the answer of a live call, and not of a batch.

        Returns:
            The parts, whose sum is `cost`; `None` if that is `None`.

        Raises:
            ValueError: When a number of tokens is none.
        """
        if self.cost(model, usage) is None:
            return None
        tokens, costs, uncached = Parts(0, 0, 0, 0, 0), Parts(0, 0, 0, 0, 0), 0
        for name, part in priced_parts(model, usage):
            entry = self._entry(name)
            assert entry is not None
            tier, (fresh, output, write_5m, write_1h, read) = _priced(entry, part, usage.get("inference_geo"))
            rates, its_tokens = (
                tier.live if is_live else tier.batch,
                Parts(fresh, write_5m, write_1h, read, output),
            )
            prices = (rates.input, rates.write_5m, rates.write_1h, rates.read, rates.output)
            tokens = Parts(*map(sum, zip(tokens, its_tokens, strict=True)))
            its_costs = (number * price for number, price in zip(its_tokens, prices, strict=True))
            costs = Parts(*map(sum, zip(costs, its_costs, strict=True)))
            uncached += (fresh + write_5m + write_1h + read) * rates.input + output * rates.output
        return CostParts(tokens, costs, self._fees(usage), uncached)

    def _fees(self, usage: Mapping[str, Any]) -> Any:
        return _number(usage.get("server_tool_use") or {}, "web_search_requests") * self._search

    def costs(
        self, model: str, geo: str | None, tokens: Sequence[NDArray[np.int64]], written_1h: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]] | None:
        """Compute the costs of many succeeded messages of one model without fees, each as `cost` does.

        Args:
            model: The model that the messages name; "" for none.
            geo: The `inference_geo` of their usage.
            tokens: Their tokens of input that is not cached, of output, written to the cache, and read from it;
                each int64, shape (n,), at most `MOST_TOKENS_AT_ONCE`.
            written_1h: The written tokens that are cached for an hour; int64, shape (n,).

        Returns:
            The costs in a batch and as live calls in picodollars, each int64, shape (n,), and which of them are
            possible; bool, shape (n,). `None` if the model is not in the table.
        """
        entry = self._entry(model)
        if entry is None:
            return None
        fresh, output, written, read = tokens
        written_1h = np.where((read > 0) | (written > 0), written_1h, 0)
        classes = (fresh, output, written - written_1h, written_1h, read)
        usual = _in_region(entry.usual, geo)
        batch, live = _total(usual.batch, *classes), _total(usual.live, *classes)
        if entry.long_prompt is not None:
            is_long, long_ = fresh + read + written > entry.long_over, _in_region(entry.long_prompt, geo)
            batch = np.where(is_long, _total(long_.batch, *classes), batch)
            live = np.where(is_long, _total(long_.live, *classes), live)
        return batch, live, live < _MOST


def _total(rates: _Rates, fresh: Any, output: Any, write_5m: Any, write_1h: Any, read: Any) -> Any:
    """Sum up the classes of tokens, of one message or of many."""
    return (
        fresh * rates.input
        + write_5m * rates.write_5m
        + write_1h * rates.write_1h
        + read * rates.read
        + output * rates.output
    )


def _priced(entry: _Model, part: Mapping[str, Any], geo: str | None) -> tuple[_Tier, tuple[Any, ...]]:
    """Return the rates of a part of a usage, and its tokens in the order that `_total` takes."""
    fresh, output = _number(part, "input_tokens"), _number(part, "output_tokens")
    read, written = _number(part, "cache_read_input_tokens"), _number(part, "cache_creation_input_tokens")
    written_1h = 0
    if written or read:
        written_1h = _number(part.get("cache_creation") or {}, "ephemeral_1h_input_tokens")
    is_long = entry.long_prompt is not None and fresh + read + written > entry.long_over
    tier = _in_region(entry.long_prompt if is_long else entry.usual, geo)
    return tier, (fresh, output, written - written_1h, written_1h, read)


def _number(counts: Mapping[str, Any], name: str) -> Any:
    """Return a number of tokens or requests; 0 without one."""
    number = counts.get(name)
    if number is None:
        return 0
    if type(number) not in (int, float) or not 0 <= number < math.inf:
        raise ValueError(f"{name} is no number: {str(number)[:100]}")
    return number


def _in_region(tiers: Mapping[str, _Tier] | None, geo: str | None) -> _Tier:
    assert tiers is not None
    return tiers.get(geo or "") or tiers[""]


def _model(entry: ModelPrices, table: PriceTable) -> _Model:
    long_prompt = entry.long_prompt
    return _Model(
        usual=_tiers(entry, table),
        long_prompt=_tiers(long_prompt, table) if long_prompt else None,
        long_over=long_prompt.over if long_prompt else 0,
    )


def _tiers(entry: Rates, table: PriceTable) -> dict[str, _Tier]:
    regions, discount = {"": _ONE, **table.geo_multipliers}, Fraction(table.batch_multiplier)
    return {
        region: _Tier(_rates(entry, table, discount * Fraction(times)), _rates(entry, table, Fraction(times)))
        for region, times in regions.items()
    }


def _rates(entry: Rates, table: PriceTable, multiplier: Fraction) -> _Rates:
    def per_token(price: Decimal, times: Decimal = _ONE) -> int:
        return round(Fraction(price) * Fraction(times) * multiplier * PICODOLLARS / _MILLION)

    return _Rates(
        input=per_token(entry.input),
        output=per_token(entry.output),
        write_5m=per_token(entry.input, table.cache_write_5m_multiplier),
        write_1h=per_token(entry.input, table.cache_write_1h_multiplier),
        read=per_token(entry.cache_read),
    )


def undated(model: str) -> str:
    """Return the name of a model without its release date: claude-haiku-4-5-20251001 -> claude-haiku-4-5."""
    return re.sub(r"-\d{8}$", "", model)


@cache
def default_prices() -> Prices:
    """The price table that is shipped with this package."""
    return Prices(read_table(None))


def prices_in(path: Path | None) -> Prices:
    """Return the prices in force. A file is read once, and again when it changes.

    Args:
        path: A price file of the user's; `None` for the shipped table alone.

    Raises:
        SettingsError: When the file cannot be read, or is no price file.
    """
    if path is None:
        return default_prices()
    try:
        state = path.stat()
    except OSError:
        return Prices(read_table(path))  # its error says why
    return _prices_of(path, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=8)
def _prices_of(path: Path, _changed_at: int, _size: int) -> Prices:
    return Prices(read_table(path))
