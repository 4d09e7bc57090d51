"""Files under the root: whole or not there. Local folders and anything fsspec can reach."""

from __future__ import annotations

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
        if self.is_local:
            folder = Path(target).parent
            folder.mkdir(parents=True, exist_ok=True)
        else:
            folder = Path(tempfile.gettempdir())
        scratch = folder / f".{Path(target).name}.{secrets.token_hex(6)}.tmp"
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

    def read_bytes(self, *parts: str) -> bytes:
        """A small file's content; FileNotFoundError when it is not there."""
        return cast(bytes, self._fs.cat_file(self.path(*parts)))

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
