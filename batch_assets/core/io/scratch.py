"""Scratch files outside the root, in a folder that only this process and its user can open.

A killed process leaves its folder behind. The next process that needs one removes it.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import shutil
import stat
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

_PREFIX = "batch-assets-scratch-"
_lock = threading.Lock()


@dataclass(frozen=True)
class _Folder:
    """A folder and the lock that shows that its process is alive. The system releases the lock of a dead process.

    Attributes:
        path: The folder.
        descriptor: The open folder, locked.
        process: The id of the process.
    """

    path: Path
    descriptor: int
    process: int

    @property
    def is_usable(self) -> bool:
        """Whether it belongs to this process, not to the one that it was forked from, and still exists."""
        return self.process == os.getpid() and os.fstat(self.descriptor).st_nlink > 0 and self.path.is_dir()


_own: _Folder | None = None


def scratch_folder() -> Path:
    """Return this process's folder for scratch files. The first call removes those of dead processes.

    Raises:
        OSError: When it cannot be created.
    """
    global _own
    with _lock:
        if _own is None or not _own.is_usable:
            _remove_abandoned()
            _own = _create()
        return _own.path


def _create() -> _Folder:
    while True:
        path = Path(tempfile.mkdtemp(prefix=_PREFIX))  # mode 0700
        try:
            descriptor = _locked(path)
        except FileNotFoundError:
            continue
        # Another process may have removed it before it was locked.
        if descriptor is not None and os.fstat(descriptor).st_nlink > 0 and path.is_dir():
            folder = _Folder(path, descriptor, os.getpid())
            atexit.register(_remove, folder)
            return folder
        if descriptor is not None:
            os.close(descriptor)


def _remove_abandoned() -> None:
    for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        try:
            entry = path.lstat()
            if entry.st_uid != os.geteuid() or not stat.S_ISDIR(entry.st_mode):
                continue
            descriptor = _locked(path)
        except OSError:  # another process removes it
            continue
        if descriptor is not None:
            shutil.rmtree(path, ignore_errors=True)
            os.close(descriptor)


def _locked(path: Path) -> int | None:
    """Open and lock a folder; `None` if a living process has it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _remove(folder: _Folder) -> None:
    if folder.process == os.getpid():
        shutil.rmtree(folder.path, ignore_errors=True)


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)
