"""A refusal of the whole account: one upload finds it out, and nothing else is sent until a user resolves it."""

from __future__ import annotations

from typing import Any

import pytest

from batch_assets.core.api.errors import RefusedError
from batch_assets.core.batches import submit
from batch_assets.core.batches.run_answers import RunAnswers
from batch_assets.core.batches.submit import submit_partitions
from batch_assets.core.batches.submit_report import SubmitReport
from batch_assets.core.batches.upload import Upload
from batch_assets.core.batches.upload_outcome import UploadOutcome
from batch_assets.core.errors import SubmissionStoppedError
from batch_assets.core.ledger import submissions

from ..support import BATCHES, CREATE, World, texts

POST = f"POST {BATCHES}"
CODES = {
    "workspace_human_review_disabled": "Human Review",
    "cmek_key_disabled": "Enable the workspace's customer-managed encryption key",
    "cmek_key_network_blocked": "network rules of the key management service",
    "claude_code_key_creator_not_member": "Use a key",
    "organization_on_hold": "support",
    "enforced_spend_limit_reached": "next month",
    "contract_spend_limit_reached": "contract",
}


def refuse(world: World, **action: Any) -> None:
    """Refuse every create call."""
    world.emulator.faults([{"match": CREATE, "action": action}])


def error(message: str, type_: str = "invalid_request_error") -> dict[str, Any]:
    return {"type": "error", "error": {"type": type_, "message": message}}


@pytest.mark.parametrize("code", CODES)
def test_five_files_make_one_create_call_and_the_text_names_code_and_remedy(world: World, code: str) -> None:
    pipeline = world.pipeline(texts(10), batching={"max_requests": 2})
    refuse(world, error_code=code)
    with pytest.raises(SubmissionStoppedError) as caught:
        world.send(pipeline)
    assert code in str(caught.value)
    assert CODES[code] in str(caught.value)
    assert world.calls()[POST] == 1
    assert world.states(pipeline) == ["stopped"] * 5
    assert all(code in (file.error or "") for file in world.files(pipeline))
    world.emulator.reset_faults()
    world.submit(pipeline, unattended=True)
    assert world.calls()[POST] == 1, "only a user's run sends it again"
    world.submit(pipeline)
    world.finish(pipeline)
    assert [batch["requests"] for batch in world.accepted()] == [2] * 5


@pytest.mark.parametrize(
    ("status", "message", "type_"),
    [
        (400, "This organization has been disabled.", "invalid_request_error"),
        (400, "You have reached your specified workspace API usage limits.", "invalid_request_error"),
        (400, "Not a member of this workspace", "permission_error"),
        (422, "There is an issue with your billing", "billing_error"),
    ],
)
def test_refusals_without_a_code_are_known_by_type_or_text(
    world: World, status: int, message: str, type_: str
) -> None:
    pipeline = world.pipeline(texts(6), batching={"max_requests": 2})
    refuse(world, status=status, body=error(message, type_))
    with pytest.raises(SubmissionStoppedError, match=message.rstrip(".")):
        world.send(pipeline)
    assert (world.calls()[POST], world.states(pipeline)) == (1, ["stopped"] * 3)


def test_an_unknown_refusal_in_the_same_words_stops_at_the_second_file(world: World) -> None:
    pipeline = world.pipeline(texts(10), batching={"max_requests": 2})
    refuse(world, status=422, body=error("Batches are switched off in your region"))
    with pytest.raises(SubmissionStoppedError, match="switched off in your region"):
        world.send(pipeline)
    assert (world.calls()[POST], world.states(pipeline)) == (2, ["refused", *["stopped"] * 4])


@pytest.mark.parametrize(
    "message", ["requests.0.custom_id: String should match pattern", "The request body is not valid JSON"]
)
def test_words_about_the_requests_concern_each_file_by_itself(world: World, message: str) -> None:
    pipeline = world.pipeline(texts(6), batching={"max_requests": 2})
    refuse(world, status=400, body=error(message))
    assert len(world.send(pipeline).refused) == 3
    assert world.states(pipeline) == ["refused"] * 3


@pytest.mark.parametrize("code", ["cmek_key_unreachable", "cmek_context_unavailable"])
def test_a_refusal_for_a_while_makes_all_files_wait_and_none_is_in_doubt(world: World, code: str) -> None:
    pipeline = world.pipeline(texts(6), batching={"max_requests": 2})
    refuse(world, error_code=code)
    assert code in next(iter(world.send(pipeline).waiting.values()))
    assert (world.calls()[POST], world.states(pipeline)) == (1, ["ready"] * 3)
    world.emulator.reset_faults()
    world.query("update request_file set not_before = 0")
    world.submit(pipeline, unattended=True)
    world.finish(pipeline)
    assert [batch["requests"] for batch in world.accepted()] == [2, 2, 2]


def test_partitions_of_later_groups_are_not_sent_in_vain(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submit, "_PARTITIONS_AT_ONCE", 2)
    keys = ["a", "b", "c", "d", "e"]
    for number, key in enumerate(keys):
        world.build(world.pipeline(texts(number + 1, f"{key} row")), key)
    refuse(world, error_code="workspace_human_review_disabled")
    outcomes = submit_partitions(world.root, "asked", keys)
    assert {type(outcome) for outcome in outcomes.values()} == {SubmissionStoppedError}
    assert world.calls()[POST] == 1
    assert world.query("select distinct state from request_file") == [("stopped",)]


def test_an_upload_beside_the_refused_one_breaks_off_before_its_body_is_complete(world: World) -> None:
    pipeline = world.pipeline({str(number): "x" * 1_000_000 for number in range(8)})
    report = world.build(pipeline)
    (file,) = world.files(pipeline)
    with world.root.ledger.read() as tx:
        submission = submissions.by_id(tx, report.submission_id)
    answers = RunAnswers()

    def refused_meanwhile(sent: int) -> None:
        answers.refusal = RefusedError(400, "invalid_request_error", "no", True, None, "cmek_key_disabled")

    report_of_file = SubmitReport(submission.id)
    upload = Upload(UploadOutcome(world.root, submission, file, report_of_file, [submission.id], answers))
    with pytest.raises(SubmissionStoppedError, match="cmek_key_disabled"):
        upload.run(refused_meanwhile)
    assert (world.accepted(), world.states(pipeline)) == ([], ["stopped"])
    assert world.query("select outcome, body_complete from intent") == [("not_sent", 0)]
