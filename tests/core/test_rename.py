"""A pipeline's new name keeps its answers and open batches, whenever the renaming is killed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from batch_assets.core import rename as rename_module
from batch_assets.core.errors import BusyError, UnfinishedRenamingError
from batch_assets.core.ledger import leases
from batch_assets.core.open_root import open_root
from batch_assets.core.remedies import FinishRenaming
from batch_assets.core.rename import RenameError, rename

from .support import World, texts


def test_answers_and_open_batches_go_on_under_the_new_name(world: World) -> None:
    old = world.pipeline(texts(3), name="old")
    world.run(old)
    world.emulator.settings(latency=3600)
    old = world.pipeline(texts(5), name="old")
    world.send(old)
    assert rename(world.root, "old", "new") == 2
    new = world.pipeline(texts(6), name="new")
    assert world.build(new).written == 1
    world.submit(new)
    world.emulator.end_batches()
    done = world.finish(new)
    assert done.results is not None and dict(done.results.counts) == {"succeeded": 6}
    assert len(world.accepted_custom_ids()) == 6
    assert not world.path("old").exists()


def test_a_lost_ledger_is_rebuilt_under_the_new_name(world: World) -> None:
    world.run(world.pipeline(texts(3), name="old"))
    rename(world.root, "old", "new")
    world.root.close()
    for path in world.path().glob("ledger.db*"):
        path.unlink()
    world.reopened()
    assert world.build(world.pipeline(texts(3), name="new")).written == 0


@pytest.mark.parametrize("step", ["_rewrite_manifest", "_move"])
@pytest.mark.parametrize("is_repeated_at_once", [True, False])
def test_a_killed_renaming_is_finished_by_the_next(
    world: World, monkeypatch: pytest.MonkeyPatch, step: str, is_repeated_at_once: bool
) -> None:
    world.emulator.settings(latency=3600)
    world.send(world.pipeline(texts(3), name="old"))

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(rename_module, step, killed)
        with pytest.raises(KeyboardInterrupt):
            rename(world.root, "old", "new")
    world.reopened()  # by another process, with most files of the root away
    if is_repeated_at_once:
        rename(world.root, "old", "new")
    else:
        with pytest.raises(UnfinishedRenamingError, match="being renamed") as refused:
            world.build(world.pipeline(texts(3), name="new"))
        assert refused.value.remedy == FinishRenaming("old", "new")
    other = world.pipeline(texts(2, "other"), name="other")
    world.send(other)  # the files of `old` are away for a while, which stops nothing
    if not is_repeated_at_once:
        rename(world.root, "old", "new")
    world.emulator.end_batches()
    new = world.pipeline(texts(3), name="new")
    world.build(new)
    world.finish(new)
    assert len(world.accepted_custom_ids()) == 5


def test_the_old_name_is_refused_while_its_renaming_is_not_finished(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A build wrote new files under it, and then the renaming could not be finished any more."""
    old = world.pipeline(texts(3), name="old")
    world.build(old)
    with monkeypatch.context() as patched:
        patched.setattr(rename_module, "_move", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            rename(world.root, "old", "new")
    for step in (world.build, world.submit):
        with pytest.raises(UnfinishedRenamingError) as refused:
            step(old)
        assert refused.value.remedy == FinishRenaming("old", "new")
    assert rename(world.root, "old", "new") == 1
    new = world.pipeline(texts(3), name="new")
    world.submit(new)
    world.finish(new)
    assert len(world.accepted_custom_ids()) == 3


def test_what_cannot_be_renamed_is_refused_and_left_as_it_is(world: World) -> None:
    world.run(world.pipeline(texts(2), name="old"))
    world.run(world.pipeline(texts(2, "other"), name="other"))
    with pytest.raises(RenameError, match="'nothing'"):
        rename(world.root, "nothing", "new")
    with pytest.raises(RenameError, match="has submissions of its own"):
        rename(world.root, "old", "other")
    for name in ("old", "../x", "a b", "", "x" * 101):
        with pytest.raises(RenameError, match="not another name"):
            rename(world.root, "old", name)
    shutil.copytree(world.path("old"), world.path("new"))
    with pytest.raises(RenameError, match="both have files"):
        rename(world.root, "old", "new")
    assert Path(world.path("old")).exists()
    shutil.rmtree(world.path("new"))
    with leases.hold(world.root.ledger, "results:old:"), pytest.raises(BusyError):
        rename(world.root, "old", "new")
    with open_root(world.root.settings) as again:
        assert rename(again, "old", "new") == 1


def test_a_copy_of_a_pipelines_folder_is_no_renaming(world: World) -> None:
    """Someone forks a pipeline with its files: the copied answers are used, and nothing is sent."""
    world.run(world.pipeline(texts(3), name="old"))
    shutil.copytree(world.path("old"), world.path("new"))
    new = world.pipeline(texts(3), name="new")
    assert list(world.run(new)["result_type"]) == ["succeeded"] * 3
    assert len(world.accepted()) == 1
