"""A pipeline's new name keeps its answers and open batches, whenever the renaming is killed."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from batch_assets.core import rename as rename_module
from batch_assets.core.batches.poll import poll
from batch_assets.core.errors import BusyError, MissingFileError, UnfinishedRenamingError
from batch_assets.core.ledger import leases
from batch_assets.core.open_root import open_root
from batch_assets.core.recovery import catch_up
from batch_assets.core.remedies import FinishRenaming
from batch_assets.core.rename import RenameError, rename
from batch_assets.core.results.run import collect_results

from .support import World, params, texts


def interrupt(world: World, monkeypatch: pytest.MonkeyPatch, step: str = "_move") -> None:
    """Kill a renaming from `old` to `new` before a step."""

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(rename_module, step, killed)
        with pytest.raises(KeyboardInterrupt):
            rename(world.root, "old", "new")
    world.reopened()


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


@pytest.mark.parametrize("folder", ["results", "results_next"])
def test_a_table_that_was_written_under_the_old_name_meanwhile_is_the_newer_one(
    world: World, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    world.run(world.pipeline(texts(3), name="old"))
    world.emulator.settings(latency=3600)
    edited = world.pipeline(params=params("Another question: {{ text }}"), name="old")
    world.send(edited)
    assert world.collect(edited).results is not None
    interrupt(world, monkeypatch)
    meanwhile, moved = (world.path(name, folder, "results.parquet") for name in ("old", "new"))
    meanwhile.parent.mkdir(parents=True)
    meanwhile.write_bytes(b"the newer table")
    assert moved.read_bytes() != b"the newer table"
    rename(world.root, "old", "new")
    assert moved.read_bytes() == b"the newer table"
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
    interrupt(world, monkeypatch, step)  # the next process opens a root that most files are away from
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
    with pytest.raises(RenameError, match="'old' is the name that it has"):
        rename(world.root, "old", "old")
    for name in ("../x", "a b", "", "x" * 101):
        with pytest.raises(RenameError, match="cannot be the name of a pipeline: letters"):
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


@pytest.mark.parametrize("step", ["_rewrite_manifest", "_move"])
def test_nothing_is_collected_under_the_old_name_while_its_renaming_is_not_finished(
    world: World, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    world.emulator.settings(latency=3600)
    world.send(world.pipeline(texts(3), name="old"))
    interrupt(world, monkeypatch, step)
    world.emulator.end_batches()
    poll(world.root, now=True)
    with pytest.raises(UnfinishedRenamingError) as refused:
        collect_results(world.root, "old")
    assert refused.value.remedy == FinishRenaming("old", "new")
    assert not world.path("old").exists()
    rename(world.root, "old", "new")
    new = world.pipeline(name="new")
    world.finish(new)
    assert list(world.table(new)["result_type"]) == ["succeeded"] * 3


def test_what_was_stored_under_the_old_name_meanwhile_is_moved_after_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An earlier version collected under it, although the folder had the new name already."""
    world.emulator.settings(latency=3600)
    world.send(world.pipeline(texts(3), name="old"))
    interrupt(world, monkeypatch)
    world.emulator.end_batches()
    poll(world.root, now=True)
    with monkeypatch.context() as patched:
        patched.setattr(catch_up, "check_renaming", lambda *_: None)
        with suppress(MissingFileError):
            collect_results(world.root, "old")
    (stored,) = world.path("old").rglob("msgbatch_*.parquet")
    content = stored.read_bytes()
    rename(world.root, "old", "new")
    assert [path.read_bytes() for path in world.path("new").rglob("msgbatch_*.parquet")] == [content]
    assert not world.path("old").exists()
    new = world.pipeline(texts(3), name="new")
    world.run(new)
    assert list(world.table(new)["result_type"]) == ["succeeded"] * 3
    assert len(world.accepted_custom_ids()) == 3


@pytest.mark.parametrize("renamed", [("old", "new"), ("new", "old")])
def test_files_that_were_restored_from_before_a_renaming_get_either_name(
    world: World, renamed: tuple[str, str]
) -> None:
    world.emulator.settings(latency=3600)
    world.send(world.pipeline(texts(3), name="old"))
    shutil.copytree(world.path("old"), world.folder / "backup")
    rename(world.root, "old", "new")
    shutil.rmtree(world.path("new"))
    shutil.copytree(world.folder / "backup", world.path("old"))
    world.reopened()
    with pytest.raises(UnfinishedRenamingError):
        world.build(world.pipeline(texts(3), name="new"))
    assert rename(world.root, *renamed) == 1
    pipeline = world.pipeline(texts(3), name=renamed[1])
    assert world.build(pipeline).written == 0
    world.emulator.end_batches()
    world.finish(pipeline)
    assert len(world.accepted()) == 1


@pytest.mark.parametrize("damage", ["{", "gone"])
def test_a_damaged_manifest_of_a_replaced_submission_holds_back_nothing(
    world: World, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    world.run(world.pipeline(texts(2), name="old"))
    world.emulator.settings(latency=3600)
    world.send(world.pipeline(texts(4), name="old"))
    first = min(world.path("old").rglob("manifest.json"))
    first.write_text(damage)
    if damage == "gone":
        first.unlink()
    assert rename(world.root, "old", "new") == 2
    assert ("manifest.json" in caplog.text) is (damage != "gone")
    new = world.pipeline(texts(4), name="new")
    assert world.build(new).written == 0
    world.emulator.end_batches()
    world.finish(new)
    assert list(world.table(new)["result_type"]) == ["succeeded"] * 4


@pytest.mark.parametrize("is_killed", [False, True])
def test_an_unsent_build_under_the_new_name_is_dropped(
    world: World, monkeypatch: pytest.MonkeyPatch, is_killed: bool
) -> None:
    world.emulator.settings(latency=3600)
    world.send(world.pipeline(texts(3), name="old"))
    world.build(world.pipeline(texts(5), name="new"))
    collect_results(world.root, "new")
    if is_killed:
        interrupt(world, monkeypatch)
    assert rename(world.root, "old", "new") == 1
    assert len([*world.path("new").rglob("manifest.json")]) == 1
    new = world.pipeline(texts(3), name="new")
    assert world.build(new).written == 0
    world.emulator.end_batches()
    world.finish(new)
    assert list(world.table(new)["result_type"]) == ["succeeded"] * 3
    assert len(world.accepted_custom_ids()) == 3


def test_a_build_in_a_folder_with_other_files_is_not_dropped(world: World) -> None:
    world.run(world.pipeline(texts(3), name="old"))
    world.build(world.pipeline(texts(5), name="new"))
    (world.path("new") / "notes.txt").write_text("mine")
    with pytest.raises(RenameError, match=r"both have files, such as .*notes\.txt"):
        rename(world.root, "old", "new")
    assert len([*world.path("new").rglob("manifest.json")]) == 1


def test_an_empty_folder_under_the_new_name_is_no_obstacle(world: World) -> None:
    world.run(world.pipeline(texts(3), name="old"))
    (world.path("new") / "results").mkdir(parents=True)
    assert rename(world.root, "old", "new") == 1
    assert world.build(world.pipeline(texts(3), name="new")).written == 0


def test_files_under_the_new_name_are_kept_when_the_old_name_has_none(world: World) -> None:
    world.run(world.pipeline(texts(2), name="old"))
    shutil.rmtree(world.path("old"))
    world.path("old/requests").mkdir(parents=True)
    world.path("new").mkdir()
    (world.path("new") / "notes.txt").write_text("mine")
    rename(world.root, "old", "new")
    assert (world.path("new") / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("step", ["cp_file", "rm_file"])
def test_a_renaming_in_an_object_store_that_is_killed_between_two_files_is_finished_by_the_next(
    new_world: Callable[..., World], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Meanwhile both names have files, and those under the old one may be incomplete."""
    world = new_world(ledger=f"sqlite:///{tmp_path}/ledger.db", BATCH_ASSETS_ROOT="memory://renamed/data")
    memory = fsspec.filesystem("memory")
    try:
        world.build(world.pipeline(texts(2), name="new"))
        pipeline = world.pipeline(texts(3), name="old")
        world.send(pipeline)
        world.finish(pipeline)
        files = {
            path.removeprefix("/renamed/data/old"): memory.cat(path) for path in memory.find("/renamed/data/old")
        }
        original, calls = getattr(MemoryFileSystem, step), itertools.count()

        def killed(self: MemoryFileSystem, *arguments: str, **more: object) -> None:
            is_of_old = arguments[0].startswith("/renamed/data/old") and self.isfile(arguments[0])
            if is_of_old and next(calls) == 2:
                raise KeyboardInterrupt
            original(self, *arguments, **more)

        with monkeypatch.context() as patched:
            patched.setattr(MemoryFileSystem, step, killed)
            with pytest.raises(KeyboardInterrupt):
                rename(world.root, "old", "new")
        assert memory.find("/renamed/data/old") and memory.find("/renamed/data/new")
        rename(world.root, "old", "new")
        assert not memory.find("/renamed/data/old")
        moved = {
            path.removeprefix("/renamed/data/new"): memory.cat(path) for path in memory.find("/renamed/data/new")
        }
        assert moved.keys() == files.keys()
        assert {name for name in files if files[name] != moved[name]} == {
            name for name in files if name.endswith("manifest.json")
        }
        assert world.build(world.pipeline(texts(3), name="new")).written == 0
    finally:
        memory.rm("/renamed", recursive=True)
