"""What a succeeded request cost, from prices.yaml: USD, at batch prices."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

_MILLION = 1_000_000
# USD; less than this would read as nothing.
_LEAST = 0.0001
NAMELESS = "an answer that names no model"


@dataclass(frozen=True)
class _Rates:
    """USD a token, batch discount included."""

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
    """A price table. A model that is not in it costs null, never 0.

    Attributes:
        batch_multiplier: what a batch costs of the price of the same calls made live.
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
        """Whether a model has a price, also by the name that ends in its date."""
        return model in self._models or _undated(model) in self._models

    def cost(self, model: str, usage: Mapping[str, Any]) -> float | None:
        """The cost of one succeeded message in USD, None for a model that is not in the table.

        Args:
            usage: the message's usage; cached tokens are not part of its input_tokens.
        """
        entry = self._models.get(model) or self._models.get(_undated(model))
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
        total = (
            fresh * rates.input
            + write_5m * rates.write_5m
            + write_1h * rates.write_1h
            + read * rates.read
            + output * rates.output
        )
        return float(total * multiplier)


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


def dollars(usd: float) -> str:
    """An amount for people, USD: "$0.0078", and of what would read as nothing "less than $0.0001"."""
    return f"less than ${_LEAST}" if 0 < usd < _LEAST else f"${usd:,.4f}"


def no_price_for(models: Collection[str]) -> str:
    """Why a cost is not known: "no price for claude-a, claude-b"."""
    return f"no price for {', '.join(sorted(models))}"


def about(usd: float) -> str:
    """The same of an estimate: "about $0.0078"."""
    said = dollars(usd)
    return said if said.startswith("less") else f"about {said}"


@cache
def default_prices() -> Prices:
    """The table that is shipped."""
    return Prices(yaml.safe_load(Path(__file__).with_name("prices.yaml").read_text("utf-8")))
