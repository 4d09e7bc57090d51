"""Files are complete or absent, keys cannot leave their folder, and all stages work on a remote root."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import fsspec
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import batch_assets
from batch_assets.core.errors import SettingsError
from batch_assets.core.io.storage import Storage, partition_folder
from batch_assets.core.settings import Settings

from ..support import World, texts


@pytest.fixture(params=["local", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    if request.param == "local":
        yield Storage(str(tmp_path / "root"))
        return
    yield Storage("memory://storage-tests/root")
    files = fsspec.filesystem("memory")
    if files.exists("/storage-tests"):
        files.rm("/storage-tests", recursive=True)


def test_a_file_appears_only_when_it_is_complete(storage: Storage) -> None:
    storage.write_bytes(b"old", "a", "b.txt")
    with storage.write("a", "b.txt") as scratch:
        scratch.write_bytes(b"half")
        assert storage.read_bytes("a", "b.txt") == b"old"
        assert storage.names("a") == ["b.txt"]
    assert storage.read_bytes("a", "b.txt") == b"half"


def test_a_file_is_on_disk_before_its_name_and_the_name_before_the_caller_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that loses power after a write has the old file or the whole new one."""
    steps: list[tuple[str, str]] = []
    fsync, replace = os.fsync, os.replace

    def recorded_fsync(descriptor: int) -> None:
        fsync(descriptor)
        steps.append(("synced", str(Path(f"/proc/self/fd/{descriptor}").readlink())))

    def recorded_replace(source: Any, target: Any) -> None:
        replace(source, target)
        steps.extend([("moved", str(source)), ("to", str(target))])

    storage = Storage(str(tmp_path / "root"))
    storage.write_bytes(b"old", "a", "b.txt")
    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(os, "replace", recorded_replace)
    with storage.write("a", "b.txt") as scratch:
        scratch.write_bytes(b"new")
    folder = tmp_path / "root" / "a"
    assert steps == [
        ("synced", str(scratch)),
        ("moved", str(scratch)),
        ("to", str(folder / "b.txt")),
        ("synced", str(folder)),
    ]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failed_write_keeps_the_old_file(storage: Storage, error: type[BaseException], tmp_path: Path) -> None:
    storage.write_bytes(b"old", "a", "b.txt")
    for name in ("b.txt", "c.txt"):
        with pytest.raises(error), storage.write("a", name) as scratch:
            scratch.write_bytes(b"half")
            raise error
    assert storage.names("a") == ["b.txt"]
    assert storage.read_bytes("a", "b.txt") == b"old"
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_missing_file_is_reported_as_missing(storage: Storage) -> None:
    assert not storage.exists("a")
    assert storage.names("a") == []
    storage.remove("a", "b")
    for read in (storage.read_bytes, storage.open):
        with pytest.raises(FileNotFoundError):
            read("a", "b")


def test_what_is_no_file_hides_no_file(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    storage.write_bytes(b"it", "a", "file")
    listed = storage.versions("a")
    (tmp_path / "a" / "folder").mkdir()
    (tmp_path / "a" / "nowhere").symlink_to(tmp_path / "gone")
    (tmp_path / "a" / "itself").symlink_to("itself")
    (tmp_path / "a" / "link").symlink_to("file")
    assert listed.items() <= storage.versions("a").items()
    assert [*storage.versions("a")] == ["file", "link"]
    for name in ("folder", "nowhere", "itself"):
        assert storage.size("a", name) is None
        assert not storage.is_file("a", name)
    assert storage.size("a", "link") == 2 and storage.is_file("a", "link")


def test_folders_are_removed_with_their_content(storage: Storage) -> None:
    for name in ("b/c", "b/d/e", "f"):
        storage.write_bytes(b"x", "a", name)
    assert storage.names("a") == ["b", "f"]
    storage.remove("a", "b")
    storage.remove("a", "f")
    assert storage.names("a") == []


@given(st.text(min_size=1))
def test_each_partition_key_is_one_path_segment_of_its_own(key: str) -> None:
    folder = partition_folder(key)
    assert folder.startswith("partition=")
    assert "/" not in folder
    assert "\\" not in folder
    assert "\0" not in folder
    assert unquote(folder.removeprefix("partition=")) == key


@pytest.mark.parametrize(
    "key", ["../../../escaped", "..", "/etc/escaped", "a/../../b", ".", "C:\\x", "ünï cödé %2F"]
)
def test_a_partition_key_cannot_leave_its_folder(world: World, key: str) -> None:
    pipeline = world.pipeline(texts(1))
    world.build(pipeline, key)
    world.submit(pipeline, key)
    world.finish(pipeline, key)
    (folder,) = world.path("asked", "results").iterdir()
    assert folder.is_dir()
    assert list(world.table(pipeline)["partition"]) == [key]
    assert not list(world.folder.rglob("escaped"))
    assert {path.name for path in world.path().iterdir()} - {"ledger.db-wal", "ledger.db-shm"} == {
        "asked",
        "ledger.db",
        "root.json",
    }


def test_all_stages_work_on_a_remote_root(new_world: Callable[..., World], tmp_path: Path) -> None:
    world = new_world(ledger=f"sqlite:///{tmp_path}/elsewhere/ledger.db", BATCH_ASSETS_ROOT="memory://bucket/data")
    files = fsspec.filesystem("memory")
    try:
        pipeline = world.pipeline(texts(12), batching={"max_requests": 5})
        mix = {"expired": 0.5, "first": 1}
        world.emulator.faults([{"match": {"method": "POST"}, "action": {"error_mix": mix}}])
        world.send(pipeline)
        done = world.finish(pipeline).results
        assert done is not None
        assert done.uri == "memory:///bucket/data/asked/results/results.parquet"
        table = pd.read_parquet("memory://bucket/data/asked/results/results.parquet")
        assert list(table["result_type"]) == ["succeeded"] * 12
        for row in table.itertuples():
            assert row.text in row.response_text
        world.build(world.pipeline(texts(13)))
        world.submit(pipeline)
        assert world.accepted()[-1]["requests"] == 1
        names = {name.rsplit("/", 1)[-1] for name in files.find("/bucket")}
        assert {"index.parquet", "manifest.json", "part-00000.jsonl", "part-00000.batch.json"} <= names
        assert not list(tmp_path.rglob("*.parquet"))
    finally:
        files.rm("/bucket", recursive=True)


def test_readers_never_see_half_a_table(world: World) -> None:
    """Results are written again and again while another thread reads them."""
    pipeline = world.pipeline(texts(50))
    world.run(pipeline)
    failures: list[Any] = []
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            try:
                assert len(world.table(pipeline)) == 50
            except Exception as error:
                failures.append(error)
                return

    thread = threading.Thread(target=read)
    thread.start()
    for _ in range(15):
        world.collect(pipeline)
    stop.set()
    thread.join()
    assert failures == []


def test_errors_of_settings_say_what_to_set(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="needs BATCH_ASSETS_LEDGER"):
        Settings.from_env({"BATCH_ASSETS_ROOT": "s3://bucket"})
    with pytest.raises(SettingsError, match="BATCH_ASSETS_RECONCILE_GRACE is 'soon'"):
        Settings.from_env({"BATCH_ASSETS_RECONCILE_GRACE": "soon"}, tmp_path)
    real = Settings.from_env({"ANTHROPIC_API_KEY": "x"}, tmp_path)
    assert (real.root, real.base_url) == (str(tmp_path / "data/output"), "https://api.anthropic.com")
    emulated = Settings.from_env({"BATCH_ASSETS_EMULATOR": "http://x/", "ANTHROPIC_API_KEY": "x"}, tmp_path)
    assert (emulated.root, emulated.base_url) == (str(tmp_path / "data/emulated"), "http://x")
    nothing = Settings.from_env({}, tmp_path)
    with pytest.raises(SettingsError, match=r"ANTHROPIC_API_KEY.*BATCH_ASSETS_EMULATOR"):
        nothing.require_endpoint()


def test_parquet_files_are_read_without_threads_of_arrow() -> None:
    """Arrow's own threads hold the Python file. One that is left when a process ends aborts it (exit code -6)."""
    package = Path(batch_assets.__file__).parent
    lines = [
        f"{path.relative_to(package)}: {line.strip()}"
        for path in package.rglob("*.py")
        for line in path.read_text("utf-8").splitlines()
        if "pq.ParquetFile(" in line and "pre_buffer=False" not in line
    ]
    # The first is what all others that give no such option go through; the second reads from memory.
    assert [line for line in lines if not line.startswith("core/io/parquet.py: ")] == []
