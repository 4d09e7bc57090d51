"""Files of rows are private from their first byte, the table follows the umask, and what exists is not changed."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from batch_assets.cli.permissions import permission_problems
from batch_assets.core.errors import SettingsError, StorageError
from batch_assets.core.io import scratch
from batch_assets.core.io.permissions import closed_to_group, too_open
from batch_assets.core.io.storage import Storage
from batch_assets.core.ledger import Ledger
from batch_assets.core.settings import Settings
from batch_assets.emulator import private
from tests.forked import ForkServer

from ..support import World, texts


@contextlib.contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def modes_below(folder: Path) -> tuple[set[int], set[int]]:
    """The permissions of all folders and of all files."""
    paths = [folder, *folder.rglob("*")]
    return {mode(path) for path in paths if path.is_dir()}, {mode(path) for path in paths if path.is_file()}


def test_a_run_leaves_rows_to_their_owner_and_the_table_to_the_umask(world: World) -> None:
    with umask(0o022):
        pipeline = world.pipeline({**texts(4), "bad": ""}, batching={"max_requests": 2})
        mix = {"expired": 0.5, "first": 1}
        world.emulator.faults([{"match": {"method": "POST"}, "action": {"error_mix": mix}}])
        world.run(pipeline)
        world.root.storage.write_bytes(b"{}", "asked", "watch", "cursor.json")
        for name in ("requests", "responses", "watch"):
            assert modes_below(world.path("asked", name)) == ({0o700}, {0o600})
        assert modes_below(world.path("asked", "results")) == ({0o755}, {0o644})
        assert {mode(world.path()), mode(world.path("asked"))} == {0o755}
        ledger = list(world.path().glob("ledger.db*"))
        assert {path.name for path in ledger} == {"ledger.db", "ledger.db-wal", "ledger.db-shm"}
        assert {mode(path) for path in ledger} == {0o600}
    assert modes_below(world.emulator.state / "bodies") == ({0o700}, {0o600})
    assert {mode(path) for path in world.emulator.state.glob("emulator.db*")} == {0o600}
    assert list(permission_problems(world.root.settings)) == []


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o027, 0o077])
def test_a_scratch_file_is_private_before_it_has_a_byte(tmp_path: Path, mask: int) -> None:
    storage = Storage(str(tmp_path / "new" / "root"))
    with umask(mask), storage.write("p", "responses", "a.parquet") as path:
        assert (mode(path), mode(path.parent)) == (0o600, 0o700)
        path.write_bytes(b"row")
    assert mode(tmp_path / "new" / "root" / "p") == 0o777 & ~mask
    with umask(mask):
        storage.write_bytes(b"table", "p", "results", "partition=a", "results.parquet")
        storage.write_bytes(b"{}", "root.json")
    assert modes_below(tmp_path / "new" / "root" / "p" / "results") == ({0o777 & ~mask}, {0o666 & ~mask})
    assert mode(tmp_path / "new" / "root" / "root.json") == 0o666 & ~mask


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_the_group_can_work_on_a_shared_root_whatever_the_umask(tmp_path: Path, mask: int) -> None:
    root = tmp_path / "root"
    with umask(mask):
        storage = Storage(str(root), shared=True)
        storage.write_bytes(b"row", "p", "requests", "s", "part-00000.jsonl")
        storage.write_bytes(b"table", "p", "results", "results.parquet")
        ledger = Ledger(f"sqlite:///{root}/ledger.db", shared=True)
        with ledger.write():
            assert {mode(path) for path in root.glob("ledger.db*")} == {0o660}
        ledger.close()
    assert modes_below(root / "p" / "requests") == ({0o2770}, {0o660})
    assert modes_below(root / "p" / "results") == ({0o2070 | 0o777 & ~mask}, {0o060 | 0o666 & ~mask})
    assert mode(root) == mode(root / "p") == 0o2070 | 0o777 & ~mask
    assert too_open(root, [root / "ledger.db"], shared=True) == closed_to_group(root, [root / "ledger.db"]) == []


def test_a_folder_that_passes_its_group_on_is_no_reason_to_change_it(tmp_path: Path) -> None:
    tmp_path.chmod(0o2755)
    Storage(str(tmp_path)).write_bytes(b"row", "p", "requests", "a")
    assert mode(tmp_path / "p" / "requests") & 0o777 == 0o700


def test_what_exists_is_named_and_not_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The root of an earlier version, which followed the umask."""
    old = tmp_path / "it's old" / "p" / "requests" / "s"
    old.mkdir(parents=True)
    (old / "part-00000.jsonl").write_bytes(b"row")
    root = old.parents[2]
    folders = [root, *(path for path in root.rglob("*") if path.is_dir())]
    for path in folders:
        path.chmod(0o755)
    (old / "part-00000.jsonl").chmod(0o644)
    storage = Storage(str(root))
    storage.write_bytes(b"row", "p", "requests", "s", "part-00001.jsonl")
    storage.write_bytes(b"row", "p", "responses", "a.parquet")
    assert {mode(path) for path in folders} == {0o755}
    assert mode(old / "part-00000.jsonl") == 0o644
    assert mode(old / "part-00001.jsonl") == 0o600
    monkeypatch.chdir(tmp_path)
    settings = Settings.from_env({"BATCH_ASSETS_ROOT": str(root)})
    (problem,) = permission_problems(settings)
    assert problem.endswith(""": chmod -R go= 'it'"'"'s old/p/requests'""")
    shared = Settings.from_env({"BATCH_ASSETS_ROOT": str(root), "BATCH_ASSETS_SHARED": "group"})
    named = list(permission_problems(shared))
    assert len(named) == 2
    assert "chmod -R o= " in named[0]
    assert "p/responses" in named[1]
    assert "g+rwX" in named[1]


def test_a_file_in_place_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "p").write_bytes(b"")
    with pytest.raises(StorageError, match="There is a file where a folder should be"):
        Storage(str(tmp_path)).write_bytes(b"row", "p", "requests", "a")


@pytest.mark.parametrize(("text", "shared"), [("", False), ("group", True)])
def test_the_setting_is_group_or_nothing(text: str, shared: bool) -> None:
    assert Settings.from_env({"BATCH_ASSETS_SHARED": text}).shared is shared
    with pytest.raises(SettingsError, match="BATCH_ASSETS_SHARED is 'all': set it to group"):
        Settings.from_env({"BATCH_ASSETS_SHARED": "all"})


@pytest.mark.parametrize(("text", "expected"), [("", (0o700, 0o600)), ("group", (0o2770, 0o660))])
def test_the_state_of_the_emulator_is_private(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, expected: tuple[int, int]
) -> None:
    monkeypatch.setenv("BATCH_ASSETS_SHARED", text)
    with umask(0o077):
        private.make_private(tmp_path / "data" / "state")
        private.create_private(tmp_path / "data" / "state" / "body").close()
    assert (mode(tmp_path / "data" / "state"), mode(tmp_path / "data" / "state" / "body")) == expected
    (tmp_path / "data" / "state" / "body").chmod(0o644)
    private.create_private(tmp_path / "data" / "state" / "body").close()
    assert mode(tmp_path / "data" / "state" / "body") == 0o644


_WRITE = """
import signal
from batch_assets.core.io.storage import Storage
with Storage("memory://scratch/root").write("p", "requests", "a") as scratch:
    scratch.write_bytes(b"the text of a row")
    print(scratch, flush=True)
    signal.pause()
"""


def test_scratch_files_of_a_remote_root_are_private_and_go_with_the_next_run(
    tmp_path: Path, python: ForkServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    killed, alive = (python.start("-c", _WRITE, env=env) for _ in range(2))
    try:
        paths = [Path(child.stdout.readline().strip()) for child in (killed, alive)]
        for path in paths:
            assert path.read_bytes() == b"the text of a row"
            assert (mode(path), mode(path.parent)) == (0o600, 0o700)
        assert paths[0].parent != paths[1].parent
        killed.send_signal(signal.SIGKILL)
        killed.wait(30)
        assert paths[0].exists()
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        monkeypatch.setattr(scratch, "_own", None)
        Storage("memory://scratch/root").write_bytes(b"row", "p", "requests", "b")
        assert not paths[0].parent.exists()
        assert paths[1].exists()
    finally:
        killed.kill()
        alive.kill()
        alive.wait(30)


def test_a_removed_scratch_folder_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(scratch, "_own", None)
    first = scratch.scratch_folder()
    assert scratch.scratch_folder() == first
    (tmp_path / "batch-assets-scratch-file").write_bytes(b"of someone")
    (tmp_path / "batch-assets-scratch-link").symlink_to(tmp_path)
    first.rmdir()
    second = scratch.scratch_folder()
    assert second != first
    assert mode(second) == 0o700
    assert (tmp_path / "batch-assets-scratch-file").exists()
