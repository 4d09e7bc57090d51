"""The bill: what each accepted request costs, and what of it was served."""

import json
from pathlib import Path
from typing import Any

import httpx2
import pytest

from batch_assets.core.prices.prices import default_prices
from batch_assets.emulator import Emulator
from batch_assets.emulator.models import MODELS
from batch_assets.emulator.prices import LONG_PROMPT_TOKENS, PRICES, batch_price

from .conftest import params, requests

HEADERS = {"x-api-key": "k", "anthropic-version": "2023-06-01"}
CREATE = {"method": "POST", "path": "/v1/messages/batches"}
RESULTS = {"method": "GET", "path": "/v1/messages/batches/*/results"}


def usage(input_: int, output: int, w5m: int = 0, w1h: int = 0, read: int = 0, **more: Any) -> dict[str, Any]:
    return {
        "input_tokens": input_,
        "output_tokens": output,
        "cache_creation_input_tokens": w5m + w1h,
        "cache_creation": {"ephemeral_5m_input_tokens": w5m, "ephemeral_1h_input_tokens": w1h},
        "cache_read_input_tokens": read,
        "inference_geo": "not_available",
    } | more


USAGES = [
    usage(101, 203),
    usage(7, 11, w5m=1301, w1h=1709, read=2003),
    usage(LONG_PROMPT_TOKENS - 2, 1, read=2),
    usage(LONG_PROMPT_TOKENS - 2, 1, w1h=3),
    usage(13, 17, w5m=19, inference_geo="us"),
    usage(1, 2, server_tool_use={"web_search_requests": 3}),
]


@pytest.mark.parametrize("model", [*MODELS, *PRICES])
def test_the_emulators_prices_are_those_of_the_product(model: str) -> None:
    """Both tables were made from the published prices, one without the other."""
    for each in USAGES:
        cost = default_prices().cost(model, each)
        assert cost is not None and cost.batch == batch_price(model, each)


def test_both_tables_name_the_same_models() -> None:
    assert set(PRICES) == set(default_prices().models)


def batch(emulator: Emulator, **more: Any) -> str:
    answer = http(emulator).post("/v1/messages/batches", json={"requests": requests(6, **more)})
    batch_id: str = answer.raise_for_status().json()["id"]
    return batch_id


def http(emulator: Emulator) -> httpx2.Client:
    return httpx2.Client(base_url=emulator.url, headers=HEADERS, timeout=60, trust_env=False)


def lines_of(emulator: Emulator, batch_id: str) -> list[dict[str, Any]]:
    text = http(emulator).get(f"/_emulator/batches/{batch_id}/bill").raise_for_status().text
    return [json.loads(line) for line in text.splitlines()]


def test_the_bill_survives_a_crash_and_knows_what_was_served(tmp_path: Path) -> None:
    with Emulator(state=tmp_path, workspaces={"k": "north"}) as emulator:
        served, never, deleted = batch(emulator), batch(emulator), batch(emulator, model="claude-opus-5-5")
        answers = http(emulator).get(f"/v1/messages/batches/{served}/results").text.splitlines()
        http(emulator).delete(f"/v1/messages/batches/{deleted}").raise_for_status()
        before = emulator.bill("north")
        emulator.kill()
        emulator.restart()
        assert emulator.bill("north") == before and emulator.bill("elsewhere")["batches"] == []
        by_id = {bill["id"]: bill for bill in before["batches"]}
        messages = [json.loads(line)["result"]["message"] for line in answers]
        assert by_id[served]["picodollars"] == sum(batch_price(it["model"], it["usage"]) for it in messages)
        assert by_id[served]["served_picodollars"] == by_id[served]["picodollars"] > 0
        for batch_id in (never, deleted):
            assert by_id[batch_id]["billed"] == 6 and by_id[batch_id]["served"] == 0
            assert by_id[batch_id]["picodollars"] > by_id[batch_id]["served_picodollars"] == 0
        assert before["picodollars"] == sum(bill["picodollars"] for bill in by_id.values())
        usages = {
            json.loads(line)["custom_id"]: json.loads(line)["result"]["message"]["usage"] for line in answers
        }
        of_requests = lines_of(emulator, served)
        assert {line["custom_id"]: line["usage"] for line in of_requests} == usages
        assert all(line["served"] and line["model"] == params()["model"] for line in of_requests)


def test_requests_without_an_answer_cost_nothing(tmp_path: Path) -> None:
    with Emulator(state=tmp_path, latency=100.0) as emulator:
        emulator.clock(frozen=True)
        canceled, expired = batch(emulator), batch(emulator)
        emulator.faults([{"match": CREATE, "action": {"error_mix": {"overloaded_error": 0.3, "refusal": 0.3}}}])
        failed = batch(emulator)
        emulator.clock(advance=50)
        http(emulator).post(f"/v1/messages/batches/{canceled}/cancel").raise_for_status()
        emulator.expire_batches(expired)
        emulator.clock(advance=100)
        bills = {bill["id"]: bill for bill in emulator.bill()["batches"]}
        assert bills[canceled]["billed"] == bills[expired]["billed"] == 3
        results = http(emulator).get(f"/v1/messages/batches/{failed}/results").text.splitlines()
        stops = [json.loads(line)["result"].get("message", {}).get("stop_reason") for line in results]
        assert bills[failed]["billed"] == stops.count("end_turn") < 6
        assert "refusal" in stops and None in stops


@pytest.mark.parametrize(
    ("action", "served"),
    [
        ({"truncate": {"lines": 4}}, 4),
        ({"truncate": {"lines": 4}, "ending": "clean"}, 4),
        ({"lines": {"missing": 2, "duplicate": 1}}, 4),
        ({"lines": {"garbage": 1, "broken": 1, "unknown_type": 1, "foreign": 1}}, 3),
        ({"status": 503}, 0),
        ({"drop": "after_commit"}, 0),
    ],
)
def test_a_line_is_served_only_if_all_of_it_is_sent(tmp_path: Path, action: dict[str, Any], served: int) -> None:
    with Emulator(state=tmp_path) as emulator:
        batch_id = batch(emulator)
        emulator.faults([{"match": RESULTS | {"times": 1}, "action": action}])
        for complete in (False, True):
            try:
                http(emulator).get(f"/v1/messages/batches/{batch_id}/results")
            except httpx2.TransportError:
                assert not complete
            (bill,) = emulator.bill()["batches"]
            assert bill["served"] == (6 if complete else served)
            assert sum(line["served"] for line in lines_of(emulator, batch_id)) == bill["served"]
