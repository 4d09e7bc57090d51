"""Files under the root: whole or not there. Local folders and anything fsspec can reach."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast
from urllib.parse import quote

import fsspec
from fsspec.implementations.local import LocalFileSystem

from batch_assets.core.errors import StorageError

# File systems take names of 255 bytes; our own file names are ASCII.
_SCRATCH_NAME = 200
# What keeps a file from being written, and what helps.
_FULL = "Free some space and run again"
_FORBIDDEN = "Make it writable for the user that runs this, and run again"
_REMEDIES = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: "Raise the limit on file sizes and run again",
    errno.EROFS: _FORBIDDEN,
    errno.EACCES: _FORBIDDEN,
    errno.EPERM: _FORBIDDEN,
    errno.EIO: "Look after the disk and run again",
    errno.ENOTDIR: "A file stands where a folder should be: move it away and run again",
    errno.EISDIR: "A folder stands where the file should be: move it away and run again",
    errno.ENAMETOOLONG: "The file system takes no name that long: choose a shorter one",
}

_WHILE_WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


@contextmanager
def writing(target: str | Path) -> Iterator[None]:
    """Says which path could not be written and what to do, where the system's own error names none.

    Errors:
        StorageError: in place of an OSError of the disk; one that names a file elsewhere is left as it is.
    """
    try:
        yield
    except OSError as error:
        remedy = _REMEDIES.get(error.errno or 0)
        if remedy is None or not _is_of(error, Path(target)):
            raise
        why = os.strerror(error.errno or 0)
        raise StorageError(f"{target} cannot be written: {why}. {remedy}; nothing is lost") from error


def _is_of(error: OSError, target: Path) -> bool:
    """Whether an error is about the target, a folder on the way to it, or a scratch file beside it."""
    if error.filename is not None:
        path = Path(str(error.filename))
        return path.parent == target.parent or target.is_relative_to(path)
    # A write names no file. Arrow's own errors name it in their text alone.
    return error.errno in _WHILE_WRITING or str(target.parent) in str(error)


def partition_folder(partition: str) -> str:
    """The path segment of a partition key, "" for none. Percent-encoded: a key can not leave its folder."""
    return f"partition={quote(partition, safe='')}" if partition else ""


class Storage:
    """The root of one project's data.

    A file becomes visible under its final name only when it is complete: locally it is written beside,
    fsynced and renamed; on an object store one complete PUT stands for that.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        filesystem, path = fsspec.core.url_to_fs(url)
        self._fs: Any = filesystem
        self._base: str = path.rstrip("/")
        self.is_local = isinstance(filesystem, LocalFileSystem)

    def path(self, *parts: str) -> str:
        """The full path of something under the root, as the file system spells it."""
        return "/".join([self._base, *(part for part in parts if part)])

    def uri(self, *parts: str) -> str:
        """The path with its protocol, for people and metadata; a plain path when local."""
        path = self.path(*parts)
        return path if self.is_local else str(self._fs.unstrip_protocol(path))

    @contextmanager
    def write(self, *parts: str) -> Iterator[Path]:
        """Yields a local path to write to; publishes it under the final name when the block succeeds."""
        target = self.path(*parts)
        with self.scratch_file(target) as scratch:
            yield scratch
            self.publish(scratch, target)

    @contextmanager
    def scratch_file(self, target: str) -> Iterator[Path]:
        """Yields a path for a file on its way to `target`, removed afterwards if it is still there."""
        folder = Path(target).parent if self.is_local else Path(tempfile.gettempdir())
        # However long the name is, that of the scratch file is one that file systems take.
        scratch = folder / f".{Path(target).name[:_SCRATCH_NAME]}.{secrets.token_hex(6)}.tmp"
        with writing(target):
            if self.is_local:
                folder.mkdir(parents=True, exist_ok=True)
            try:
                yield scratch
            finally:
                scratch.unlink(missing_ok=True)

    def publish(self, scratch: Path, target: str) -> None:
        """Makes a finished scratch file visible under its final name, durably."""
        if not self.is_local:
            self._fs.put_file(str(scratch), target)
            return
        with scratch.open("rb") as file:
            os.fsync(file.fileno())
        scratch.replace(target)
        _sync_folder(Path(target).parent)

    def write_bytes(self, content: bytes, *parts: str) -> None:
        """Writes a small file atomically."""
        with self.write(*parts) as scratch:
            scratch.write_bytes(content)

    def read_bytes(self, *parts: str, most: int | None = None) -> bytes:
        """A file's content, its first `most` bytes; FileNotFoundError when it is not there."""
        return cast(bytes, self._fs.cat_file(self.path(*parts), end=most))

    def open(self, *parts: str) -> BinaryIO:
        """Opens a file for reading, seekable; FileNotFoundError when it is not there."""
        return cast(BinaryIO, self._fs.open(self.path(*parts), "rb"))

    def exists(self, *parts: str) -> bool:
        return bool(self._fs.exists(self.path(*parts)))

    def names(self, *parts: str) -> list[str]:
        """Names of the files and folders in a folder, sorted, without those still being written."""
        folder = self.path(*parts)
        self._fs.invalidate_cache(folder)
        if not self._fs.isdir(folder):
            return []
        names = (entry.rstrip("/").rsplit("/", 1)[-1] for entry in self._fs.ls(folder, detail=False))
        return sorted(name for name in names if not name.startswith("."))

    def remove_leftovers(self, *folder: str, name: str = "") -> None:
        """Removes what a killed process left of a file, or of every file, that it was writing into a folder.

        The caller's lease says that nobody is writing there now.

        Args:
            name: of the file, or a pattern of names; all files when empty.
        """
        if self.is_local:
            for scratch in Path(self.path(*folder)).glob(f".{name}*.tmp"):
                scratch.unlink(missing_ok=True)

    def remove(self, *parts: str) -> None:
        """Removes a file or folder; nothing happens when it is not there."""
        path = self.path(*parts)
        if self.is_local:
            shutil.rmtree(path) if Path(path).is_dir() else Path(path).unlink(missing_ok=True)
        elif self._fs.exists(path):
            self._fs.rm(path, recursive=True)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
