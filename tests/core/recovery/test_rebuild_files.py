"""A rebuilt ledger and the files it is rebuilt from: the history, the log, and errors about damaged files."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from batch_assets.core.batches.reconcile import reconcile
from batch_assets.core.errors import BatchAssetsError, EndpointMismatchError
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


def garbled(content: bytes) -> bytes:
    return content[:40] + b"\xff" * 40 + content[80:]


DAMAGES: dict[str, tuple[str, Callable[[bytes], bytes], str]] = {
    "empty manifest": (
        "requests/*/manifest.json",
        lambda _: b"{}",
        "manifest.json is damaged: 'pipeline' is missing",
    ),
    "manifest that is no object": ("requests/*/manifest.json", lambda _: b"[]", "it is not a JSON object"),
    "cut manifest": ("requests/*/manifest.json", lambda content: content[:-20], "it is not JSON"),
    "receipt": ("requests/*/*.batch.json", lambda _: b'{"batch_id": 1}', "'batch_id' is int"),
    "cut request file": (
        "requests/*/part-00000.jsonl",
        lambda content: content[:-10],
        "2 of its 3 lines can be read",
    ),
    "garbled request file": ("requests/*/part-00000.jsonl", garbled, "2 of its 3 lines can be read"),
    "index": ("requests/*/index.parquet", lambda content: content[:-20], "index.parquet"),
    "response file": ("responses/*.parquet", lambda content: content[:-20], "damaged"),
}


@pytest.mark.parametrize(
    ("damage", "is_collected"),
    [*((damage, True) for damage in DAMAGES), *((damage, False) for damage in [*DAMAGES][:-1])],
)
def test_a_damaged_file_is_named_and_stops_nothing_else(
    world: World, caplog: pytest.LogCaptureFixture, damage: str, is_collected: bool
) -> None:
    """The other pipeline goes on. After a restore, that of the file goes on too. Nothing is paid for again."""
    pattern, harm, problem = DAMAGES[damage]
    world.emulator.settings(latency=0 if is_collected else 3600)
    pipeline = world.pipeline(texts(3))
    world.send(pipeline)
    if is_collected:
        world.finish(pipeline)
    other = world.pipeline(texts(2, "other"), name="other")
    world.send(other)
    (path,) = world.path(pipeline.name).glob(pattern)
    kept = path.read_bytes()
    path.write_bytes(harm(kept))
    lose_ledger(world)
    with caplog.at_level(logging.WARNING, "batch_assets"), world.root.ledger.read():
        pass
    if not (is_collected and "request file" in damage):  # it is not read any more
        assert problem in caplog.text
    world.emulator.end_batches()
    end_grace_period(world)
    finish(world, other)
    assert set(world.table(other)["result_type"]) == {"succeeded"}
    with suppress(BatchAssetsError):
        world.submit(pipeline)
    path.write_bytes(kept)
    finish(world, pipeline)
    check(world, pipeline, 3)
    assert len(world.accepted()) == 2


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
