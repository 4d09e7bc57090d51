"""Retries: requests with passing failures are sent up to max_attempts times, all others once."""

from __future__ import annotations

import urllib.request
from typing import Any

import pytest

from ..support import BATCHES, CREATE, World, texts


def fail(world: World, first: int | None = None, **shares: float) -> None:
    """Make shares of the requests fail, in the first batches only if `first` is given, else always."""
    mix: dict[str, Any] = {**shares} | ({"first": first} if first else {})
    world.emulator.faults([{"match": CREATE, "action": {"error_mix": mix}}])


@pytest.mark.parametrize("kind", ["api_error", "overloaded_error", "timeout_error", "rate_limit_error", "expired"])
def test_passing_failures_are_retried_until_the_attempts_are_used_up(world: World, kind: str) -> None:
    fail(world, **{kind: 1.0})
    table = world.run(world.pipeline(texts(3), retry={"max_attempts": 3}))
    assert list(table["result_type"]) == ["expired" if kind == "expired" else "errored"] * 3
    assert list(table["attempts"]) == [3, 3, 3]
    assert [batch["requests"] for batch in world.accepted()] == [3, 3, 3]


def test_one_attempt_means_one(world: World) -> None:
    fail(world, expired=1.0)
    table = world.run(world.pipeline(texts(3), retry={"max_attempts": 1}))
    assert list(table["attempts"]) == [1, 1, 1]
    assert len(world.accepted()) == 1


def test_more_attempts_are_used_by_the_next_requests(world: World) -> None:
    fail(world, first=1, expired=1.0)
    world.run(world.pipeline(texts(3), retry={"max_attempts": 1}))
    table = world.run(world.pipeline(texts(3), retry={"max_attempts": 2}))
    assert list(table["result_type"]) == ["succeeded"] * 3
    assert list(table["attempts"]) == [2, 2, 2]


@pytest.mark.parametrize("kind", ["permission_error", "billing_error", "download_error", "credit_error"])
def test_lasting_failures_are_not_retried(world: World, kind: str) -> None:
    fail(world, **{kind: 1.0})
    table = world.run(world.pipeline(texts(3)))
    assert list(table["result_type"]) == ["errored"] * 3
    assert table["error_message"].notna().all()
    assert len(world.accepted()) == 1


def test_only_failed_rows_are_retried_and_shared_requests_once(world: World) -> None:
    fail(world, first=1, overloaded_error=0.5)
    rows = {str(number): f"text {number // 2}" for number in range(40)}
    table = world.run(world.pipeline(rows, batching={"max_requests": 7}))
    assert set(table["result_type"]) == {"succeeded"}
    again = table[(table["attempts"] == 2) & table["shared_with"].isna()]
    custom_ids = world.accepted_custom_ids()
    assert len(custom_ids) == 20 + len(again)
    assert sorted(custom_ids[20:]) == sorted(again["custom_id"])
    assert 0 < len(again) < 20


def test_the_second_attempt_has_the_same_bytes_and_the_same_custom_id(world: World) -> None:
    fail(world, first=1, expired=1.0)
    world.run(world.pipeline(texts(3)))
    first, second = world.accepted(custom_ids=True)
    assert first["custom_ids"] == second["custom_ids"]
    assert first["sha256"] == second["sha256"]


def test_a_retry_never_pays_for_a_half_edited_prompt(world: World) -> None:
    """A retry reads neither the dataset nor the pipeline file; they may be missing."""
    fail(world, first=1, expired=1.0)
    pipeline = world.pipeline(texts(3))
    world.send(pipeline)
    (world.folder / "rows.jsonl").unlink()
    world.finish(pipeline)
    assert list(world.table(pipeline)["result_type"]) == ["succeeded"] * 3
    assert len(world.accepted()) == 2


def test_canceled_requests_are_sent_again_only_by_the_next_submission(world: World) -> None:
    world.emulator.settings(latency=3600)
    pipeline = world.pipeline(texts(3))
    (batch_id,) = world.send(pipeline).submitted
    url = f"{world.emulator.url}{BATCHES}/{batch_id}/cancel"
    call = urllib.request.Request(url, b"", {"x-api-key": "any"}, method="POST")
    urllib.request.build_opener(urllib.request.ProxyHandler({})).open(call).close()
    world.finish(pipeline)
    assert list(world.table(pipeline)["result_type"]) == ["canceled"] * 3
    world.submit(pipeline)
    world.submit(pipeline, unattended=True)
    assert len(world.accepted()) == 1
    world.emulator.settings(latency=0)
    table = world.run(pipeline)
    assert list(table["result_type"]) == ["succeeded"] * 3
    assert list(table["attempts"]) == [2, 2, 2]


def test_a_late_success_ends_the_row(world: World) -> None:
    """Another partition sent the same request and got the answer."""
    fail(world, expired=1.0)
    rows = texts(2)
    world.build(world.pipeline(rows), "one")
    world.submit(world.pipeline(), "one")
    world.collect(world.pipeline(), "one")
    world.emulator.reset_faults()
    pipeline = world.pipeline(rows)
    world.build(pipeline, "two")
    world.submit(pipeline, "two")
    world.finish(pipeline, "two")
    world.finish(pipeline, "one")
    assert list(world.table(pipeline)["result_type"]) == ["succeeded"] * 4
    assert len(world.accepted_custom_ids()) == 4


def test_when_half_a_batch_expires_only_that_half_is_sent_again(world: World) -> None:
    world.emulator.settings(latency=100)
    world.emulator.clock(frozen=True)
    pipeline = world.pipeline(texts(10))
    world.send(pipeline)
    world.emulator.clock(advance=50)
    world.emulator.expire_batches()
    world.emulator.settings(latency=0)
    world.finish(pipeline)
    assert [batch["requests"] for batch in world.accepted()] == [10, 5]
    assert sorted(world.table(pipeline)["attempts"]) == [1] * 5 + [2] * 5
