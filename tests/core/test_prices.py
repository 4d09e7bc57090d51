"""The cost of a request, compared with values computed by hand from the price table of November 2026."""

from __future__ import annotations

from typing import Any

import pytest

from batch_assets.core.prices import default_prices
from batch_assets.emulator.models import MODELS

from .support import World, params, texts


def _usage(
    fresh: int = 0, output: int = 0, read: int = 0, w5m: int = 0, w1h: int = 0, **more: Any
) -> dict[str, Any]:
    written = {"ephemeral_5m_input_tokens": w5m, "ephemeral_1h_input_tokens": w1h}
    return {
        "input_tokens": fresh,
        "output_tokens": output,
        "cache_read_input_tokens": read,
        "cache_creation_input_tokens": w5m + w1h,
        "cache_creation": written,
        **more,
    }


M = 1_000_000


@pytest.mark.parametrize(
    ("model", "usage", "dollars"),
    [
        # Batch prices of input and output: half of the standard ones.
        ("claude-haiku-4-5", _usage(M, M), 0.50 + 2.50),
        ("claude-sonnet-4-5", _usage(M, M), 1.50 + 7.50),
        ("claude-sonnet-5-5", _usage(M, M), 1 + 5),
        ("claude-opus-4-5", _usage(M, M), 2.50 + 12.50),
        ("claude-opus-5-5", _usage(M, M), 2 + 10),
        ("claude-fable-5-2", _usage(M, M), 4 + 20),
        ("claude-mythos-5-1", _usage(M, M), 5 + 25),
        # Caching, each at half price: writes for five minutes cost 1.25, for an hour 2 times the input price.
        ("claude-opus-5-5", _usage(w5m=M), 2.50),
        ("claude-opus-5-5", _usage(w1h=M), 4.00),
        ("claude-opus-5-5", _usage(read=M), 0.10),
        ("claude-sonnet-5", _usage(read=M), 0.10),
        ("claude-sonnet-5-5", _usage(read=M), 0.05),
        ("claude-fable-5", _usage(read=M), 0.50),
        ("claude-fable-5-1", _usage(read=M), 0.125),
        ("claude-haiku-4-5", _usage(100, 200, 1000, 2000, 3000), (50 + 500 + 50 + 1250 + 3000) / M),
        # Only in the United States: everything costs a tenth more.
        ("claude-sonnet-4-6", _usage(M, M, inference_geo="us"), 1.1 * (1.50 + 7.50)),
        ("claude-sonnet-4-6", _usage(M, M, inference_geo="global"), 9.0),
        ("claude-sonnet-4-6", _usage(M, M, inference_geo="not_available"), 9.0),
        ("claude-sonnet-4-6", _usage(M, M, inference_geo=None), 9.0),
        # Haiku 5.5: over 100,000 prompt tokens, the whole request costs five times as much.
        ("claude-haiku-5-5", _usage(100_000, 1000), 100_000 * 0.05 / M + 1000 * 0.25 / M),
        ("claude-haiku-5-5", _usage(100_001, 1000), 100_001 * 0.25 / M + 1000 * 1.25 / M),
        ("claude-haiku-5-5", _usage(1, 0, read=100_000), 0.25 / M + 100_000 * 0.025 / M),
        ("claude-haiku-5-5", _usage(w5m=50_000, w1h=50_001), 50_000 * 0.3125 / M + 50_001 * 0.50 / M),
        # A dated name costs what its alias costs.
        ("claude-haiku-4-5-20251001", _usage(M, M), 3.0),
        ("claude-opus-4-5-20251101", _usage(M, 0), 2.50),
    ],
)
def test_the_cost_of_a_request(model: str, usage: dict[str, Any], dollars: float) -> None:
    assert default_prices().cost(model, usage) == pytest.approx(dollars, rel=1e-12)


def test_a_usage_without_details_counts_cache_writes_as_five_minute_ones() -> None:
    usage = {"input_tokens": M, "output_tokens": None, "cache_creation_input_tokens": M}
    assert default_prices().cost("claude-haiku-4-5", usage) == pytest.approx(0.50 + 0.625)


def test_an_unknown_model_costs_null_and_is_named() -> None:
    prices = default_prices()
    assert prices.cost("claude-nine-20300101", _usage(M, M)) is None
    assert prices.cost("claude-opus-5-5-fast", _usage(M)) is None


def test_every_model_that_can_be_asked_has_a_price() -> None:
    assert [name for name in MODELS if default_prices().cost(name, _usage(1, 1)) is None] == []


def test_the_table_holds_the_cost_of_each_answer(world: World) -> None:
    report = world.pipeline(texts(3), params=params(model="claude-opus-5-5"))
    table = world.run(report)
    for row in table.itertuples():
        expected = (row.input_tokens * 2 + row.output_tokens * 10) / M
        assert row.cost_usd == pytest.approx(expected)
    assert table["cost_usd"].min() > 0
