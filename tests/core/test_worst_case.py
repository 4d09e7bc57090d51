"""The most that a request can cost: no usage that the API can return for it costs more."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import orjson
import pytest

from batch_assets.core.errors import UnboundedCostError
from batch_assets.core.prices.prices import default_prices, prices_in
from batch_assets.core.prices.worst_case import worst_case
from batch_assets.emulator.answers import emulated_message

PRICES = default_prices()
IMAGE = {"type": "base64", "media_type": "image/png", "data": "A" * 20_000}
SEARCH = {"type": "web_search_20250305", "name": "web_search"}
FETCH = {"type": "web_fetch_20250910", "name": "web_fetch"}
CLEAR = {"type": "clear_tool_uses_20250919", "trigger": {"type": "tool_uses", "value": 3}}


def request(content: Any = "a text", **more: Any) -> dict[str, Any]:
    fields = {"model": "claude-haiku-5-5", "max_tokens": 100, "messages": [{"role": "user", "content": content}]}
    return fields | more


def most(params: dict[str, Any]) -> int:
    return worst_case(PRICES, orjson.dumps(params))


def usage(draw: random.Random, params: dict[str, Any]) -> dict[str, Any]:
    """A usage that the API could return: every token is a byte of text, and the answer may be long."""
    text = sum(len(message["content"].encode()) for message in params["messages"]) + len(params["system"].encode())
    window = PRICES.context_window(params["model"])
    assert window is not None  # the API refuses a longer prompt
    prompt = min(window, draw.choice([text, draw.randint(1, text)]))
    written = draw.randint(0, prompt) if "cache_control" in params else 0
    read = draw.randint(0, prompt - written) if "cache_control" in params else 0
    hour = draw.choice([0, written, draw.randint(0, written)])
    return {
        "input_tokens": prompt - written - read,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": read,
        "cache_creation": {"ephemeral_5m_input_tokens": written - hour, "ephemeral_1h_input_tokens": hour},
        "output_tokens": draw.choice([params["max_tokens"], draw.randint(0, params["max_tokens"])]),
        "inference_geo": params.get("inference_geo") or draw.choice(["us", "global", None]),
    }


@pytest.mark.parametrize("seed", range(300))
def test_no_usage_costs_more(seed: int) -> None:
    draw = random.Random(seed)
    size = draw.choice([1, 50, 2_000, 99_950, 100_001, 300_000])
    params = request(
        draw.choice(["x", "é", "字", "🙂", '"']) * size,
        model=draw.choice(PRICES.models),
        system="s" * draw.choice([0, 10]),
        max_tokens=draw.choice([1, 1_024, 128_000]),
    )
    if draw.random() < 0.5:
        params["cache_control"] = {"type": "ephemeral", "ttl": draw.choice(["5m", "1h"])}
    if draw.random() < 0.5:
        params["inference_geo"] = draw.choice(["us", "global"])
    costs = PRICES.cost(params["model"], usage(draw, params))
    assert costs is not None
    assert costs.batch <= most(params)


@pytest.mark.parametrize(
    "params",
    [
        request("", max_tokens=1_000),
        request([{"type": "image", "source": IMAGE}, {"type": "text", "text": "what is it?"}]),
        request([{"type": "document", "source": {"type": "base64", "data": "QUJD"}}]),
        request(tools=[{"name": "call", "input_schema": {"type": "object"}}], tool_choice={"type": "any"}),
        request("y" * 9_000, cache_control={"type": "ephemeral", "ttl": "1h"}),
    ],
    ids=["empty", "image", "document", "tool", "cache"],
)
def test_no_answer_of_the_emulator_costs_more(params: dict[str, Any]) -> None:
    costs = PRICES.cost(params["model"], emulated_message(params, "msg_1", "batch")["usage"])
    assert costs is not None
    assert costs.batch <= most(params)


def test_the_bound_of_a_plain_request_is_near_its_bytes() -> None:
    """$0.05 a million tokens in and $0.25 out, in the United States."""
    params = request("z" * 1_000)
    size = len(orjson.dumps(params))
    assert most(params) == (size + 50) * 55_000 + 100 * 275_000
    assert most(params | {"inference_geo": "global"}) == (size + 50 + 25) * 50_000 + 100 * 250_000


def test_an_image_counts_by_its_maximum_and_not_by_its_bytes() -> None:
    source = IMAGE | {"data": "A" * 10_000_000}
    nested = [{"type": "tool_result", "tool_use_id": "t", "content": [{"type": "image", "source": source}]}]
    for content in ([{"type": "image", "source": source}], nested):
        assert 4_784 * 55_000 < most(request(content)) < 5_200 * 55_000 + 100 * 275_000


@pytest.mark.parametrize(
    "content",
    [
        [{"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}}],
        [{"type": "document", "source": {"type": "file", "file_id": "file_1"}}],
        [{"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "AAAA"}}],
    ],
    ids=["url", "file", "pdf"],
)
def test_what_no_bytes_bound_counts_as_the_whole_context_window(content: Any) -> None:
    assert most(request(content)) == 1_000_000 * 275_000 + 100 * 1_375_000
    old = request(content, model="claude-haiku-4-5")
    assert most(old) == 200_000 * 550_000 + 100 * 2_750_000


def test_a_prompt_is_never_longer_than_the_context_window() -> None:
    assert most(request("x" * 2_000_000)) == 1_000_000 * 275_000 + 100 * 1_375_000


def test_each_use_of_a_server_tool_may_read_the_whole_context_window() -> None:
    once = 1_000_000 * 275_000 + 100 * 1_375_000
    assert most(request(tools=[SEARCH | {"max_uses": 2}])) == 3 * once + 2 * 10_000_000_000
    assert most(request(tools=[FETCH | {"max_uses": 2}])) == 3 * once
    assert most(request(tools=[SEARCH | {"max_uses": 1}, FETCH | {"max_uses": 1}])) == 3 * once + 10_000_000_000


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"model": "claude-unknown"}, "params.model: there is no price for claude-unknown"),
        ({"max_tokens": "many"}, "params.max_tokens"),
        ({"tools": [SEARCH]}, "params.tools[0]: nothing limits how often web_search_20250305 is used"),
        ({"tools": [{"type": "code_execution_20250825", "name": "c"}]}, "params.tools[0]: nothing limits what"),
        ({"mcp_servers": [{"url": "https://example.com"}]}, "params.mcp_servers"),
        ({"container": "container_1"}, "params.container"),
        (
            {"context_management": {"edits": [CLEAR, {"type": "compact_20260112"}]}},
            "params.context_management.edits[1].type: nothing limits the cost of an edit of the context such as",
        ),
        ({"context_management": {"edits": "all"}}, "params.context_management"),
        ({"context_management": {"edits": [CLEAR | {"type": None}]}}, "params.context_management.edits[0].type"),
    ],
)
def test_what_nothing_bounds_is_named(more: dict[str, Any], reason: str) -> None:
    with pytest.raises(UnboundedCostError) as error:
        most(request(**more))
    assert reason in str(error.value)


def test_edits_that_only_remove_tokens_cost_no_more() -> None:
    edits = [{"type": "clear_thinking_20251015"}, CLEAR]
    assert most(request()) < most(request(context_management={"edits": edits})) < most(request()) + 200 * 275_000
    assert most(request(context_management={"edits": []})) < most(request(context_management={"edits": edits}))


def test_a_model_whose_window_is_unknown_is_bounded_by_its_bytes_alone(tmp_path: Path) -> None:
    path = tmp_path / "prices.yaml"
    path.write_text("models: {claude-next: {input: 1, output: 2, cache_read: 1}}\n")
    prices = prices_in(path)
    params = request(model="claude-next")
    size = len(orjson.dumps(params))
    assert worst_case(prices, orjson.dumps(params)) == (size + 50) * 550_000 + 100 * 1_100_000
    params["messages"][0]["content"] = [{"type": "image", "source": {"type": "url", "url": "https://a"}}]
    with pytest.raises(UnboundedCostError, match="context_window"):
        worst_case(prices, orjson.dumps(params))


def test_tools_that_we_run_ourselves_are_in_the_bytes() -> None:
    tools = [{"type": "text_editor_20250728", "name": "e"}, {"type": "custom", "name": "c", "input_schema": {}}]
    assert most(request(tools=tools)) < most(request()) + 4_000 * 55_000
