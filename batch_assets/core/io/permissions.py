"""Permissions of what this project creates: files of rows are private, the table and its folders follow the umask.

What exists already keeps its permissions.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

PRIVATE_FOLDERS = ("requests", "responses", "calls", "watch", "erasures")
"""The folders of a pipeline with rows, answers, partition keys or hashes of row keys. All below is private."""

_FILE, _SHARED_FILE = 0o600, 0o660
_FOLDER, _SHARED_FOLDER = 0o700, 0o2770
# What a shared root adds to files and folders that follow the umask, so that runs of the group can replace them.
_GROUP_FILE, _GROUP_FOLDER = 0o060, 0o2070


def create_file(path: Path, *, private: bool, shared: bool = False) -> None:
    """Create an empty file.

    Args:
        path: The path.
        private: Only its owner may open it. Otherwise the umask decides.
        shared: The group may read and write it too, whatever the umask.

    Raises:
        FileExistsError: When the path exists.
    """
    wanted = (_SHARED_FILE if shared else _FILE) if private else 0o666
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, wanted)
    try:
        now = stat.S_IMODE(os.fstat(descriptor).st_mode)
        wanted = wanted if private else now | (_GROUP_FILE if shared else 0)
        if now != wanted:
            with suppress(OSError):  # a file system without permissions
                os.fchmod(descriptor, wanted)
    finally:
        os.close(descriptor)


def make_folders(folder: Path, *, private: Path | None = None, shared: bool = False) -> None:
    """Create a folder and those above it that do not exist.

    Args:
        folder: The folder.
        private: Only the owner may enter this folder and those below it. The umask decides about the others.
        shared: The group may enter and change them too, whatever the umask, and owns what is created in them.
    """
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for path in reversed(missing):
        _make_folder(path, private=private is not None and path.is_relative_to(private), shared=shared)


def _make_folder(path: Path, *, private: bool, shared: bool) -> None:
    wanted = (_SHARED_FOLDER if shared else _FOLDER) if private else 0o777
    try:
        path.mkdir(wanted)
    except FileExistsError:
        if path.is_dir():
            return  # another process was faster
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path)) from None
    now = stat.S_IMODE(path.stat().st_mode)
    wanted = wanted if private else now | (_GROUP_FOLDER if shared else 0)
    if (now & ~stat.S_ISGID) != wanted:  # the folder above may pass its group on
        with suppress(OSError):  # a file system without permissions
            path.chmod(wanted)


def too_open(root: Path, others: list[Path], *, shared: bool = False) -> list[Path]:
    """List files and folders of rows that other users of this machine can open.

    Files of earlier versions follow the umask.

    Args:
        root: The local root.
        others: More files and folders of the kind, such as the ledger.
        shared: The group may open them.
    """
    beyond = 0o007 if shared else 0o077
    return [path for path in [*_private_folders(root), *others] if _mode(path) & beyond]


def closed_to_group(root: Path, others: list[Path]) -> list[Path]:
    """List files and folders of rows that the group cannot use, because they are older than the shared root.

    Args:
        root: The local root.
        others: More files and folders of the kind, such as the ledger.
    """
    paths = [path for path in [*_private_folders(root), *others] if path.exists()]
    return [path for path in paths if _mode(path) & _GROUP_FILE != _GROUP_FILE]


def _private_folders(root: Path) -> Iterator[Path]:
    with suppress(OSError):
        for pipeline in sorted(entry.path for entry in os.scandir(root) if entry.is_dir()):
            yield from (path for name in PRIVATE_FOLDERS if (path := Path(pipeline, name)).is_dir())


def _mode(path: Path) -> int:
    try:
        return path.stat().st_mode
    except OSError:
        return 0
