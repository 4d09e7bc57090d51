"""Full disks, read-only roots, leftover files: the error explains it in a sentence, and the next run continues."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest

from batch_assets.core.batches.submit import submit_batches
from batch_assets.core.errors import StorageError
from batch_assets.core.io.parquet import TableWriter
from batch_assets.core.io.storage import Storage
from tests.forked import ForkServer

from .support import World, environment, texts

# Runs the stages with a limit on the size of files: a write beyond it fails, and is cut, as on a full disk.
_STAGES = """
import resource, sys, threading, time
from pathlib import Path
from batch_assets.core.results.run import collect_results
from batch_assets.core.errors import LedgerUnavailableError, StorageError
from batch_assets.core.batches.poll import poll
from batch_assets.core.requests.build import build_requests
from batch_assets.core.open_root import open_root
from batch_assets.core.root import Root
from batch_assets.core.batches.submit import submit_batches
from tests.core.support import make_pipeline
limit = int(sys.argv[1])
pipeline = make_pipeline(Path(sys.argv[2]), {"path": "rows.jsonl", "key": "id"}, batching={"max_requests": 900})
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
stage = "requests"
try:
    with open_root() as root:
        build_requests(root, pipeline)
        stage = "batches"
        submit_batches(root, "asked")
        stage = "results"
        end = time.monotonic() + 60
        while time.monotonic() < end:
            poll(root, now=True)
            if collect_results(root, "asked").results.final:
                stage = "done"
                break
except StorageError as error:
    print(stage, "StorageError", error)
except LedgerUnavailableError as error:
    print(stage, "ledger", error)
else:
    print(stage, "no error")
print([thread.name for thread in threading.enumerate() if thread.name.startswith("parquet")])
"""
# Drops the capabilities that let the root user write everywhere, then runs the command line.
_UNPRIVILEGED = """
import ctypes, sys
libc = ctypes.CDLL(None, use_errno=True)
header = (ctypes.c_uint32 * 2)(0x20080522, 0)
assert libc.capset(header, (ctypes.c_uint32 * 6)()) == 0
from batch_assets.core.open_root import open_root
from batch_assets.core.root import Root
from batch_assets.cli import main
main(sys.argv[1:])
"""
_COLLECTING = _UNPRIVILEGED.replace(
    "main(sys.argv[1:])",
    """
from batch_assets.core.results.run import collect_results
from batch_assets.core.settings import Settings
with open_root(Settings.from_env()) as root:
    collect_results(root, "asked")
""",
)


# Looks at a root with each of the commands, and as the dashboard does.
_LOOKING = _UNPRIVILEGED.replace(
    "main(sys.argv[1:])",
    """
from batch_assets.cli.what_next import waits_for
from batch_assets.core.settings import Settings
from batch_assets.dashboard.live import Live
from batch_assets.dashboard.state import Words
for command in (["status"], ["status", "--json"], ["spend"], ["list"]):
    main(command, standalone_mode=False)
live = Live(Settings.from_env(), Words(waits_for, lambda tx, snapshot: (), str, list))
look = live.look()
print("dashboard:", look.problem or look.names, live.spend(look) is not None)
live.root.close()
""",
)


def run_limited(world: World, limit: int, python: ForkServer) -> str:
    settings = world.root.settings
    env = os.environ | environment(world.emulator.url, settings.root, settings.ledger_url)
    env |= {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = python.python("-c", _STAGES, str(limit), str(world.folder), env=env, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "Exception ignored" not in done.stderr
    first, threads = done.stdout.splitlines()
    assert threads == "[]", "a writer thread is still running"
    return first


def long_rows(count: int) -> dict[str, str]:
    return {f"row-{at}": f"the text of row {at}: " + os.urandom(300).hex() for at in range(count)}


@pytest.mark.parametrize("limit", [20, 60_000, 110_000, 450_000])
def test_a_full_disk_loses_nothing_wherever_the_stage_is(world: World, python: ForkServer, limit: int) -> None:
    rows = long_rows(1000)
    pipeline = world.pipeline(rows, batching={"max_requests": 900})
    if limit > 100_000:  # the ledger exists before, or the disk is full when it is created
        _ = world.root.ledger
    world.root.close()
    outcome = run_limited(world, limit, python)
    if "StorageError" in outcome:
        assert str(world.path()) in outcome
        assert "cannot be written: File too large. Raise the limit" in outcome
    for path in world.path().rglob("*"):
        assert path.name.startswith(".") is False, f"{path} was left behind"
    world.reopened()
    world.build(pipeline)
    world.query("update lease set until = 0")
    world.submit(pipeline)
    world.finish(pipeline)
    table = world.table(pipeline)
    assert list(table["result_type"]) == ["succeeded"] * 1000
    assert list(table["id"]) == list(rows)
    assert set(Counter(world.accepted_custom_ids()).values()) == {1}, outcome


def test_a_receipt_that_cannot_be_written_does_not_lose_the_batch(world: World) -> None:
    pipeline = world.pipeline(texts(3))
    report = world.build(pipeline)
    receipt = world.submission_folder(pipeline, report) / "part-00000.batch.json"
    receipt.mkdir()
    with pytest.raises(StorageError, match=f"{receipt} cannot be written: Is a directory. There is a folder"):
        submit_batches(world.root, pipeline.name)
    (batch,) = world.accepted()
    assert world.query("select batch_id, state from request_file") == [(batch["id"], "submitted")]
    world.finish(pipeline)
    assert len(world.accepted()) == 1


def read_only(world: World, python: ForkServer, folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    before = folder.stat().st_mode
    folder.chmod(0o555)
    settings = world.root.settings
    env = os.environ | environment(world.emulator.url, settings.root, settings.ledger_url)
    try:
        return python.python("-c", _UNPRIVILEGED, *command, env=env, timeout=120)
    finally:
        folder.chmod(before)


def test_a_root_that_cannot_be_created_is_reported_in_a_sentence(world: World, python: ForkServer) -> None:
    done = read_only(world, python, world.folder, "run", "review_triage")
    assert done.returncode == 1
    path = world.path("ledger.db")
    assert done.stderr == (
        f"Error: {path} cannot be written: Permission denied. Make it writable for the user that runs this, "
        "and run again; nothing is lost\n"
    )


def test_a_root_that_became_read_only_is_reported_in_a_sentence(world: World, python: ForkServer) -> None:
    world.build(world.pipeline(texts(1)))
    world.root.close()
    done = read_only(world, python, world.path(), "run", "review_triage")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert str(world.path()) in done.stderr


@pytest.mark.parametrize("has_writer", [False, True])
def test_a_root_that_may_only_be_read_is_shown(world: World, python: ForkServer, has_writer: bool) -> None:
    world.run(world.pipeline(texts(2)))
    if not has_writer:
        world.root.close()
    ledger = world.path("ledger.db")
    assert ledger.with_name("ledger.db-wal").exists() == has_writer
    paths = [world.path(), *world.path().rglob("*")]
    modes = {path: path.stat().st_mode for path in paths}
    files = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in paths if path.is_file()}
    settings = world.root.settings
    env = os.environ | environment(world.emulator.url, settings.root, settings.ledger_url)
    try:
        for path in paths:
            path.chmod(0o555 if path.is_dir() else 0o444)
        done = python.python("-c", _LOOKING, env=env, timeout=120)
    finally:
        for path, mode in modes.items():
            path.chmod(mode)
    assert done.returncode == 0, done.stderr
    assert "nothing: complete since" in done.stdout and '"complete"' in done.stdout
    assert "so its table spend.parquet" in done.stderr and "asked" in done.stdout
    assert "1 batch at " in done.stdout and "1 of this root" in done.stdout
    assert "dashboard: ('asked',) True" in done.stdout
    assert {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in files} == files
    assert set(world.path().rglob("*")) == {*paths} - {world.path()}


def test_a_file_that_may_not_be_read_is_named_and_not_set_aside(world: World, python: ForkServer) -> None:
    pipeline = world.pipeline(texts(1))
    world.run(pipeline)
    (stored,) = world.path("asked", "responses").iterdir()
    world.path("asked", "results", "results.parquet").unlink()  # otherwise it would not be read
    world.root.close()
    before = stored.stat().st_mode
    stored.chmod(0)
    try:
        settings = world.root.settings
        env = os.environ | environment(world.emulator.url, settings.root, settings.ledger_url)
        done = python.python("-c", _COLLECTING, env=env, timeout=120)
    finally:
        stored.chmod(before)
    assert f"StorageError: {stored} cannot be read: Permission denied. Make it readable" in done.stderr
    assert [path.name for path in stored.parent.iterdir()] == [stored.name]


def test_leftovers_are_ignored_and_removed_by_the_next_run(world: World) -> None:
    pipeline = world.pipeline(texts(3))
    world.emulator.settings(latency=3600)
    world.send(pipeline)
    folders = [path for path in [world.path(), *world.path().rglob("*")] if path.is_dir()]
    ((batch_id,),) = world.query("select id from batch")
    (world.path("asked", "responses")).mkdir()
    (world.path("asked", "results")).mkdir(exist_ok=True)
    mine = [
        world.path("asked", "responses", f".{batch_id}.parquet.0123456789ab.tmp"),
        world.path("asked", "results", ".results.parquet.0123456789ab.tmp"),
    ]
    others = [folder / ".part-00000.jsonl.0123456789ab.tmp" for folder in folders]
    for path in [*mine, *others]:
        path.write_bytes(b"half")
    world.emulator.end_batches()
    world.finish(pipeline)
    assert list(world.table(pipeline)["result_type"]) == ["succeeded"] * 3
    assert not [path for path in mine if path.exists()]
    world.build(world.pipeline(texts(4)))
    assert world.files(pipeline)[-1].requests == 1


def test_a_failed_write_in_the_writers_thread_is_raised(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    schema = pa.schema([("a", pa.string())])
    with pytest.raises(ValueError, match="schema"), storage.write("a.parquet") as scratch:  # noqa: SIM117
        with TableWriter(scratch, schema) as writer:
            writer.write(pa.table({"b": ["x"]}))
            writer.write(pa.table({"a": ["x"]}))
    assert list(tmp_path.iterdir()) == []
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("parquet")]


def test_a_folder_in_the_place_of_a_response_file_is_set_aside(world: World) -> None:
    pipeline = world.pipeline(texts(3))
    (batch_id,) = world.send(pipeline).submitted
    stored = world.path("asked", "responses", f"{batch_id}.parquet")
    (stored / "in the way").mkdir(parents=True)
    world.finish(pipeline)
    assert list(world.table(pipeline)["result_type"]) == ["succeeded"] * 3
    assert stored.is_file()
    assert (stored.with_name(f"{stored.name}.damaged") / "in the way").is_dir()


def test_a_table_that_cannot_be_put_in_place_is_written_by_the_next_run(world: World) -> None:
    pipeline = world.pipeline(texts(3))
    world.send(pipeline)
    blocked = world.path("asked", "results", "results.parquet")
    (blocked / "in the way").mkdir(parents=True)
    with pytest.raises(StorageError, match=r"results\.parquet cannot be written: .* run again"):
        world.collect(pipeline)
    (blocked / "in the way").rmdir()
    blocked.rmdir()
    world.finish(pipeline)
    assert list(world.table(pipeline)["result_type"]) == ["succeeded"] * 3
    assert len(world.accepted_custom_ids()) == 3
    assert not list(world.path().rglob("*.tmp"))
