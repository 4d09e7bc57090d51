"""Which requests are refused at once, which become errored lines, and with which texts."""

import json
from typing import Any

import httpx2
import pytest

from batch_assets.emulator import Emulator
from tests.media import image, png

from .conftest import params, requests

BATCHES = "/v1/messages/batches"
TOOL = {"name": "note", "input_schema": {"type": "object"}}


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        ([], "requests: List should have at least 1 item after validation, not 0"),
        ([{"params": {}}], "requests.0.custom_id: Field required"),
        ([{"custom_id": 7, "params": {}}], "requests.0.custom_id: Input should be a valid string"),
        (
            [{"custom_id": "a" * 65, "params": {}}],
            "requests.0.custom_id: String should have at most 64 characters",
        ),
        (
            [{"custom_id": "ok", "params": {}}, {"custom_id": "not ok", "params": {}}],
            "requests.1.custom_id: String should match pattern '^[a-zA-Z0-9_-]{1,64}$'",
        ),
        (
            [{"custom_id": "", "params": {}}],
            "requests.0.custom_id: String should match pattern '^[a-zA-Z0-9_-]{1,64}$'",
        ),
        (
            [{"custom_id": "twice", "params": {}}] * 2,
            "requests: custom_id's must be unique within a batch. Duplicate custom_id found: twice",
        ),
        ([{"custom_id": "a"}], "requests.0.params: Field required"),
        ([{"custom_id": "a", "params": {}, "x": 1}], "requests.0.x: Extra inputs are not permitted"),
        ([7], "requests.0: Input should be a valid dictionary or object to extract fields from"),
        ("text", "requests: Input should be a valid list"),
    ],
)
def test_refused_at_once(http: httpx2.Client, emulator: Emulator, sent: Any, message: str) -> None:
    accepted = len(emulator.log())
    response = http.post(BATCHES, json={"requests": sent})
    assert response.status_code == 400 and response.headers["x-should-retry"] == "false"
    assert response.json()["error"] == {"type": "invalid_request_error", "message": message}
    assert len(emulator.log()) == accepted


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nonsense",
        b'{"requests":[',
        b'{"requests":[{"custom_id":"a","params":{}}]',
        b'{"requests":[{"custom_id":"a","params":{}}]}x',
        b'{"requests":[{"custom_id":"a","params":{}},]}',
        b'{"requests":[{"custom_id":"a","params":{}} {"custom_id":"b","params":{}}]}',
        b'{"requests":[{"custom_id":"a","params":{"t":"\xff"}}]}',
        b'{"requests":[{"custom_id":"a","params":{"t":NaN}}]}',
        b'{"requests":[{"custom_id":"bad id","params":{}}]',
    ],
)
def test_a_body_that_is_not_json_is_refused(http: httpx2.Client, body: bytes) -> None:
    response = http.post(BATCHES, content=body)
    assert response.status_code == 400
    assert response.json()["error"]["message"].startswith("The request body is not valid JSON: ")


def test_no_requests_and_other_keys(http: httpx2.Client) -> None:
    assert http.post(BATCHES, json={}).json()["error"]["message"] == "requests: Field required"
    extra = http.post(BATCHES, json={"name": "x", "requests": requests(1)})
    assert extra.json()["error"]["message"] == "name: Extra inputs are not permitted"


def test_limits_on_the_number_of_requests_and_the_size(http: httpx2.Client, emulator: Emulator) -> None:
    emulator.settings(max_requests=3, max_body_bytes=2000)
    assert http.post(BATCHES, json={"requests": requests(3)}).status_code == 200
    many = http.post(BATCHES, json={"requests": requests(4)})
    assert (many.status_code, "at most 3 items" in many.json()["error"]["message"]) == (400, True)
    big = {"requests": [{"custom_id": "a", "params": params("x" * 2000)}]}
    announced = http.post(BATCHES, json=big)
    content = announced.request.content
    chunked = http.post(BATCHES, content=iter([content[:1000], content[1000:]]))
    for response in (announced, chunked):
        assert response.status_code == 413
        assert response.json()["error"]["type"] == "request_too_large"
    emulator.settings(max_body_bytes=len(content))
    assert http.post(BATCHES, content=content).status_code == 200
    emulator.settings(max_body_bytes=len(content) - 1)
    assert http.post(BATCHES, content=content).status_code == 413


def test_default_limits_are_those_of_the_api(emulator: Emulator) -> None:
    with Emulator() as fresh:
        settings = fresh.settings()
    assert (settings["max_requests"], settings["max_body_bytes"]) == (100_000, 256_000_000)


def with_one(name: str, value: Any) -> Any:
    return params() | {name: value}


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in params().items() if key != name}


def after_a_call(*blocks: Any) -> dict[str, Any]:
    """Params whose second message calls a tool, and whose third has these blocks."""
    call = {"type": "tool_use", "id": "call-1", "name": "note", "input": {}}
    turns: list[Any] = [{"role": "user", "content": "Note."}, {"role": "assistant", "content": [call]}]
    return params(
        tools=[TOOL], messages=[*turns, *([{"role": "user", "content": list(blocks)}] if blocks else [])]
    )


RESULT = {"type": "tool_result", "tool_use_id": "call-1", "content": "noted"}
NO_RESULT = (
    "messages.1: `tool_use` ids were found without `tool_result` blocks immediately after: call-1. Each "
    "`tool_use` block must have a corresponding `tool_result` block in the next message."
)
LINES: list[tuple[dict[str, Any], str]] = [
    (after_a_call(), NO_RESULT),
    (after_a_call({"type": "text", "text": "Go on."}), NO_RESULT),
    (after_a_call({"type": "text", "text": "Go on."}, RESULT), NO_RESULT),
    (
        after_a_call(RESULT, RESULT),
        "messages.2.content.0: each tool_use must have a single result. Found multiple `tool_result` blocks with "
        "id: call-1",
    ),
    (
        after_a_call(RESULT, RESULT | {"tool_use_id": "call-2"}),
        "messages.2.content.1: unexpected `tool_use_id` found in `tool_result` blocks: call-2. Each `tool_result` "
        "block must have a corresponding `tool_use` block in the previous message.",
    ),
    (without("messages"), "messages: Field required"),
    (without("model"), "model: Field required"),
    (without("max_tokens"), "max_tokens: Field required"),
    (
        params(max_tokens=9_999_999),
        "max_tokens: 9999999 > 64000, which is the maximum allowed number of output tokens for claude-haiku-4-5",
    ),
    (params(max_tokens=0), "max_tokens: Input should be greater than or equal to 1"),
    (params(max_tokens="7"), "max_tokens: Input should be a valid integer"),
    (params(stream=True), '"stream=True" is not supported in the Message Batches API'),
    *((with_one(key, {}), f"{key}: Extra inputs are not permitted") for key in ("betas", "extra_body")),
    *((with_one(key, 1), f"{key}: Extra inputs are not permitted") for key in ("extra_headers", "timeout")),
    (params(speed="fast"), '"speed" is not supported in the Message Batches API'),
    (params(fallbacks=[]), '"fallbacks" is not supported in the Message Batches API'),
    (params(model="claude-opus-5", temperature=0.5), "`temperature` is not supported by claude-opus-5"),
    (params(messages=[]), "messages: at least one message is required"),
    (params(""), "messages.0: user messages must have non-empty content"),
    (
        params(messages=[{"role": "user", "content": [{"type": "text", "text": ""}]}]),
        "messages: text content blocks must be non-empty",
    ),
    (params(system=[{"type": "text", "text": ""}]), "system: text content blocks must be non-empty"),
    (
        params(tools=[TOOL], tool_choice={"type": "tool", "name": "other"}),
        "tool_choice: Tool 'other' not found in provided tools",
    ),
    (
        params(output_config={"format": {"type": "json_schema", "schema": False}}),
        "output_config.format.schema: the schema excludes every value",
    ),
    (
        params(messages=[{"role": "user", "content": [image(png(), "image/jpeg")]}]),
        "messages.0.content.0.image.source.base64: The image was specified using the image/jpeg media type, but "
        "the image appears to be a image/png image",
    ),
]


def test_errored_lines(http: httpx2.Client) -> None:
    sent = [{"custom_id": f"line-{at}", "params": bad} for at, (bad, _) in enumerate(LINES)]
    sent += [{"custom_id": "unknown-model", "params": params(model="claude-none")}, *requests(2)]
    batch = http.post(BATCHES, json={"requests": sent}).json()
    counts = http.get(f"{BATCHES}/{batch['id']}").json()["request_counts"]
    assert (counts["errored"], counts["succeeded"]) == (len(LINES) + 1, 2)
    text = http.get(f"{BATCHES}/{batch['id']}/results").text
    lines = {line["custom_id"]: line["result"] for line in map(json.loads, text.splitlines())}
    for at, (_, message) in enumerate(LINES):
        assert lines[f"line-{at}"] == {
            "type": "errored",
            "error": {
                "type": "error",
                "error": {
                    "details": {"error_visibility": "user_facing"},
                    "type": "invalid_request_error",
                    "message": message,
                },
                "request_id": None,
            },
        }
    unknown = lines["unknown-model"]["error"]["error"]
    assert (unknown["type"], unknown["message"]) == ("not_found_error", "model: claude-none")


@pytest.mark.parametrize("name", ["temperature", "top_p", "top_k"])
def test_sampling_depends_on_the_version(http: httpx2.Client, name: str) -> None:
    body = {"requests": [{"custom_id": "a", "params": with_one(name, 1)}]}
    errored = []
    for version in ("2023-06-01", "2026-10-21"):
        batch = http.post(BATCHES, json=body, headers={"anthropic-version": version}).json()
        errored.append(http.get(f"{BATCHES}/{batch['id']}").json()["request_counts"]["errored"])
    assert errored == [0, 1]


def test_a_batch_of_nothing_but_errors_ends(http: httpx2.Client) -> None:
    batch = http.post(BATCHES, json={"requests": requests(3, betas=["x"])}).json()
    ended = http.get(f"{BATCHES}/{batch['id']}").json()
    assert ended["processing_status"] == "ended" and ended["request_counts"]["errored"] == 3
