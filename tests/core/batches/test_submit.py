"""The second stage: each file becomes one batch, and refusals of the API are reported and recorded."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import orjson
import pytest

from batch_assets.core.batches.submit import submit_batches
from batch_assets.core.errors import EndpointMismatchError, SubmissionStoppedError, UnreachableError
from batch_assets.core.remedies import RunStage, Stage

from ..support import CREATE, LIST, World, texts


def refuse(world: World, status: int, message: str = "no", times: int = 1, **action: Any) -> None:
    """Make the next create calls fail with an API error."""
    kind = {400: "invalid_request_error", 401: "authentication_error", 429: "rate_limit_error"}.get(
        status, "error"
    )
    body = {"type": "error", "error": {"type": kind, "message": message}}
    world.emulator.faults(
        [{"match": {**CREATE, "times": times}, "action": {"status": status, "body": body, **action}}]
    )


def test_each_file_has_a_receipt_next_to_it(world: World) -> None:
    pipeline = world.pipeline(texts(3), batching={"max_requests": 2})
    report = world.build(pipeline)
    submitted = world.submit(pipeline).submitted
    folder = world.submission_folder(pipeline, report)
    receipts = [orjson.loads(path.read_bytes()) for path in sorted(folder.glob("*.batch.json"))]
    assert [receipt["batch_id"] for receipt in receipts] == submitted
    assert sorted(submitted) == sorted(batch["id"] for batch in world.accepted())
    assert [receipt["requests"] for receipt in receipts] == [2, 1]
    assert {receipt["base_url"] for receipt in receipts} == {world.emulator.url}


def test_every_transition_is_in_the_history(world: World) -> None:
    pipeline = world.pipeline(texts(1))
    world.run(pipeline)
    rows = world.query("select kind, from_state, to_state from history where kind = 'file' order by seq")
    assert [tuple(row)[1:] for row in rows] == [
        (None, "ready"),
        ("ready", "sending"),
        ("sending", "submitted"),
        ("submitted", "collected"),
    ]


def test_a_rate_limited_file_waits_as_long_as_the_api_asks(world: World) -> None:
    pipeline = world.pipeline(texts(1))
    refuse(world, 429, "queue full", headers={"retry-after": "120"})
    world.build(pipeline)
    (reason,) = world.submit(pipeline).waiting.values()
    assert "queue full" in reason
    world.forget_calls()
    (reason,) = world.submit(pipeline, unattended=True).waiting.values()
    assert "asked to wait 2 min more" in reason
    assert world.calls()["POST /v1/messages/batches"] == 0
    ((not_before,),) = world.query("select not_before - (select max(at) from history) from request_file")
    assert 100 < not_before <= 120
    world.query("update request_file set not_before = not_before - 120")
    assert len(world.submit(pipeline, unattended=True).submitted) == 1


def test_the_queue_limit_of_the_api_leaves_files_for_later(world: World) -> None:
    world.emulator.settings(latency=3600, queue_limit=10)
    pipeline = world.pipeline(texts(18), batching={"max_requests": 6})
    report = world.send(pipeline)
    assert (len(report.submitted), len(report.waiting)) == (1, 2)
    world.emulator.settings(latency=0, queue_limit=None)
    world.query("update request_file set not_before = 0")
    world.emulator.end_batches()
    world.finish(pipeline)
    assert [batch["requests"] for batch in world.accepted()] == [6, 6, 6]


@pytest.mark.parametrize("status", [400, 410, 422])
def test_the_requests_of_a_refused_file_are_built_again_and_sent_once(world: World, status: int) -> None:
    pipeline = world.pipeline(texts(4), batching={"max_requests": 2})
    refuse(world, status, "requests.0: wrong")
    report = world.send(pipeline)
    (error,) = report.refused.values()
    assert error.startswith(f"HTTP {status} ")
    assert "requests.0: wrong" in error
    assert (world.states(pipeline), len(report.submitted)) == (["refused", "submitted"], 1)
    world.submit(pipeline, unattended=True)
    world.submit(pipeline)
    assert world.states(pipeline)[0] == "refused"
    world.send(pipeline)
    world.finish(pipeline)
    assert len(world.accepted_custom_ids()) == 4


def test_a_refusal_that_is_not_json_is_no_refusal_of_the_api(world: World) -> None:
    pipeline = world.pipeline(texts(1))
    html = "<html>422 Unprocessable</html>"
    world.emulator.faults(
        [{"match": {**CREATE, "times": 1}, "action": {"status": 422, "body": html, "early": True}}]
    )
    world.reopened(BATCH_ASSETS_RECONCILE_GRACE="900")
    (why,) = world.send(pipeline).waiting.values()
    assert "HTTP 422, which is no answer of the API" in why


def test_a_missing_request_file_is_refused_in_neutral_words(world: World) -> None:
    pipeline = world.pipeline(texts(1))
    report = world.build(pipeline)
    (world.submission_folder(pipeline, report) / "part-00000.jsonl").unlink()
    (reason,) = world.submit(pipeline).refused.values()
    assert reason == "the request file is missing: its requests have to be built again"
    assert [file.error for file in world.files(pipeline)] == [reason]


def not_json(times: int) -> list[dict[str, Any]]:
    """Make a number of create calls receive a body that was cut or changed in transit."""
    message = "The request body is not valid JSON: unexpected end of data: line 1 column 9 (char 8)"
    body = {"type": "error", "error": {"type": "invalid_request_error", "message": message}}
    return [{"match": {**CREATE, "times": times}, "action": {"status": 400, "body": body}}]


def test_a_body_that_was_garbled_in_transit_is_sent_again_at_once(world: World) -> None:
    pipeline = world.pipeline(texts(4), batching={"max_requests": 2})
    world.emulator.faults(not_json(1))
    report = world.send(pipeline)
    assert (len(report.submitted), report.refused) == (2, {})
    assert world.calls()["POST /v1/messages/batches"] == 3
    world.finish(pipeline)
    assert len(world.accepted_custom_ids()) == 4


def test_a_body_that_is_garbled_again_is_refused_with_the_text(world: World) -> None:
    pipeline = world.pipeline(texts(2))
    world.emulator.faults(not_json(9))
    (error,) = world.send(pipeline).refused.values()
    assert "not valid JSON" in error
    assert world.states(pipeline) == ["refused"]
    world.submit(pipeline)
    assert world.calls()["POST /v1/messages/batches"] == 2


SPENT = {
    "type": "rate_limit_error",
    "message": "You have reached your limit",
    "details": {"error_code": "enforced_spend_limit_reached"},
}


@pytest.mark.parametrize("call", [CREATE, LIST], ids=["create", "list"])
@pytest.mark.parametrize(
    ("status", "error"),
    [
        (401, "invalid x-api-key"),
        (403, "not allowed"),
        (402, "billing"),
        (400, "Your credit balance is too low to access the Anthropic API."),
        (429, "You have reached your specified spend limit"),
        (429, SPENT),
        (404, "Not Found"),
        (405, "Method Not Allowed"),
        (308, "Permanent Redirect"),
    ],
)
def test_a_refusal_that_only_a_user_can_fix_stops_the_run_and_a_rerun_resumes(
    world: World, status: int, error: Any, call: dict[str, str]
) -> None:
    pipeline = world.pipeline(texts(6), batching={"max_requests": 2})
    error = error if isinstance(error, dict) else {"type": "some_error", "message": error}
    body = {"type": "error", "error": error}
    # The SDK asks for a list again by itself, at most twice.
    nth = 2 if call is CREATE else [2, 3, 4]
    world.emulator.faults([{"match": {**call, "nth": nth}, "action": {"status": status, "body": body}}])
    world.build(pipeline)
    with pytest.raises(SubmissionStoppedError, match=error["message"]) as caught:
        world.submit(pipeline)
    assert caught.value.remedy == RunStage(Stage.BATCHES, "asked")
    assert ("Is the base URL right?" in str(caught.value)) == (status in (404, 405, 308))
    assert world.states(pipeline) == ["submitted", "stopped", "stopped"]
    world.emulator.reset_faults()
    world.forget_calls()
    for _ in range(3):
        world.submit(pipeline, unattended=True)
    assert world.calls().total() == 0, "no retry storm"
    world.submit(pipeline)
    world.finish(pipeline)
    assert [batch["requests"] for batch in world.accepted()] == [2, 2, 2]


@pytest.mark.parametrize(
    ("retry_after", "least", "most"),
    [
        ("120", 100, 120),
        ("1.5", 0, 1.5),
        (None, 50, 60),
        ("soon", 50, 60),
        ("nan", 50, 60),
        ("1e9", 3500, 3600),
        ("inf", 3500, 3600),
        ("-5", 0, 1),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 3500, 3600),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0, 1),
    ],
)
def test_the_time_to_wait_is_limited(world: World, retry_after: str | None, least: float, most: float) -> None:
    pipeline = world.pipeline(texts(2), batching={"max_requests": 1})
    refuse(world, 429, headers={"retry-after": retry_after} if retry_after else {})
    world.send(pipeline)
    waits = world.query("select not_before - (select max(at) from history) from request_file")
    assert [least <= round(wait, 2) <= most for (wait,) in waits] == [True, True], waits
    assert world.calls()["POST /v1/messages/batches"] == 1, "all uploads wait after one reply"


def test_the_time_to_wait_may_be_a_date(world: World) -> None:
    pipeline = world.pipeline(texts(1))
    until = format_datetime(datetime.now(UTC) + timedelta(seconds=120), usegmt=True)
    refuse(world, 429, headers={"retry-after": until})
    world.send(pipeline)
    ((wait,),) = world.query("select not_before - (select max(at) from history) from request_file")
    assert 100 < wait <= 122, "a date has whole seconds"


def test_files_wait_while_the_list_is_rate_limited(world: World) -> None:
    pipeline = world.pipeline(texts(2), batching={"max_requests": 1})
    world.emulator.faults([{"match": LIST, "action": {"status": 429, "headers": {"retry-after": "100"}}}])
    assert len(world.send(pipeline).waiting) == 2
    world.forget_calls()
    world.submit(pipeline, unattended=True)
    assert world.calls().total() == 0


def test_a_missing_connection_is_reported_and_nothing_is_in_doubt(new_world: Callable[..., World]) -> None:
    world = new_world(BATCH_ASSETS_EMULATOR="http://127.0.0.1:9")
    pipeline = world.pipeline(texts(1))
    world.build(pipeline)
    with pytest.raises(UnreachableError, match=r"http://127\.0\.0\.1:9 cannot be reached"):
        world.submit(pipeline)
    assert world.states(pipeline) == ["ready"]


def test_a_root_that_belongs_to_another_endpoint_is_refused_before_anything(world: World) -> None:
    pipeline = world.pipeline(texts(1))
    world.run(pipeline)
    other = world.emulator.url.replace("127.0.0.1", "localhost")
    world.reopened(BATCH_ASSETS_EMULATOR=other)
    world.build(world.pipeline(texts(2)))
    world.forget_calls()
    with pytest.raises(EndpointMismatchError, match=f"belongs to {world.emulator.url}.*a separate root"):
        submit_batches(world.root, pipeline.name)
    assert world.calls().total() == 0


def test_a_key_of_another_organization_is_refused_before_anything_is_sent(world: World) -> None:
    pipeline = world.pipeline(texts(1))
    world.run(pipeline)
    world.reopened()
    world.emulator.faults([{"match": LIST, "action": {"headers": {"anthropic-organization-id": "org-other"}}}])
    world.build(world.pipeline(texts(2)))
    with pytest.raises(EndpointMismatchError, match="org-other"):
        submit_batches(world.root, pipeline.name)
    assert len(world.accepted()) == 1


def test_a_partition_without_a_submission_has_no_report(world: World) -> None:
    assert submit_batches(world.root, "asked") is None
