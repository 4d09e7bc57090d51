"""Held request files: written, not sent before something allows it, and then sent once."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from batch_assets.core.batches.approve import approve
from batch_assets.core.batches.targets import UnknownTargetError
from batch_assets.core.cancel import cancel
from batch_assets.core.erase.run import erase
from batch_assets.core.ledger import files, submissions
from batch_assets.core.ledger.states import HoldReason
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.remedies import Approve
from tests.receivers import Receiver

from ..lost_ledger import LOST, end_grace_period, lose_ledger
from ..noticing import WEBHOOK, now_due, tick
from ..support import World, texts

WHY = "it may cost $7.30, and confirm_above is $5.00"


def hold(world: World, pipeline: Pipeline, partition: str = "") -> None:
    """Hold all ready files that the rows wait on."""
    with world.root.ledger.write() as tx:
        newest = submissions.newest(tx, pipeline.name, partition)
        assert newest is not None
        for file in submissions.waited_on(tx, newest.id):
            files.hold(tx, file.id, HoldReason.CONFIRM, WHY)


def build_held(world: World, rows: int = 3, **attributes: object) -> Pipeline:
    pipeline = world.pipeline(texts(rows), batching={"max_requests": 2}, **attributes)
    world.build(pipeline)
    hold(world, pipeline)
    return pipeline


def test_a_held_file_is_sent_only_after_a_user_approved_it(world: World) -> None:
    pipeline = build_held(world)
    for unattended in (False, True):
        report = world.submit(pipeline, unattended=unattended)
        assert [*report.waiting.values()] == [f"held: {WHY}"] * 2
        assert report.remedies == [Approve("asked", "")]
        assert report.submitted == []
    assert world.accepted() == []
    assert world.collect(pipeline).results is not None
    assert set(world.table(pipeline)["result_type"]) == {"pending"}
    assert len(approve(world.root, "asked")) == 2
    assert approve(world.root, "asked") == []
    assert [*map(tuple, world.query("select distinct state, hold, error from request_file"))] == [
        ("ready", None, None)
    ]
    world.submit(pipeline, unattended=True)
    world.emulator.end_batches()
    world.finish(pipeline)
    assert set(world.table(pipeline)["result_type"]) == {"succeeded"}
    assert [batch["requests"] for batch in world.accepted()] in ([2, 1], [1, 2])


def test_approval_is_the_consent_to_send(world: World) -> None:
    """No one has run `batches` before: the approval alone lets the sensor send."""
    pipeline = build_held(world)
    assert world.query("select began_at from submission") == [(None,)]
    approve(world.root, "asked")
    assert len(world.submit(pipeline, unattended=True).submitted) == 2


def test_only_the_partition_that_is_named_is_approved(world: World) -> None:
    """The rows of b wait on the file of a, because the requests are equal."""
    pipeline = world.pipeline(texts(2))
    for partition in ("a", "b"):
        world.build(pipeline, partition)
    hold(world, pipeline, "a")
    with pytest.raises(UnknownTargetError, match="asked has no partition 'c'; partitions submitted: a, b"):
        approve(world.root, "asked", "c")
    with pytest.raises(UnknownTargetError, match=r"did you mean 'asked'\?\); pipelines there: asked"):
        approve(world.root, "akked")
    assert len(approve(world.root, "asked", "b")) == 1
    begun = world.query("select partition, began_at is not null from submission order by seq")
    assert [tuple(row) for row in begun] == [("a", False), ("b", True)]


def test_a_new_submission_replaces_held_files(world: World) -> None:
    pipeline = build_held(world)
    world.build(pipeline)
    assert sorted(map(tuple, world.query("select state, hold from request_file")), key=str) == [
        ("ready", None),
        ("ready", None),
        ("superseded", "confirm"),
        ("superseded", "confirm"),
    ]
    assert approve(world.root, "asked") == []


def test_a_canceled_submission_is_not_approved(world: World) -> None:
    pipeline = build_held(world)
    cancel(world.root, "asked")
    assert set(world.states(pipeline)) == {"canceled"}
    assert approve(world.root, "asked") == []
    assert world.accepted() == []


def test_a_rebuilt_ledger_holds_again_what_was_held(world: World) -> None:
    """Whether it was approved and sent is lost: first the API's list is asked, then the user."""
    pipeline = build_held(world, rows=2)
    ((folder,),) = world.query("select id from submission")
    manifest = next(Path(world.path("asked")).rglob("manifest.json"))
    content = orjson.loads(manifest.read_bytes())
    assert folder == content["submission"]
    content["files"][0]["hold"] = "confirm"
    manifest.write_bytes(orjson.dumps(content))
    lose_ledger(world)
    world.submit(pipeline)
    end_grace_period(world)
    report = world.submit(pipeline)
    assert world.states(pipeline) == ["held"]
    assert report.remedies == [Approve("asked", "")]
    assert world.accepted() == []
    approve(world.root, "asked")
    assert len(world.submit(pipeline, unattended=True).submitted) == 1


def test_a_rebuilt_ledger_holds_what_a_damaged_manifest_may_have_held(world: World) -> None:
    pipeline = world.pipeline(texts(2), confirm_above=0)
    world.build(pipeline)
    manifest = next(Path(world.path("asked")).rglob("manifest.json"))
    manifest.write_bytes(manifest.read_bytes()[:-20])
    lose_ledger(world)
    world.submit(pipeline)
    end_grace_period(world)
    assert world.submit(pipeline).remedies == [Approve("asked", "")]
    assert world.accepted() == []
    assert world.build(pipeline).in_flight == 2
    approve(world.root, "asked")
    world.submit(pipeline)
    world.finish(pipeline)
    assert set(world.table(pipeline)["result_type"]) == {"succeeded"}
    assert len(world.accepted()) == 1


def test_an_approved_file_whose_reply_was_lost_is_found_and_not_held(world: World) -> None:
    pipeline = build_held(world, rows=2)
    approve(world.root, "asked")
    world.emulator.faults([LOST])
    world.submit(pipeline, unattended=True)
    world.submit(pipeline, unattended=True)
    assert world.states(pipeline) == ["submitted"]
    assert len(world.accepted()) == 1


def test_a_notice_says_what_is_held(world: World, hook: Receiver) -> None:
    pipeline = build_held(world, notify=[WEBHOOK])
    assert tick(world, pipeline) == []
    now_due(world)
    assert tick(world, pipeline) == []
    (message,) = hook.received
    assert message.json["event"] == "held"
    assert message.json["message"].startswith(f"asked: 3 requests are held: {WHY}")


def test_an_erased_row_leaves_a_held_file_held(world: World) -> None:
    build_held(world)
    erase(world.root, "asked", ["row-1"])
    after = [tuple(row) for row in world.query("select state, hold, requests from request_file order by id")]
    assert sum(state == "held" for state, _, _ in after) == 2
    assert ("superseded", "confirm", 2) in after
    assert ("held", "confirm", 1) in after
