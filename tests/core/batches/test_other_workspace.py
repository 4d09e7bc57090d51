"""A key of another workspace: nothing is concluded from its batches, and nothing is sent with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from batch_assets.core.batches import workspace
from batch_assets.core.batches.poll import poll
from batch_assets.core.batches.workspace import accept_key
from batch_assets.core.open_root import open_root
from batch_assets.core.remedies import ConfirmWorkspace
from batch_assets.core.settings import Overrides, Settings
from batch_assets.emulator import Emulator

from ..gateway import Gateway, accepted_but
from ..lost_ledger import delete_ledger
from ..support import BATCHES, CREATE, LIST, World, params, texts, write_rows
from .test_gateways import LIMITED
from .test_reconcile import LOST, NEVER_ARRIVED

KEYS = {"key-of-a-workspace": "one", "key-of-another": "two", "a-newer-key": "one"}


@pytest.fixture
def with_key(tmp_path: Path) -> Iterator[Callable[[str], World]]:
    """Open the root with an API key. The emulator has a workspace for each key."""
    opened: list[World] = []
    with Emulator(state=tmp_path / "emulator", workspaces=KEYS) as emulator:

        def open_with(key: str, base_url: str | None = None) -> World:
            for world in opened:
                world.root.close()
            given = Overrides(root=str(tmp_path / "output"), api_key=key, base_url=base_url or emulator.url)
            settings = Settings.from_env({"BATCH_ASSETS_RECONCILE_GRACE": "0"}, overrides=given)
            world = World(emulator, tmp_path, open_root(settings))
            world.accepted = emulator.log  # type: ignore[method-assign]
            opened.append(world)
            return world

        yield open_with
        for world in opened:
            world.root.close()


@pytest.fixture
def in_doubt(with_key: Callable[[str], World]) -> Callable[[dict[str, Any]], World]:
    """Make a create, by default the first one of a workspace, whose outcome is unknown."""

    def send(lost: dict[str, Any], *, anchored: bool = False, latency: float = 0) -> World:
        world = with_key("key-of-a-workspace")
        world.emulator.settings(latency=latency)
        if anchored:
            write_rows(world.folder / "first.jsonl", texts(1, "first"))
            world.send(world.pipeline("first.jsonl", name="first"))
        world.emulator.faults([lost, {"match": {**LIST, "nth": [2, 3, 4]}, "action": {"status": 500}}])
        pipeline = world.pipeline(texts(3))
        world.send(pipeline)
        assert world.states(pipeline) == ["unresolved"]
        world.emulator.reset_faults()
        return world

    return send


def test_the_first_create_of_a_workspace_is_not_repeated_in_another_one(
    with_key: Callable[[str], World], in_doubt: Callable[[dict[str, Any]], World]
) -> None:
    pipeline = in_doubt(LOST).pipeline()
    other = with_key("key-of-another")
    for _ in range(2):
        report = other.submit(pipeline, unattended=True)
        (question,) = report.waiting.values()
        assert "Does the API key belong to the workspace" in question
        assert report.remedies == [ConfirmWorkspace(pipeline.name)]
    assert len(other.accepted()) == 1
    assert all(b"key-of" not in path.read_bytes() for path in other.path().rglob("*") if path.is_file())
    newer = with_key("a-newer-key")  # it shows the batch, so it is of the right workspace
    assert newer.submit(pipeline, unattended=True).remedies == []
    newer.finish(pipeline)
    assert len(newer.accepted()) == 1


def test_with_the_same_key_the_create_that_never_arrived_is_repeated(
    with_key: Callable[[str], World], in_doubt: Callable[[dict[str, Any]], World]
) -> None:
    pipeline = in_doubt(NEVER_ARRIVED).pipeline()
    same = with_key("key-of-a-workspace")
    same.submit(pipeline, unattended=True)
    same.finish(pipeline)
    assert len(same.accepted()) == 1


def test_with_the_same_key_it_is_repeated_although_its_anchor_was_deleted(
    with_key: Callable[[str], World], in_doubt: Callable[..., World]
) -> None:
    """Whoever created the anchor may delete it at any time. Nothing else shows the workspace."""
    world = in_doubt(NEVER_ARRIVED, anchored=True)
    pipeline = world.pipeline()
    (anchor,) = world.accepted()
    world.root.api.delete(anchor["id"])
    assert len(world.submit(pipeline, unattended=True).submitted) == 1


def test_with_the_same_key_an_adopted_batch_that_was_deleted_is_let_go_although_the_anchor_was_too(
    with_key: Callable[[str], World], in_doubt: Callable[..., World]
) -> None:
    world = in_doubt(NEVER_ARRIVED, anchored=True)
    pipeline = world.pipeline()
    body = {"requests": [{"custom_id": f"theirs-{at}", "params": params()} for at in range(3)]}
    content = orjson.dumps(body)
    world.emulator.settings(latency=3600)
    theirs = world.root.api.create([content], len(content), {})
    assert world.submit(pipeline, unattended=True).submitted == [theirs.id]  # provisionally
    world.emulator.end_batches()
    for batch in world.accepted():
        world.root.api.delete(batch["id"])
    for _ in range(2):
        poll(world.root, now=True)
        world.query("update batch set missing_since = missing_since - 1000")
    (ours,) = world.submit(pipeline, unattended=True).submitted
    assert ours != theirs.id


def test_an_upload_of_a_killed_process_asks_for_the_key_too(
    with_key: Callable[[str], World], in_doubt: Callable[[dict[str, Any]], World]
) -> None:
    world = in_doubt(NEVER_ARRIVED)
    pipeline = world.pipeline()
    # As a process leaves it that is killed before the reply.
    world.query("update request_file set state = 'sending', error = null")
    world.query("update intent set outcome = 'open', last_byte_at = null, latest_created_at = null")
    newer = with_key("a-newer-key")
    report = newer.submit(pipeline, unattended=True)
    (question,) = report.waiting.values()
    assert "Does the API key belong to the workspace" in question
    assert report.remedies == [ConfirmWorkspace(pipeline.name)]
    accept_key(newer.root)
    assert len(newer.submit(pipeline, unattended=True).submitted) == 1


def test_a_user_confirms_that_a_newer_key_is_of_the_same_workspace(
    with_key: Callable[[str], World], in_doubt: Callable[[dict[str, Any]], World]
) -> None:
    pipeline = in_doubt(NEVER_ARRIVED).pipeline()
    newer = with_key("a-newer-key")
    newer.submit(pipeline, unattended=True)
    assert newer.accepted() == []
    accept_key(newer.root)
    newer.submit(pipeline, unattended=True)
    assert len(newer.accepted()) == 1


def send_other(world: World) -> Any:
    """Send a file of another pipeline of the root."""
    write_rows(world.folder / "more.jsonl", texts(2, "more"))
    return world.send(world.pipeline("more.jsonl", name="other"))


@pytest.mark.parametrize("anchored", [False, True])
def test_nothing_is_sent_with_a_key_of_another_workspace_while_a_file_is_in_doubt(
    with_key: Callable[[str], World], in_doubt: Callable[..., World], anchored: bool
) -> None:
    pipeline = in_doubt(LOST, anchored=anchored).pipeline()
    other = with_key("key-of-another")
    before = len(other.accepted())
    report = send_other(other)
    assert report.submitted == []
    (reason,) = report.waiting.values()
    assert other.files(pipeline)[0].id in reason
    assert "Does the API key belong to the workspace" in reason
    assert report.remedies == [ConfirmWorkspace("other")]
    other.query("update intent set last_byte_at = last_byte_at - 2000")
    other.submit(pipeline, unattended=True)
    assert len(other.accepted()) == before
    same = with_key("key-of-a-workspace")
    same.submit(pipeline, unattended=True)
    assert len(send_other(same).submitted) == 1


@pytest.mark.parametrize("anchored", [False, True])
def test_a_batch_that_was_created_with_another_key_proves_nothing(
    with_key: Callable[[str], World], in_doubt: Callable[..., World], anchored: bool
) -> None:
    world = in_doubt(LOST, anchored=anchored, latency=3600)
    pipeline = world.pipeline()
    world.submit(pipeline, unattended=True)
    assert world.states(pipeline) == ["submitted"]  # provisionally
    other = with_key("key-of-another")
    assert len(send_other(other).submitted) == 1
    (intent,) = [workspace.current_intent(other.root, file.id) for file in other.files(pipeline)]
    assert not workspace.is_ours(other.root, intent)
    assert workspace.is_ours(with_key("key-of-a-workspace").root, intent)


def test_a_batch_that_was_created_with_the_same_key_proves_the_workspace_of_a_newer_key(
    with_key: Callable[[str], World], in_doubt: Callable[..., World]
) -> None:
    world = in_doubt(NEVER_ARRIVED)
    pipeline = world.pipeline()
    assert len(send_other(world).submitted) == 1
    newer = with_key("a-newer-key")
    newer.submit(pipeline, unattended=True)
    assert len(newer.accepted()) == 2


def test_a_user_confirms_the_key_although_the_anchor_is_gone(
    with_key: Callable[[str], World], in_doubt: Callable[..., World]
) -> None:
    world = in_doubt(NEVER_ARRIVED, anchored=True)
    pipeline = world.pipeline()
    newer = with_key("a-newer-key")
    gone = {"match": {"method": "GET", "path": f"{BATCHES}/*"}, "action": {"status": 404}}
    newer.emulator.faults([gone, {"match": LIST, "action": {"hide_from_list": 99999}}])
    assert newer.submit(pipeline, unattended=True).remedies == [ConfirmWorkspace(pipeline.name)]
    accept_key(newer.root)
    newer.query("update batch set state = 'deleted'")
    newer.submit(pipeline, unattended=True)
    assert newer.states(pipeline) == ["submitted"]


def test_a_rebuilt_ledger_knows_with_which_key_a_file_may_have_been_sent(
    with_key: Callable[[str], World], in_doubt: Callable[[dict[str, Any]], World]
) -> None:
    world = in_doubt(LOST)
    pipeline = world.pipeline()
    delete_ledger(world)
    other = with_key("key-of-another")
    for _ in range(2):
        report = other.submit(pipeline)
        assert report.remedies == [ConfirmWorkspace(pipeline.name)]
    assert send_other(other).submitted == []
    assert len(other.accepted()) == 1
    same = with_key("key-of-a-workspace")
    same.submit(pipeline)
    same.finish(pipeline)
    assert len(same.accepted()) == 1


def test_a_user_confirms_the_key_of_a_rebuilt_ledger(
    with_key: Callable[[str], World], in_doubt: Callable[[dict[str, Any]], World]
) -> None:
    world = in_doubt(NEVER_ARRIVED)
    pipeline = world.pipeline()
    delete_ledger(world)
    newer = with_key("a-newer-key")
    assert newer.submit(pipeline).submitted == []
    accept_key(newer.root)
    newer.submit(pipeline)
    assert len(newer.accepted()) == 1


@pytest.mark.parametrize("status", [429, 413])
@pytest.mark.parametrize("anchored", [False, True])
def test_a_refusal_is_not_believed_with_another_key_before_the_list_was_read(
    with_key: Callable[..., World], status: int, anchored: bool
) -> None:
    """The upload was accepted, a gateway shows a refusal of its retry, and the list cannot be read just then."""
    with Gateway(with_key("key-of-a-workspace").emulator.url) as gateway:
        world = with_key("key-of-a-workspace", gateway.url)
        if anchored:
            write_rows(world.folder / "first.jsonl", texts(1, "first"))
            world.send(world.pipeline("first.jsonl", name="first"))
        pipeline = world.pipeline(texts(4))
        world.build(pipeline)
        gateway.on("POST", BATCHES, accepted_but(status, LIMITED))
        world.emulator.faults([{"match": {**LIST, "nth": [2, 3, 4]}, "action": {"status": 500}}])
        world.submit(pipeline)
        world.emulator.reset_faults()
        world.query("update request_file set not_before = 0")
        before = len(world.accepted())
        other = with_key("key-of-another", gateway.url)
        for _ in range(2):
            report = other.submit(pipeline)
            assert report.submitted == []
            if status == 429:  # otherwise the file was in doubt, and its batch is found already
                (question,) = report.waiting.values()
                assert "Does the API key belong to the workspace" in question
                assert report.remedies == [ConfirmWorkspace(pipeline.name)]
        assert len(other.accepted()) == before
        same = with_key("key-of-a-workspace", gateway.url)
        same.submit(pipeline)
        same.finish(pipeline)
        assert len(same.accepted()) == before


def test_a_user_confirms_a_newer_key_after_a_refusal(with_key: Callable[..., World]) -> None:
    world = with_key("key-of-a-workspace")
    pipeline = world.pipeline(texts(4))
    world.build(pipeline)
    limited = {"match": {**CREATE, "times": 1}, "action": {"status": 429}}
    world.emulator.faults([limited, {"match": {**LIST, "nth": [2, 3, 4]}, "action": {"status": 500}}])
    world.submit(pipeline)
    world.emulator.reset_faults()
    world.query("update request_file set not_before = 0")
    newer = with_key("a-newer-key")
    assert newer.submit(pipeline).submitted == []
    accept_key(newer.root)
    assert len(newer.submit(pipeline).submitted) == 1
