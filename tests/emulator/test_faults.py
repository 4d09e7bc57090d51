"""Each fault, as a client sees it over a real socket."""

import json
import socket
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from batch_assets.emulator import Emulator

from .conftest import params, requests

BATCHES = "/v1/messages/batches"
CREATE = {"method": "POST", "path": BATCHES}
RESULTS = {"method": "GET", "path": f"{BATCHES}/*/results"}


def create(http: httpx2.Client, count: int = 20) -> str:
    batch_id: str = http.post(BATCHES, json={"requests": requests(count)}).json()["id"]
    return batch_id


@pytest.mark.parametrize(
    ("limits", "hit"),
    [
        ({}, [1, 2, 3, 4, 5]),
        ({"times": 2}, [1, 2]),
        ({"after": 3}, [4, 5]),
        ({"nth": 2}, [2]),
        ({"nth": [1, 4]}, [1, 4]),
        ({"after": 1, "times": 2}, [2, 3]),
    ],
)
def test_which_calls_a_rule_affects(
    http: httpx2.Client, emulator: Emulator, limits: dict[str, Any], hit: list[int]
) -> None:
    emulator.faults([{"match": {"method": "GET", "path": BATCHES} | limits, "action": {"status": 529}}])
    statuses = [http.get(BATCHES).status_code for _ in range(5)]
    assert [at for at, status in enumerate(statuses, 1) if status == 529] == hit
    assert http.get("/v1/models").status_code == 200
    assert emulator.control("faults")[0]["hits"] == len(hit)
    emulator.reset_faults()
    assert http.get(BATCHES).status_code == 200


def test_a_fault_replaces_the_answer(http: httpx2.Client, emulator: Emulator) -> None:
    spend = {"type": "error", "error": {"type": "rate_limit_error", "message": "spend", "details": {}}}
    emulator.faults(
        [
            {"match": CREATE | {"nth": 1}, "action": {"status": 429, "headers": {"retry-after": 3}}},
            {"match": CREATE | {"nth": 2}, "action": {"status": 429, "body": spend}},
            {"match": CREATE | {"nth": 3}, "action": {"status": 200, "body": "<html>garbage"}},
            {"match": CREATE | {"nth": 4}, "action": {"status": 413, "body": "too big", "early": True}},
        ]
    )
    first, second, third, fourth = (http.post(BATCHES, json={"requests": requests(1)}) for _ in range(4))
    assert first.headers["retry-after"] == "3" and first.json()["error"]["type"] == "rate_limit_error"
    assert second.json() == spend
    assert (third.status_code, third.text) == (200, "<html>garbage")
    assert (fourth.status_code, fourth.text) == (413, "too big")


def test_a_late_answer_hides_that_the_call_was_carried_out(http: httpx2.Client, emulator: Emulator) -> None:
    emulator.faults([{"match": CREATE | {"times": 1}, "action": {"status": 429, "late": True}}])
    before = len(emulator.log())
    assert http.post(BATCHES, json={"requests": requests(1)}).status_code == 429
    assert len(emulator.log()) == before + 1


def test_a_delayed_call_does_not_delay_others(http: httpx2.Client, emulator: Emulator) -> None:
    emulator.faults([{"match": {"path": BATCHES}, "action": {"delay": 5}}])
    started = time.monotonic()
    with pytest.raises(httpx2.ReadTimeout):
        http.get(BATCHES, timeout=0.2)
    assert time.monotonic() - started < 4
    assert http.get("/v1/models").status_code == 200  # others are answered while the delayed call waits


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize(("drop", "accepted"), [("before_body", 0), ("before_commit", 0), ("after_commit", 1)])
def test_dropped_connections(
    http: httpx2.Client, emulator: Emulator, drop: str, accepted: int, reset: bool
) -> None:
    before = len(emulator.log())
    emulator.faults([{"match": CREATE | {"times": 1}, "action": {"drop": drop, "reset": reset}}])
    with pytest.raises(httpx2.TransportError):
        http.post(BATCHES, json={"requests": requests(2)})
    assert len(emulator.log()) - before == accepted
    assert http.post(BATCHES, json={"requests": requests(2)}).status_code == 200


@pytest.mark.parametrize("reset", [False, True])
def test_a_reset_is_not_a_close(emulator: Emulator, reset: bool) -> None:
    emulator.faults([{"match": CREATE, "action": {"drop": "before_commit", "reset": reset}}])
    host, port = emulator.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as raw:
        raw.sendall(f"POST {BATCHES} HTTP/1.1\r\nhost: {host}\r\ncontent-length: 2\r\n\r\n{{}}".encode())
        if reset:
            with pytest.raises(ConnectionResetError):
                raw.recv(1)
        else:
            assert raw.recv(1) == b""


def read(http: httpx2.Client, batch_id: str) -> tuple[bytes, Exception | None]:
    """Download results until the end. Returns the bytes, and the error if the download broke off."""
    pieces = []
    try:
        with http.stream("GET", f"{BATCHES}/{batch_id}/results") as response:
            for piece in response.iter_raw():
                pieces.append(piece)
    except httpx2.TransportError as error:
        return b"".join(pieces), error
    return b"".join(pieces), None


@pytest.mark.parametrize("ending", ["abort", "reset", "content_length", "clean", "chunked"])
@pytest.mark.parametrize("at_line_end", [False, True])
def test_truncated_results(http: httpx2.Client, emulator: Emulator, ending: str, at_line_end: bool) -> None:
    batch_id = create(http)
    complete, _ = read(http, batch_id)
    line_end = complete.index(b"\n", len(complete) // 2) + 1
    cut = {"fraction": (line_end + 9.5) / len(complete), "at_line_end": at_line_end}  # within a line
    emulator.faults([{"match": RESULTS | {"times": 1}, "action": {"truncate": cut, "ending": ending}}])
    body, error = read(http, batch_id)
    assert (error is None) == (ending in ("clean", "chunked"))
    if ending != "reset":  # after a reset the client may not get all bytes that were sent
        assert body == complete[: line_end if at_line_end else line_end + 9]
    assert complete.startswith(body) and len(body) < len(complete)
    assert read(http, batch_id) == (complete, None)


@pytest.mark.parametrize(("cut", "size"), [({"bytes": 100}, 100), ({"lines": 0}, 0), ({"fraction": 1.0}, None)])
def test_where_results_are_truncated(
    http: httpx2.Client, emulator: Emulator, cut: dict[str, Any], size: int | None
) -> None:
    batch_id = create(http)
    complete, _ = read(http, batch_id)
    emulator.faults([{"match": RESULTS, "action": {"truncate": cut, "ending": "clean"}}])
    assert read(http, batch_id) == (complete[:size], None)


def test_corrupted_lines(http: httpx2.Client, emulator: Emulator) -> None:
    batch_id = create(http)
    corruptions = {"missing": 2, "duplicate": 3, "foreign": 1, "unknown_type": 2, "garbage": 1}
    emulator.faults([{"match": RESULTS | {"times": 1}, "action": {"lines": corruptions}}])
    lines, seen = read(http, batch_id)[0].splitlines(), []
    for line in lines:
        try:
            seen.append(json.loads(line))
        except ValueError:
            seen.append(None)
    assert seen.count(None) == 1
    ids = Counter(line["custom_id"] for line in seen if line)
    assert sorted(ids.values())[-3:] == [2, 2, 2] and len(lines) == 20 - 2 + 3 + 1
    assert ids["foreign-0"] == 1
    assert sum(line["result"]["type"] == "postponed" for line in seen if line) == 2


def test_results_url_of_another_host(http: httpx2.Client, emulator: Emulator) -> None:
    batch_id = create(http)
    emulator.faults([{"match": {}, "action": {"results_url": "https://elsewhere.example/{id}"}}])
    url = http.get(f"{BATCHES}/{batch_id}").json()["results_url"]
    assert url == f"https://elsewhere.example/{batch_id}"


def test_hidden_from_list_and_not_found(http: httpx2.Client, emulator: Emulator) -> None:
    emulator.clock(frozen=True)
    old, path = create(http), f"{BATCHES}/{{}}"
    emulator.clock(advance=10)
    emulator.faults(
        [
            {"match": {"path": BATCHES}, "action": {"hide_from_list": 5}},
            {"match": {"path": f"{BATCHES}/*"}, "action": {"not_found_for": 3}},
        ]
    )
    new = create(http)
    assert http.get(BATCHES).json()["first_id"] == old
    assert http.get(path.format(old)).status_code == 200
    assert http.get(path.format(new)).status_code == 404
    emulator.clock(advance=3)
    assert http.get(path.format(new)).status_code == 200
    assert http.get(BATCHES).json()["first_id"] == old
    emulator.clock(advance=2)
    assert http.get(BATCHES).json()["first_id"] == new


def outcomes(http: httpx2.Client, sent: list[Any]) -> dict[str, str]:
    """The outcome of each request by custom_id: its error type, its stop reason or its result type."""
    batch_id = http.post(BATCHES, json={"requests": sent}).json()["id"]
    results = {}
    for line in map(json.loads, read(http, batch_id)[0].splitlines()):
        result = line["result"]
        kind = result["type"]
        if kind == "errored":
            kind = result["error"]["error"]["type"]
        elif kind == "succeeded":
            kind = result["message"]["stop_reason"]
        results[line["custom_id"]] = kind
    counts = http.get(f"{BATCHES}/{batch_id}").json()["request_counts"]
    assert counts["succeeded"] == sum(kind in ("end_turn", "refusal", "max_tokens") for kind in results.values())
    assert counts["expired"] == list(results.values()).count("expired")
    return results


def test_error_mix(http: httpx2.Client, emulator: Emulator) -> None:
    shares = {"overloaded_error": 0.2, "expired": 0.1, "canceled": 0.1, "refusal": 0.1, "max_tokens": 0.1}
    emulator.faults([{"match": CREATE, "action": {"error_mix": shares}}])
    results = outcomes(http, requests(1000))
    counts = Counter(results.values())
    assert counts.keys() == shares.keys() | {"end_turn"}
    for name, share in shares.items():
        assert 0.5 * share < counts[name] / 1000 < 1.6 * share
    assert outcomes(http, requests(1000)) == results


def test_error_mix_of_first_submissions(http: httpx2.Client, emulator: Emulator) -> None:
    emulator.faults([{"match": CREATE, "action": {"error_mix": {"api": 1.0, "first": 2}}}])
    sent = [{"custom_id": "a", "params": params("retry me")}]
    assert [outcomes(http, sent)["a"] for _ in range(3)] == ["api_error", "api_error", "end_turn"]


@pytest.mark.parametrize(
    "rule",
    [
        {"match": {"verb": "GET"}},
        {"action": {"explode": True}},
        {"action": {"drop": "sometimes"}},
        {"action": {"ending": "badly"}},
        {"action": {"lines": {"lost": 1}}},
        {"action": {"truncate": {"half": True}}},
        {"action": {"error_mix": {"bad_luck": 0.5}}},
        {"action": {"error_mix": {"expired": 0.6, "canceled": 0.6}}},
        {"action": {"error_mix": {"expired": "many"}}},
        {"action": {"error_mix": "expired"}},
        {"rule": {}},
    ],
)
def test_unknown_faults_are_refused(http: httpx2.Client, emulator: Emulator, rule: dict[str, Any]) -> None:
    refused = http.post("/_emulator/faults", json=[rule])
    assert refused.status_code == 400 and refused.json()["error"]["message"]
    assert emulator.control("faults") == []
    with pytest.raises(ValueError) as error:
        emulator.faults([rule])
    assert str(error.value) == f"the emulator refuses /_emulator/faults: {refused.json()['error']['message']}"


def test_a_control_call_that_is_refused_has_the_reason(emulator: Emulator) -> None:
    with pytest.raises(ValueError, match=r"unknown kind in error_mix: slow; known: expired, .*, overloaded, "):
        emulator.faults([{"action": {"error_mix": {"slow": 0.5}}}])
    with pytest.raises(ValueError, match="advance: give a number of seconds"):
        emulator.clock(advance="soon")
    with pytest.raises(ValueError, match="speed"):
        emulator.settings(speed=2)


def test_calls_are_counted(http: httpx2.Client, emulator: Emulator) -> None:
    before = Counter(emulator.requests())
    batch_id = create(http)
    http.get(f"{BATCHES}/{batch_id}")
    http.get(f"{BATCHES}/{batch_id}")
    after = Counter(emulator.requests())
    after.subtract(before)
    assert {name: count for name, count in after.items() if count} == {
        f"POST {BATCHES}": 1,
        f"GET {BATCHES}/{{id}}": 2,
    }


def test_an_upload_that_the_client_aborts(http: httpx2.Client, emulator: Emulator) -> None:
    accepted = len(emulator.log())

    def upload() -> Iterator[bytes]:
        yield b'{"requests":[' + b" " * 100_000
        raise InterruptedError

    with pytest.raises(InterruptedError):
        http.post(BATCHES, content=upload())
    assert http.get("/v1/models").status_code == 200
    assert len(emulator.log()) == accepted
    assert emulator.errors() == ""


def test_a_download_that_the_client_aborts(http: httpx2.Client, emulator: Emulator) -> None:
    batch_id = create(http, 20_000)
    with http.stream("GET", f"{BATCHES}/{batch_id}/results") as response:
        next(response.iter_raw())
    complete, error = read(http, batch_id)
    assert (complete.count(b"\n"), error) == (20_000, None)
    assert emulator.errors() == ""


@pytest.mark.parametrize(
    "change", [{"speed": 1}, {"latency": -1}, {"latency": "1"}, {"expiry": None}, {"moving_counters": 1}]
)
def test_invalid_settings_are_refused(http: httpx2.Client, emulator: Emulator, change: dict[str, Any]) -> None:
    before = emulator.settings()
    assert http.post("/_emulator/settings", json=change).status_code == 400
    assert emulator.settings() == before
