"""The cost of a request, compared with values computed by hand from the price table of November 2026."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import genai_prices.data
import genai_prices.types
import numpy as np
import orjson
import pandas as pd
import pyarrow as pa
import pytest

from batch_assets.core.errors import SettingsError
from batch_assets.core.pipeline.retirement import retirement
from batch_assets.core.pipeline.unpriced_tools import not_in_costs
from batch_assets.core.prices.money import PICODOLLARS, picodollars_by, picodollars_in, usd
from batch_assets.core.prices.prices import default_prices, prices_in
from batch_assets.core.settings import Settings
from batch_assets.emulator.models import MODELS

from .support import BATCHES, World, params, texts


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
    cost = default_prices().cost(model, usage)
    assert cost is not None
    assert cost.batch == round(dollars * PICODOLLARS), "exactly, no cent of a cent is lost"
    assert cost.live == 2 * cost.batch


def test_a_usage_without_details_counts_cache_writes_as_five_minute_ones() -> None:
    usage = {"input_tokens": M, "output_tokens": None, "cache_creation_input_tokens": M}
    assert cost_of("claude-haiku-4-5", usage) == (Decimal("1.125"), Decimal("2.25"))


def cost_of(model: str, usage: dict[str, Any]) -> tuple[Decimal, Decimal]:
    """The costs in a batch and as a live call in USD."""
    cost = default_prices().cost(model, usage)
    assert cost is not None
    return Decimal(cost.batch) / PICODOLLARS, Decimal(cost.live) / PICODOLLARS


def test_web_searches_cost_a_cent_each_without_the_discount() -> None:
    usage = _usage(1000, 100, server_tool_use={"web_search_requests": 3, "web_fetch_requests": 5})
    tokens = Decimal("0.0005") + Decimal("0.00025")
    assert cost_of("claude-haiku-4-5", usage) == (tokens + Decimal("0.03"), 2 * tokens + Decimal("0.03"))
    assert cost_of("claude-haiku-4-5", _usage(1000, 100, server_tool_use=None)) == (tokens, 2 * tokens)


def part(kind: str, fresh: int, output: int, **more: Any) -> dict[str, Any]:
    return {"type": kind, **_usage(fresh, output), **more}


def test_an_advisor_and_a_compaction_are_paid_beside_the_message() -> None:
    own = [part("message", 400, 100), part("message", 900, 200, model="claude-haiku-4-5")]
    iterations = [
        own[0],
        part("advisor_message", 800, 1600, model="claude-opus-4-8"),
        part("compaction", 3000, 400),
        own[1],
    ]
    message = (1300 * Decimal("0.5") + 300 * Decimal("2.5")) / M
    advisor = (800 * Decimal("2.5") + 1600 * Decimal("12.5")) / M
    compaction = (3000 * Decimal("0.5") + 400 * Decimal("2.5")) / M
    batch, live = cost_of("claude-haiku-4-5", _usage(1300, 300, iterations=iterations))
    assert (batch, live) == (message + advisor + compaction, 2 * (message + advisor + compaction))
    assert cost_of("claude-haiku-4-5", _usage(1300, 300, iterations=own))[0] == message
    assert cost_of("claude-haiku-4-5", _usage(1300, 300, iterations=[]))[0] == message
    unknown = [part("advisor_message", 1, 1, model="claude-unheard-of")]
    assert default_prices().cost("claude-haiku-4-5", _usage(1, 1, iterations=unknown)) is None


def test_each_iteration_is_priced_by_its_own_model_and_prompt() -> None:
    """A declined answer of one model and the answer of another; and a loop of which no prompt is long."""
    fell_back = [
        part("message", 500, 10, model="claude-fable-5"),
        part("fallback_message", 500, 90, model="claude-opus-4-8"),
    ]
    expected = (500 * 5 + 10 * 25 + 500 * Decimal("2.5") + 90 * Decimal("12.5")) / M
    # Summed up over both, the input of the first alone, or that of the answer alone.
    for usage in (_usage(1000, 100), _usage(500, 100), _usage(500, 90)):
        assert cost_of("claude-opus-4-8", usage | {"iterations": fell_back})[0] == expected
    loop = [part("message", 60_000, 100), part("message", 70_000, 100)]
    usage = _usage(130_000, 200)
    assert (
        cost_of("claude-haiku-5-5", usage | {"iterations": loop})[0]
        == (130_000 * Decimal("0.05") + 200 * Decimal("0.25")) / M
    )
    assert cost_of("claude-haiku-5-5", usage)[0] == (130_000 * Decimal("0.25") + 200 * Decimal("1.25")) / M


@pytest.mark.parametrize(
    "usage",
    [
        _usage(2**53),
        _usage(10**8, 10**8),
        _usage(1, server_tool_use={"web_search_requests": 10**300}),
        _usage(1, iterations=[part("compaction", 10**30, 0)]),
    ],
)
def test_more_than_an_answer_can_cost_is_no_cost(usage: dict[str, Any]) -> None:
    assert default_prices().cost("claude-opus-5", usage) is None


@pytest.mark.parametrize("usage", [{}, {"input_tokens": None}, {"service_tier": "batch"}])
def test_a_usage_without_tokens_costs_null_and_not_zero(usage: dict[str, Any]) -> None:
    assert default_prices().cost("claude-haiku-4-5", usage) is None


def test_an_unknown_model_costs_null_and_is_named() -> None:
    prices = default_prices()
    assert prices.cost("claude-nine-20300101", _usage(M, M)) is None
    assert prices.cost("claude-opus-5-5-fast", _usage(M)) is None
    assert prices.why_unknown({"claude-nine"}) == "no price for claude-nine"
    assert prices.why_unknown({"claude-nine", "claude-opus-5"}) == (
        "no price for claude-nine; no tokens, or a model without a price, in the usage of answers of claude-opus-5"
    )


def test_every_model_that_can_be_asked_has_a_price() -> None:
    assert [name for name in MODELS if default_prices().cost(name, _usage(1, 1)) is None] == []


def test_sums_are_exact_where_floats_are_not() -> None:
    amounts = [0.1, 0.2, 0.3, 1e-12, 123.456789012345] * 1000
    column = pa.chunked_array([pa.array([None, *amounts]), pa.array(amounts)])
    expected = 2 * sum(round(Decimal(repr(amount)) * PICODOLLARS) for amount in amounts)
    assert picodollars_in(column) == expected != round(sum(2 * amounts) * PICODOLLARS)
    groups = np.repeat([0, 2], [5001, 5000])
    assert picodollars_by(groups, 3, column) == [expected // 2, 0, expected // 2]
    assert usd(expected) == float(Decimal(expected) / PICODOLLARS)


def test_prices_agree_with_another_list() -> None:
    """By the list of the package genai-prices, for the models and the prices that both have."""
    compared = 0
    (provider,) = (one for one in genai_prices.data.providers if one.id == "anthropic")
    theirs = {model.id: model.prices for model in provider.models}
    for name, ours in default_prices().table.models.items():
        their = theirs.get(name)
        if not isinstance(their, genai_prices.types.ModelPrice):
            continue
        for price, their_price in (
            (ours.input, their.input_mtok),
            (ours.output, their.output_mtok),
            (ours.cache_read, their.cache_read_mtok),
        ):
            tiers = isinstance(their_price, genai_prices.types.TieredPrices)
            assert price == (their_price.base if tiers else their_price), name
            compared += 1
    assert compared >= 30


@pytest.fixture
def own_prices(tmp_path: Path) -> Path:
    path = tmp_path / "own.yaml"
    path.write_text(
        "models:\n  claude-nine: {input: 2, output: 10, cache_read: 0.2}\n"
        "  claude-opus-5-5: {input: 3.52, output: 17.6, cache_read: 0.176, retires: 2027-01-01}\n"
    )
    return path


def test_a_users_file_replaces_and_adds_prices(new_world: Callable[..., World], own_prices: Path) -> None:
    world = new_world(BATCH_ASSETS_PRICES=str(own_prices))
    table = world.run(world.pipeline(texts(3), params=params(model="claude-opus-5-5")))
    for row in table.itertuples():
        assert row.cost_usd == pytest.approx((row.input_tokens * 1.76 + row.output_tokens * 8.8) / M, rel=1e-12)
    prices = prices_in(own_prices)
    assert prices.cost("claude-nine", _usage(M)) == (PICODOLLARS, 2 * PICODOLLARS)
    assert prices.cost("claude-haiku-4-5", _usage(M)) == default_prices().cost("claude-haiku-4-5", _usage(M))
    assert prices.end_of("claude-opus-5-5") == date(2027, 1, 1)
    own_prices.write_text("models: {claude-haiku-5-5: {input: 0.09}, claude-sonnet-4-5: {input: 2}}")
    discounted = prices_in(own_prices)
    assert discounted.cost("claude-haiku-5-5", _usage(200_000)) == default_prices().cost(
        "claude-haiku-5-5", _usage(200_000)
    ), "the price of long prompts stays"
    assert discounted.end_of("claude-sonnet-4-5") == date(2026, 11, 30)
    own_prices.write_text("models: {claude-nine: {input: 4, output: 10, cache_read: 0.2}}")
    assert prices_in(own_prices).cost("claude-nine", _usage(M)) == (2 * PICODOLLARS, 4 * PICODOLLARS)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("models: {claude-nine: {input: 2}}", "models.claude-nine.output: Field required"),
        (
            "models: {claude-nine: {input: x, output: 1, cache_read: 1}}",
            "models.claude-nine.input: Input should be",
        ),
        (
            "models: {claude-nine: {input: -1, output: 1, cache_read: 1}}",
            "models.claude-nine.input: Input should be",
        ),
        ("discount: 1", "discount: Extra inputs"),
        ("batch_multiplier: 0", "batch_multiplier: Input should be greater than 0"),
        ("models: {claude-nine: {input: 1e400, output: 1, cache_read: 1}}", "models.claude-nine.input"),
        ("models: [a]", "models: Input should be a valid dictionary"),
        ("- a", "has no map of fields"),
        ("a: [", "is not YAML"),
        (None, "cannot be read: No such file"),
    ],
)
def test_a_mistake_in_a_users_file_names_file_and_field(tmp_path: Path, content: str | None, problem: str) -> None:
    path = tmp_path / "own.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SettingsError) as error:
        Settings.from_env({"BATCH_ASSETS_PRICES": str(path)}, project=tmp_path)
    assert str(error.value).startswith("BATCH_ASSETS_PRICES")
    assert str(path) in str(error.value)
    assert problem in str(error.value)


@pytest.mark.parametrize(
    ("model", "today", "text"),
    [
        (
            "claude-sonnet-4-5",
            date(2026, 10, 1),
            "params.model: claude-sonnet-4-5 was deprecated on 2026-09-30 and retires on 2026-11-30, in 60 days",
        ),
        ("claude-sonnet-4-5-20250929", date(2026, 11, 29), "retires on 2026-11-30, in 1 day. Requests to it fail"),
        ("claude-sonnet-4-5", date(2026, 11, 30), "params.model: claude-sonnet-4-5 retired on 2026-11-30"),
        ("claude-sonnet-4-5", date(2026, 9, 30), None),
        ("claude-opus-4-1-20250805", date(2026, 11, 30), "retired on 2026-08-05"),
        ("claude-opus-5-5", date(2026, 11, 30), None),
        ("claude-unheard-of", date(2026, 11, 30), None),
        ("{{ text }}", date(2026, 11, 30), None),
    ],
)
def test_the_end_of_a_model_is_announced_sixty_days_before(
    world: World, model: str, today: date, text: str | None
) -> None:
    problem = retirement(world.pipeline(texts(1), params=params(model=model)), default_prices(), today)
    assert (problem is None) if text is None else (text in (problem or ""))


def test_the_table_holds_the_cost_of_each_answer(world: World) -> None:
    report = world.pipeline(texts(3), params=params(model="claude-opus-5-5"))
    table = world.run(report)
    for row in table.itertuples():
        assert row.cost_usd == usd((row.input_tokens * 2 + row.output_tokens * 10) * 10**6)
    assert table["cost_usd"].min() > 0


SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "string"}},
    "required": ["a"],
    "additionalProperties": False,
}
REFUSAL = {"type": "refusal", "category": "cyber", "explanation": "It asks for malware."}


@pytest.mark.parametrize("output_schema", [None, SCHEMA])
def test_what_is_rare_in_an_answer_reaches_the_table(world: World, output_schema: dict[str, Any] | None) -> None:
    more = {"output_schema": output_schema} if output_schema else {}
    pipeline = world.pipeline(texts(6), **more)
    (batch_id,) = world.send(pipeline).submitted
    usual: dict[str, Any] = {"model": "claude-opus-5", "id": "msg_1", "type": "message", "role": "assistant"}
    usual |= {"content": [{"type": "text", "text": '{"a":"b"}'}], "stop_sequence": None, "stop_details": None}
    started = [{"type": "text", "text": "I"}]
    details = {"output_tokens_details": {"thinking_tokens": 70}}
    messages = [
        {"stop_reason": "end_turn", "usage": _usage(1000, 100, **details)},
        {"stop_reason": "end_turn", "usage": _usage(1000, 100, server_tool_use={"web_search_requests": 2})},
        {"stop_reason": "end_turn", "usage": None},
        {"stop_reason": "refusal", "stop_details": REFUSAL, "content": started, "usage": _usage(1000, 1)},
        {"stop_reason": "pause_turn", "usage": _usage(1000, 100)},
        {"stop_reason": "refusal", "content": [], "usage": _usage(1000, 1)},  # before any output: not billed
    ]
    lines = [
        orjson.dumps({"custom_id": custom_id, "result": {"type": "succeeded", "message": usual | message}}) + b"\n"
        for custom_id, message in zip(world.accepted_custom_ids(), messages, strict=True)
    ]
    match = {"method": "GET", "path": f"{BATCHES}/{batch_id}/results"}
    world.emulator.faults([{"match": match, "action": {"status": 200, "body": b"".join(lines).decode()}}])
    report = world.finish(pipeline).results
    table = world.table(pipeline)
    assert [None if pd.isna(cost) else cost for cost in table["cost_usd"]] == [
        0.00375,
        0.02375,
        None,
        0.0025125,
        0.00375,
        0.0,
    ]
    assert table["thinking_tokens"].fillna(-1).tolist() == [70, -1, -1, -1, -1, -1]
    assert table["error_message"][3] == "the model refused (cyber): It asks for malware."
    assert table["error_type"].fillna("")[3] == ("invalid_output" if output_schema else "")
    assert report is not None
    assert (report.truncated, report.refused_answers) == (1, 2)
    assert report.cost_usd is report.live_cost_usd is None, "the cost of one answer is unknown"
    assert usd(report.tally.live_cost) == 0.047525, "searches have no discount"
    assert "in the usage of answers of claude-opus-5" in default_prices().why_unknown(report.tally.unpriced_models)


@pytest.mark.parametrize("value", ["a text", 123.5])
def test_a_column_of_the_pipeline_does_not_change_the_costs(world: World, value: object) -> None:
    (world.folder / "own.jsonl").write_text(
        json.dumps({"id": 1, "text": "a", "live_cost_usd": value, "x": 1}) + "\n"
    )
    pipeline = world.pipeline(dataset={"path": "own.jsonl", "key": "id", "columns": ["live_cost_usd"]})
    world.send(pipeline)
    report = world.finish(pipeline).results
    assert report is not None and report.cost_usd is not None
    assert report.live_cost_usd == 2 * report.cost_usd > 0
    assert world.table(pipeline)["live_cost_usd"].tolist() == [value]


def test_costs_say_what_answers_do_not_tell(world: World) -> None:
    tools = [{"type": "code_execution_20250825", "name": "code_execution"}]
    assert not_in_costs(world.pipeline(texts(1), params=params(tools=tools))) is not None
    assert not_in_costs(world.pipeline(texts(1))) is None
