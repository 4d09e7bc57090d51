"""Scratch files: nothing is left of them, and a full disk is named."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from pathlib import Path

import pytest

from batch_assets.core.io import scratch
from batch_assets.core.io.scratch_file import ScratchFile
from tests.forked import ForkServer

_WRITE = """
import signal, sys
from batch_assets.core.io.scratch_file import ScratchFile
file = ScratchFile()
file.append(bytes(100_000))
print(len(file.read(0, 100_000)), flush=True)
signal.pause()
"""
_FULL = """
import resource
from batch_assets.core.errors import StorageError
from batch_assets.core.io.scratch_file import ScratchFile
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
file = ScratchFile()
try:
    file.append(bytes(2000))
except StorageError as error:
    print(error)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(scratch, "_own", None)
    return tmp_path


def files_of(folder: Path) -> list[Path]:
    """The scratch files that have a name. An unnamed one is gone when its process is."""
    return [path for path in folder.rglob("*") if path.is_file()]


def open_files() -> int:
    return sum(1 for _ in Path("/dev/fd").iterdir())


def test_what_was_written_is_read(folder: Path) -> None:
    file = ScratchFile()
    assert [file.append(content) for content in (b"abc", b"", b"defg")] == [0, 3, 3]
    assert (file.read(0, 3), file.read(2, 4), file.read(7, 0)) == (b"abc", b"cdef", b"")
    assert files_of(folder) == []


def test_the_file_is_closed_with_its_object(folder: Path) -> None:
    before = open_files()
    first, second = ScratchFile(), ScratchFile()
    assert open_files() == before + 3  # with the locked folder
    first.close()
    del second
    assert open_files() == before + 1


def test_nothing_is_left_of_a_killed_process(folder: Path, python: ForkServer) -> None:
    killed = python.start("-c", _WRITE, env={**os.environ, "TMPDIR": str(folder)})
    try:
        assert killed.stdout.readline().strip() == "100000"
        killed.send_signal(signal.SIGKILL)
        killed.wait(30)
    finally:
        killed.kill()
    (left,) = folder.iterdir()
    assert files_of(folder) == []
    ScratchFile().append(b"of the next process")
    assert not left.exists()


def test_a_full_disk_is_named(folder: Path, python: ForkServer) -> None:
    env = {**os.environ, "TMPDIR": str(folder), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = python.python("-c", _FULL, env=env, timeout=60)
    assert done.stdout.startswith(str(folder)), done.stderr
    assert "cannot be written: File too large. Raise the limit on file sizes and run again" in done.stdout
