"""Bodies, headers and texts are the same as those of the API."""

import re

import httpx2
import orjson
import pytest

from batch_assets.emulator import Emulator

from .conftest import params, requests

BATCHES = "/v1/messages/batches"
TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00")


def create(http: httpx2.Client, sent: list[object]) -> dict[str, object]:
    response = http.post(BATCHES, json={"requests": sent})
    assert response.status_code == 200, response.text
    body: dict[str, object] = response.json()
    return body


def test_the_batch_object_from_creation_to_deletion(http: httpx2.Client, emulator: Emulator) -> None:
    emulator.settings(latency=1000)
    batch = create(http, requests(3))
    zero = {"succeeded": 0, "errored": 0, "canceled": 0, "expired": 0}
    assert batch == {
        "id": batch["id"],
        "type": "message_batch",
        "processing_status": "in_progress",
        "request_counts": {"processing": 3} | zero,
        "ended_at": None,
        "created_at": batch["created_at"],
        "expires_at": batch["expires_at"],
        "archived_at": None,
        "cancel_initiated_at": None,
        "results_url": None,
    }
    assert re.fullmatch(r"msgbatch_01[1-9A-HJ-NP-Za-km-z]{22}", str(batch["id"]))
    assert TIMESTAMP.fullmatch(str(batch["created_at"])) and TIMESTAMP.fullmatch(str(batch["expires_at"]))
    assert str(batch["created_at"])[10:] == str(batch["expires_at"])[10:]
    polled = http.get(f"{BATCHES}/{batch['id']}")
    assert polled.json() == batch and polled.headers["retry-after"] == "10"
    emulator.end_batches(str(batch["id"]))
    ended = http.get(f"{BATCHES}/{batch['id']}")
    assert "retry-after" not in ended.headers
    url = f"{emulator.url}{BATCHES}/{batch['id']}/results"
    assert ended.json() == batch | {
        "processing_status": "ended",
        "request_counts": {"processing": 0} | zero | {"succeeded": 3},
        "ended_at": ended.json()["ended_at"],
        "results_url": url,
    }
    assert TIMESTAMP.fullmatch(ended.json()["ended_at"])


def test_headers(http: httpx2.Client) -> None:
    headers = http.get(BATCHES, params={"beta": "true"}).headers
    assert headers["request-id"].startswith("req_01")
    assert headers["anthropic-organization-id"] == "emulator"
    assert int(headers["anthropic-ratelimit-requests-limit"]) > int(
        headers["anthropic-ratelimit-requests-remaining"]
    )
    assert headers["anthropic-ratelimit-requests-reset"].endswith("Z")
    assert headers["content-type"] == "application/json"


def test_result_stream(http: httpx2.Client) -> None:
    batch = create(http, requests(50))
    first = http.get(f"{BATCHES}/{batch['id']}/results", params={"beta": "true"})
    assert first.headers["content-type"] == "application/x-jsonl"
    assert first.headers["content-disposition"].endswith(f"{batch['id']}_results.jsonl")
    lines = first.content.split(b"\n")
    assert lines.pop() == b""
    ids = [orjson.loads(line)["custom_id"] for line in lines]
    submitted = [f"row-{at}" for at in range(50)]
    assert ids != submitted and sorted(ids) == sorted(submitted)
    assert http.get(f"{BATCHES}/{batch['id']}/results").content == first.content


def test_succeeded_line(http: httpx2.Client) -> None:
    batch = create(http, requests(1))
    line = http.get(f"{BATCHES}/{batch['id']}/results").json()
    message = line["result"]["message"]
    assert line == {"custom_id": "row-0", "result": {"type": "succeeded", "message": message}}
    assert list(message) == [
        *("model", "id", "type", "role", "content", "stop_reason", "stop_sequence", "stop_details", "usage")
    ]
    assert set(message["usage"]) == {
        *("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "cache_creation"),
        *("output_tokens", "service_tier", "inference_geo"),
    }
    assert message["usage"]["service_tier"] == "batch"


def test_results_before_the_end(http: httpx2.Client, emulator: Emulator) -> None:
    emulator.settings(latency=1000)
    batch = create(http, requests(1))
    response = http.get(f"{BATCHES}/{batch['id']}/results")
    assert response.status_code == 404 and response.headers["x-should-retry"] == "false"
    assert response.json() == {
        "type": "error",
        "error": {
            "type": "not_found_error",
            "message": f"Message Batch {batch['id']} has no available results.",
        },
        "request_id": response.headers["request-id"],
    }


@pytest.mark.parametrize(
    ("method", "path"), [("GET", ""), ("GET", "/results"), ("POST", "/cancel"), ("DELETE", "")]
)
def test_unknown_batch(http: httpx2.Client, method: str, path: str) -> None:
    response = http.request(method, f"{BATCHES}/msgbatch_unknown{path}")
    assert response.status_code == 404
    assert response.json()["error"]["message"] == "Message Batch msgbatch_unknown not found."


def test_authentication(emulator: Emulator) -> None:
    url = emulator.url + BATCHES
    refused = httpx2.get(url)
    assert refused.status_code == 401 and refused.headers["x-should-retry"] == "false"
    assert refused.json()["error"] == {"type": "authentication_error", "message": "invalid x-api-key"}
    assert httpx2.get(url, headers={"authorization": "Bearer k"}).status_code == 200
    assert httpx2.get(url, headers={"x-api-key": "k"}).status_code == 200
    assert httpx2.get(url, headers={"authorization": "Basic a2V5"}).status_code == 401


def test_only_configured_keys_are_accepted() -> None:
    with Emulator(keys=["good"]) as own:
        assert httpx2.get(own.url + BATCHES, headers={"x-api-key": "good"}).status_code == 200
        assert httpx2.get(own.url + BATCHES, headers={"x-api-key": "bad"}).status_code == 401


def test_workspaces_do_not_see_each_other(http: httpx2.Client) -> None:
    batch = http.post(BATCHES, json={"requests": requests(1)}, headers={"x-api-key": "key-north"}).json()
    path = f"{BATCHES}/{batch['id']}"
    assert http.get(path, headers={"x-api-key": "key-north-2"}).status_code == 200
    for key in ("key-south", "any-key"):
        assert http.get(path, headers={"x-api-key": key}).status_code == 404
        assert http.get(path + "/results", headers={"x-api-key": key}).status_code == 404
        listed = http.get(BATCHES, headers={"x-api-key": key}).json()["data"]
        assert batch["id"] not in [entry["id"] for entry in listed]
    assert http.get(BATCHES, headers={"x-api-key": "key-north"}).json()["first_id"] == batch["id"]


def test_unknown_path_and_too_large_message(http: httpx2.Client) -> None:
    assert http.get("/v1/nothing").json()["error"]["type"] == "not_found_error"
    huge = http.post("/v1/messages", json=params("x" * 32_000_000))
    assert huge.status_code == 413 and huge.json()["error"]["type"] == "request_too_large"
