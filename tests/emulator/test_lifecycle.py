"""Progress, canceling, expiry and archiving of batches, by the emulator's clock so that no test waits."""

from collections import Counter
from datetime import datetime, timedelta
from typing import Any

import httpx2
import pytest

from batch_assets.emulator import Emulator
from batch_assets.emulator.batches import SECOND, progress_of
from batch_assets.emulator.records import BatchRecord

from .conftest import requests

BATCHES = "/v1/messages/batches"


@pytest.fixture
def batch(http: httpx2.Client, emulator: Emulator) -> dict[str, Any]:
    """A batch of 100 requests that takes 100 seconds of a frozen clock."""
    emulator.clock(frozen=True)
    emulator.settings(latency=100, cancel_delay=25)
    created: dict[str, Any] = http.post(BATCHES, json={"requests": requests(100)}).json()
    return created


def look(http: httpx2.Client, batch: dict[str, Any]) -> dict[str, Any]:
    seen: dict[str, Any] = http.get(f"{BATCHES}/{batch['id']}").json()
    assert sum(seen["request_counts"].values()) == 100
    return seen


def result_types(http: httpx2.Client, batch: dict[str, Any]) -> Counter[str]:
    lines = http.get(f"{BATCHES}/{batch['id']}/results").text.splitlines()
    types = ("succeeded", "errored", "canceled", "expired")
    return Counter(kind for line in lines for kind in types if f'"result":{{"type":"{kind}"' in line)


def test_counts_do_not_change_before_the_end(
    http: httpx2.Client, emulator: Emulator, batch: dict[str, Any]
) -> None:
    emulator.clock(advance=99)
    assert look(http, batch) == batch
    emulator.clock(advance=1)
    ended = look(http, batch)
    assert ended["processing_status"] == "ended"
    took = datetime.fromisoformat(ended["ended_at"]) - datetime.fromisoformat(ended["created_at"])
    assert took == timedelta(seconds=100)


def test_moving_counters(http: httpx2.Client, emulator: Emulator, batch: dict[str, Any]) -> None:
    emulator.settings(moving_counters=True)
    emulator.clock(advance=30)
    counts = look(http, batch)["request_counts"]
    assert (counts["processing"], counts["succeeded"]) == (70, 30)


def test_cancel_keeps_the_results_of_finished_requests(
    http: httpx2.Client, emulator: Emulator, batch: dict[str, Any]
) -> None:
    emulator.clock(advance=50)
    canceling = http.post(f"{BATCHES}/{batch['id']}/cancel").json()
    assert canceling["processing_status"] == "canceling"
    assert canceling["request_counts"] == batch["request_counts"]
    emulator.clock(advance=24)
    assert look(http, batch) == canceling
    assert http.post(f"{BATCHES}/{batch['id']}/cancel").json() == canceling
    assert http.get(f"{BATCHES}/{batch['id']}/results").status_code == 404
    emulator.clock(advance=1)
    ended = look(http, batch)
    assert ended["processing_status"] == "ended"
    assert ended["cancel_initiated_at"] == canceling["cancel_initiated_at"]
    counts = ended["request_counts"]
    assert (counts["succeeded"], counts["canceled"]) == (50, 50)
    assert result_types(http, batch) == {"succeeded": 50, "canceled": 50}
    assert http.post(f"{BATCHES}/{batch['id']}/cancel").status_code == 400


def test_a_batch_canceled_just_before_its_end_still_ends(
    http: httpx2.Client, emulator: Emulator, batch: dict[str, Any]
) -> None:
    emulator.clock(advance=99)
    http.post(f"{BATCHES}/{batch['id']}/cancel")
    emulator.end_batches(batch["id"])
    counts = look(http, batch)["request_counts"]
    assert (counts["succeeded"], counts["canceled"]) == (99, 1)


def test_a_batch_expires_after_a_day(http: httpx2.Client, emulator: Emulator) -> None:
    emulator.clock(frozen=True)
    emulator.settings(latency=200_000)
    batch = http.post(BATCHES, json={"requests": requests(100)}).json()
    emulator.clock(advance=86_399)
    assert look(http, batch)["processing_status"] == "in_progress"
    emulator.clock(advance=1)
    ended = look(http, batch)
    assert ended["ended_at"] == ended["expires_at"]
    assert result_types(http, batch) == {"succeeded": 43, "expired": 57}
    assert ended["request_counts"]["expired"] == 57


def test_a_batch_expires_by_setting_and_by_control_call(
    http: httpx2.Client, emulator: Emulator, batch: dict[str, Any]
) -> None:
    emulator.clock(advance=20)
    assert emulator.expire_batches(batch["id"]) == [batch["id"]]
    assert result_types(http, batch) == {"succeeded": 20, "expired": 80}
    emulator.settings(expiry=10)
    short = http.post(BATCHES, json={"requests": requests(100)}).json()
    emulator.clock(advance=10)
    assert look(http, short)["request_counts"]["expired"] == 90


@pytest.mark.parametrize("by_time", [True, False])
def test_archived_results_are_gone(
    http: httpx2.Client, emulator: Emulator, batch: dict[str, Any], by_time: bool
) -> None:
    assert emulator.archive_batches(batch["id"]) == []
    emulator.end_batches(batch["id"])
    if by_time:
        emulator.clock(advance=29 * 86400 - 1)
        assert result_types(http, batch) == {"succeeded": 100}
        emulator.clock(advance=1)
    else:
        assert emulator.archive_batches(batch["id"]) == [batch["id"]]
    seen = look(http, batch)
    assert seen["archived_at"] is not None and seen["results_url"] is None
    assert http.get(f"{BATCHES}/{batch['id']}/results").status_code == 404


def test_skew_changes_only_the_timestamps_shown(
    http: httpx2.Client, emulator: Emulator, batch: dict[str, Any]
) -> None:
    emulator.clock(skew=-3600)
    skewed = look(http, batch)
    for name in ("created_at", "expires_at"):
        moved = datetime.fromisoformat(batch[name]) - datetime.fromisoformat(skewed[name])
        assert moved == timedelta(hours=1)
    assert skewed["processing_status"] == "in_progress"


def test_queue_limit() -> None:
    with (
        Emulator(latency=100, queue_limit=150) as own,
        httpx2.Client(base_url=own.url, headers={"x-api-key": "k"}) as http,
    ):
        own.clock(frozen=True)
        first = http.post(BATCHES, json={"requests": requests(100)})
        full = http.post(BATCHES, json={"requests": requests(51)})
        assert (first.status_code, full.status_code) == (200, 429)
        assert full.headers["x-should-retry"] == "true"
        own.clock(advance=1)
        assert http.post(BATCHES, json={"requests": requests(51)}).status_code == 200


def test_progress_only_moves_forward() -> None:
    record = BatchRecord(
        1, "b", "w", 0, 1000, 100 * SECOND, 70 * SECOND, 5 * SECOND, "", "", cancel_at=60 * SECOND
    )
    seen = [progress_of(record, second * SECOND) for second in range(80)]
    assert [progress.finished for progress in seen] == sorted(progress.finished for progress in seen)
    assert [progress.status for progress in seen] == ["in_progress"] * 60 + ["canceling"] * 5 + ["ended"] * 15
    assert seen[-1].finished == 600
