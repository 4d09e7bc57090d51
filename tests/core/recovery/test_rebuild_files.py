"""A rebuilt ledger and the files it is rebuilt from: the history, the log, and errors about damaged files."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from batch_assets.core.batches.reconcile import reconcile
from batch_assets.core.errors import DamagedFileError, EndpointMismatchError
from batch_assets.core.requests.build import build_requests

from ..lost_ledger import check, end_grace_period, finish, lose_ledger
from ..support import World, texts


def test_the_endpoint_is_taken_from_the_receipts(world: World) -> None:
    pipeline = world.pipeline(texts(1))
    world.run(pipeline)
    other = world.emulator.url.replace("127.0.0.1", "localhost")
    lose_ledger(world, BATCH_ASSETS_EMULATOR=other)
    with pytest.raises(EndpointMismatchError, match=f"belongs to {world.emulator.url}"):
        world.root.check_endpoint()


def test_receipts_with_different_endpoints_are_an_error(world: World) -> None:
    pipeline = world.pipeline(texts(4), batching={"max_requests": 2})
    report = world.build(pipeline)
    world.submit(pipeline)
    receipt = world.submission_folder(pipeline, report) / "part-00001.batch.json"
    receipt.write_text(json.dumps(json.loads(receipt.read_text()) | {"base_url": "https://other"}))
    lose_ledger(world)
    with pytest.raises(EndpointMismatchError, match=r"receipts do not agree.*https://other"):
        _ = world.root.ledger


def test_a_rebuild_is_logged_and_recorded_in_the_history(world: World, caplog: pytest.LogCaptureFixture) -> None:
    pipeline = world.pipeline(texts(4), batching={"max_requests": 2})
    report = world.send(pipeline)
    (world.submission_folder(pipeline, report) / "part-00001.batch.json").unlink()  # type: ignore[arg-type]
    with caplog.at_level(logging.WARNING):
        lose_ledger(world)
        _ = world.root.ledger
    assert "was lost. It is rebuilt from 1 submission; request files: 1 submitted, 1 unresolved" in caplog.text
    assert "It is unknown whether the unresolved ones were sent" in caplog.text
    rows = world.query("select kind, to_state, reason from history order by seq")
    assert {kind for kind, _, _ in rows} == {"endpoint", "submission", "file", "batch"}
    assert all(reason.startswith("rebuilt after the ledger was lost: ") for _, _, reason in rows)
    caplog.clear()
    world.reopened()
    _ = world.root.ledger
    assert caplog.text == ""


def test_an_old_write_ahead_log_does_no_harm(world: World) -> None:
    pipeline = world.pipeline(texts(3))
    world.send(pipeline)
    database = Path(world.root.settings.ledger_url.removeprefix("sqlite:///"))
    log = database.with_name(database.name + "-wal")
    kept = log.read_bytes()
    lose_ledger(world)
    log.write_bytes(kept)
    world.finish(pipeline)
    check(world, pipeline, 3)
    assert len(world.accepted()) == 1


def test_manifests_of_an_earlier_version_get_defaults(world: World) -> None:
    pipeline = world.pipeline(texts(3))
    report = world.build(pipeline)
    path = world.submission_folder(pipeline, report) / "manifest.json"
    manifest = json.loads(path.read_text())
    assert manifest.pop("max_requests") == 100_000
    assert manifest.pop("max_bytes") == 250_000_000
    path.write_text(json.dumps(manifest))
    lose_ledger(world)
    assert world.query("select max_requests, max_bytes from submission") == [(100_000, 250_000_000)]


def test_a_missing_request_file_is_reported(world: World) -> None:
    pipeline = world.pipeline(texts(4), batching={"max_requests": 2})
    report = world.build(pipeline)
    (world.submission_folder(pipeline, report) / "part-00001.jsonl").unlink()
    lose_ledger(world)
    assert world.query("select state, error from request_file order by id")[1] == (
        "refused",
        "the request file is missing: its requests have to be built again",
    )
    end_grace_period(world)
    world.submit(pipeline)
    world.send(pipeline)
    world.finish(pipeline)
    check(world, pipeline, 4)


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("manifest.json", "{}", "'pipeline' is missing"),
        ("manifest.json", "[]", "not a JSON object"),
        ("manifest.json", "{", "not JSON"),
        ("part-00000.batch.json", '{"batch_id": 1}', "'batch_id' is int"),
    ],
)
def test_an_error_names_the_damaged_file(world: World, name: str, content: str, problem: str) -> None:
    pipeline = world.pipeline(texts(2))
    report = world.build(pipeline)
    world.submit(pipeline)
    path = world.submission_folder(pipeline, report) / name
    path.write_text(content)
    lose_ledger(world)
    with pytest.raises(DamagedFileError, match=f"{path} is damaged: .*{problem}"):
        _ = world.root.ledger


def test_an_error_names_the_truncated_request_file(world: World) -> None:
    pipeline = world.pipeline(texts(3))
    report = world.build(pipeline)
    path = world.submission_folder(pipeline, report) / "part-00000.jsonl"
    path.write_bytes(path.read_bytes()[:-10])
    lose_ledger(world)
    with pytest.raises(DamagedFileError, match=r"part-00000\.jsonl is damaged"):
        _ = world.root.ledger


def test_deleted_response_files_are_downloaded_again(world: World) -> None:
    pipeline = world.pipeline(texts(4), batching={"max_requests": 2})
    before = world.run(pipeline)
    next(iter(world.path("asked", "responses").glob("*.parquet"))).unlink()
    done = world.collect(pipeline)
    assert any("is gone: the answers are downloaded again" in problem for problem in done.problems)
    assert world.table(pipeline).equals(before)
    assert len(world.accepted()) == 2


def test_requests_of_deleted_responses_are_not_sent_and_paid_for_again(world: World) -> None:
    pipeline = world.pipeline(texts(4))
    world.run(pipeline)
    next(iter(world.path("asked", "responses").glob("*.parquet"))).unlink()
    report = build_requests(world.root, pipeline)
    assert (report.written, report.in_flight) == (0, 4)
    world.submit(pipeline)
    world.finish(pipeline)
    check(world, pipeline, 4)
    assert len(world.accepted()) == 1


def test_responses_of_a_deleted_submission_are_kept_and_used(world: World) -> None:
    """Their batch does not belong to any request file."""
    pipeline = world.pipeline(texts(3))
    report = world.build(pipeline)
    world.submit(pipeline)
    world.finish(pipeline)
    world.build(world.pipeline(texts(4)))
    for path in world.submission_folder(pipeline, report).iterdir():
        path.unlink()
    lose_ledger(world)
    end_grace_period(world)
    finish(world, pipeline)
    check(world, pipeline, 4)
    assert len(world.accepted_custom_ids()) == 4
    assert reconcile(world.root) == []
