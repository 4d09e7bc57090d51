"""What a request costs by the published prices, in whole picodollars: 10^12 of them are a dollar.

The table is the emulator's own, so that its bill checks the costs that the product computes from another one.
https://platform.claude.com/docs/en/about-claude/pricing
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

_PICODOLLARS_PER_TOKEN = 10**6  # at one dollar for a million tokens
_BATCH = Fraction(1, 2)
_WRITE_5M, _WRITE_1H = Fraction(5, 4), Fraction(2)
_GEO = {"us": Fraction(11, 10)}
_SEARCH = 10**10  # picodollars: $10 for 1,000 searches, in a batch too


@dataclass(frozen=True)
class Price:
    """Dollars for a million tokens of a live call.

    Attributes:
        input: Tokens of the prompt that are not cached.
        output: Tokens of the answer.
        read: Tokens of the prompt that are read from the cache.
    """

    input: Fraction
    output: Fraction
    read: Fraction


def _price(input: str, output: str, read: str) -> Price:
    return Price(Fraction(input), Fraction(output), Fraction(read))


PRICES = {
    "claude-fable-5-2": _price("8", "40", "0.2"),
    "claude-mythos-5-2": _price("8", "40", "0.2"),
    "claude-fable-5-1": _price("10", "50", "0.25"),
    "claude-mythos-5-1": _price("10", "50", "0.25"),
    "claude-fable-5": _price("10", "50", "1"),
    "claude-mythos-5": _price("10", "50", "1"),
    "claude-opus-5-5": _price("4", "20", "0.2"),
    "claude-opus-5": _price("5", "25", "0.5"),
    "claude-opus-4-8": _price("5", "25", "0.5"),
    "claude-opus-4-7": _price("5", "25", "0.5"),
    "claude-opus-4-6": _price("5", "25", "0.5"),
    "claude-opus-4-5": _price("5", "25", "0.5"),
    "claude-sonnet-5-5": _price("2", "10", "0.1"),
    "claude-sonnet-5": _price("2", "10", "0.2"),
    "claude-sonnet-4-6": _price("3", "15", "0.3"),
    "claude-sonnet-4-5": _price("3", "15", "0.3"),
    "claude-haiku-4-5": _price("1", "5", "0.1"),
    "claude-haiku-5-5": _price("0.1", "0.5", "0.01"),
}
"""The usual prices by model, without release dates."""
LONG_PROMPT_TOKENS = 100_000
"""A prompt with more tokens than this, cached ones included, costs more on the models in `LONG_PROMPT`."""
LONG_PROMPT = {"claude-haiku-5-5": _price("0.5", "2.5", "0.05")}
"""The prices of requests with a long prompt."""


def batch_price(model: str, usage: Mapping[str, Any]) -> int:
    """Compute what one answer costs in a batch, in picodollars.

    Args:
        model: The model that answered.
        usage: The `usage` of its message.
    """
    return _price_of(model, usage, _BATCH)


def live_price(model: str, usage: Mapping[str, Any]) -> int:
    """Compute what the answer to a live call costs, in picodollars.

    Args:
        model: See `batch_price`.
        usage: See `batch_price`.
    """
    return _price_of(model, usage, Fraction(1))


def _price_of(model: str, usage: Mapping[str, Any], discount: Fraction) -> int:
    name = re.sub(r"-\d{8}$", "", model)
    fresh, output = usage["input_tokens"], usage["output_tokens"]
    read, written = usage["cache_read_input_tokens"], usage["cache_creation_input_tokens"]
    hour = usage["cache_creation"]["ephemeral_1h_input_tokens"]
    is_long = name in LONG_PROMPT and fresh + read + written > LONG_PROMPT_TOKENS
    price = LONG_PROMPT[name] if is_long else PRICES[name]
    dollars = price.input * (fresh + _WRITE_5M * (written - hour) + _WRITE_1H * hour)
    dollars += price.read * read + price.output * output
    tokens = dollars * discount * _GEO.get(usage["inference_geo"], 1) * _PICODOLLARS_PER_TOKEN
    if tokens.denominator != 1:
        raise ValueError(f"{model}: {tokens} is no whole number of picodollars")
    searches = (usage.get("server_tool_use") or {}).get("web_search_requests") or 0
    return int(tokens) + searches * _SEARCH
