"""Files under the root, in a local folder or anywhere fsspec can reach. A file is either complete or absent."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from stat import S_ISREG
from typing import Any, BinaryIO, cast
from urllib.parse import quote

import fsspec
from fsspec.implementations.local import LocalFileSystem

from batch_assets.core.errors import StorageError
from batch_assets.core.io.permissions import PRIVATE_FOLDERS, create_file, make_folders
from batch_assets.core.io.scratch import scratch_folder

# File systems allow names of 255 bytes. The file names of this project are ASCII.
_SCRATCH_NAME = 200
# What the user can do, by the reason why a file could not be written.
_FULL = "Free some space and run again"
_FORBIDDEN = "Make it writable for the user that runs this, and run again"
_REMEDIES = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: "Raise the limit on file sizes and run again",
    errno.EROFS: _FORBIDDEN,
    errno.EACCES: _FORBIDDEN,
    errno.EPERM: _FORBIDDEN,
    errno.EIO: "Check the disk and run again",
    errno.ENOTDIR: "There is a file where a folder should be: move it away and run again",
    errno.EISDIR: "There is a folder where the file should be: move it away and run again",
    errno.ENAMETOOLONG: "The file system does not allow names that long: choose a shorter one",
}

# What the file systems of fsspec call the version of a file's content, or the time of its last change.
_VERSIONS = (
    *("ETag", "etag", "generation", "md5Hash", "LastModified", "last_modified", "mtime", "updated", "created"),
)
# What is in the place of a file, by the reason why it cannot be read.
_NO_FILE = {
    errno.EISDIR: "a folder is in its place",
    errno.ELOOP: "it is a link that leads to itself",
    errno.ENOTDIR: "a file is in the place of its folder",
}
_WHILE_WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def why_no_file(error: OSError) -> str | None:
    """Return what is in the place of a file that could not be read, as a clause; `None` for any other error."""
    return _NO_FILE.get(error.errno or 0)


@contextmanager
def _reading(path: str) -> Iterator[None]:
    """Replace the error of a file that may not be read by one that names it and says what to do."""
    try:
        yield
    except PermissionError as error:
        raise StorageError(
            f"{path} cannot be read: {os.strerror(errno.EACCES)}. Make it readable for the user that runs this, "
            "and run again; nothing is lost"
        ) from error


@contextmanager
def writing(target: str | Path) -> Iterator[None]:
    """Replace an OSError by an error that names the path and says what to do.

    Args:
        target: The path that the block writes.

    Raises:
        StorageError: In place of an OSError about the target. Errors about other files are raised unchanged.
    """
    try:
        yield
    except OSError as error:
        remedy = _REMEDIES.get(error.errno or 0)
        if remedy is None or not _is_about(error, Path(target)):
            raise
        why = os.strerror(error.errno or 0)
        raise StorageError(f"{target} cannot be written: {why}. {remedy}; nothing is lost") from error


def _is_about(error: OSError, target: Path) -> bool:
    """Whether an error is about the target, one of its parent folders, or a scratch file beside it."""
    if error.filename is not None:
        path = Path(str(error.filename))
        return path.parent == target.parent or target.is_relative_to(path)
    # The error of a write has no file name. Arrow's errors have it only in their text.
    return error.errno in _WHILE_WRITING or str(target.parent) in str(error)


PARTITION_FOLDER = "partition="
"""The start of the folder name of a partition."""


def partition_folder(partition: str) -> str:
    """Return the folder name of a partition key; "" without a key. Percent-encoding makes it a single folder."""
    return f"{PARTITION_FOLDER}{quote(partition, safe='')}" if partition else ""


class Storage:
    """The root of one project's data.

    A file becomes visible under its final name only when it is complete. Locally it is written to a scratch file
    in the same folder, fsynced and renamed. On an object store, one complete PUT has the same effect.

    Only the owner can open the files and folders that it creates for requests and responses. The umask decides
    about the others.

    Args:
        url: A local folder or an fsspec URL.
        shared: The group can read and write all of them too.

    Attributes:
        url: As given.
        is_local: Whether the root is a local folder.
    """

    def __init__(self, url: str, *, shared: bool = False) -> None:
        self.url = url
        self._shared = shared
        filesystem, path = fsspec.core.url_to_fs(url)
        self._fs: Any = filesystem
        self._base: str = path.rstrip("/")
        self.is_local = isinstance(filesystem, LocalFileSystem)

    def path(self, *parts: str) -> str:
        """The full path of a file or folder under the root, in the form that the file system uses."""
        return "/".join([self._base, *(part for part in parts if part)])

    def uri(self, *parts: str) -> str:
        """The path with its protocol, for texts and metadata; a plain path if the root is local."""
        path = self.path(*parts)
        return path if self.is_local else str(self._fs.unstrip_protocol(path))

    @contextmanager
    def write(self, *parts: str) -> Iterator[Path]:
        """Yield a local scratch file to write to, and publish it under its final name if the block succeeds.

        Raises:
            StorageError: When the file cannot be written.
        """
        target = self.path(*parts)
        with self.scratch_file(target) as scratch:
            yield scratch
            self.publish(scratch, target)

    @contextmanager
    def scratch_file(self, target: str) -> Iterator[Path]:
        """Yield the path of a scratch file for `target`. It is removed afterwards if it was not published.

        Raises:
            StorageError: When the file cannot be written.
        """
        # However long the name of the target, the name of the scratch file stays within the limit.
        name = f".{Path(target).name[:_SCRATCH_NAME]}.{secrets.token_hex(6)}.tmp"
        with writing(target):
            if self.is_local:
                scratch = self._folder_of(target) / name
                private = self._private_above(target) is not None
                create_file(scratch, private=private, shared=self._shared)
            else:
                scratch = scratch_folder() / name
                create_file(scratch, private=True)
            try:
                yield scratch
            finally:
                scratch.unlink(missing_ok=True)

    def _folder_of(self, target: str) -> Path:
        """Return the folder of a local file, and create it if it does not exist."""
        folder = Path(target).parent
        make_folders(folder, private=self._private_above(target), shared=self._shared)
        return folder

    def _private_above(self, target: str) -> Path | None:
        """Return the private folder that a local path is in; `None` if it is in none."""
        base = Path(self._base)
        pipeline, *parts = Path(target).relative_to(base).parts
        return base / pipeline / parts[0] if parts and parts[0] in PRIVATE_FOLDERS else None

    def publish(self, scratch: Path, target: str) -> None:
        """Make a finished scratch file visible under its final name, durably."""
        if not self.is_local:
            self._fs.put_file(str(scratch), target)
            return
        with scratch.open("rb") as file:
            os.fsync(file.fileno())
        scratch.replace(target)
        _sync_folder(Path(target).parent)

    def write_bytes(self, content: bytes, *parts: str) -> None:
        """Write a small file atomically.

        Raises:
            StorageError: When the file cannot be written.
        """
        with self.write(*parts) as scratch:
            scratch.write_bytes(content)

    def read_bytes(self, *parts: str, most: int | None = None) -> bytes:
        """Read a file.

        Args:
            parts: The path of the file under the root.
            most: Read only this many bytes from the start; `None` for the whole file.

        Raises:
            FileNotFoundError: When the file does not exist.
            StorageError: When it may not be read.
        """
        with _reading(self.uri(*parts)):
            return cast(bytes, self._fs.cat_file(self.path(*parts), end=most))

    def open(self, *parts: str) -> BinaryIO:
        """Open a file for reading. The file is seekable.

        Raises:
            FileNotFoundError: When the file does not exist.
            StorageError: When it may not be read.
        """
        with _reading(self.uri(*parts)):
            return cast(BinaryIO, self._fs.open(self.path(*parts), "rb"))

    def exists(self, *parts: str) -> bool:
        return bool(self._fs.exists(self.path(*parts)))

    def is_file(self, *parts: str) -> bool:
        """Whether there is a file: no folder, and no link that leads nowhere."""
        return bool(self._fs.isfile(self.path(*parts)))

    def size(self, *parts: str) -> int | None:
        """Return the size of a file in bytes; `None` if there is no file."""
        path = self.path(*parts)
        try:
            if self.is_local:
                stat = Path(path).stat()
                return stat.st_size if S_ISREG(stat.st_mode) else None
            return int(self._fs.size(path))
        except OSError as error:
            if _is_absent(error):
                return None
            raise

    def names(self, *parts: str) -> list[str]:
        """List the names of the files and folders in a folder, sorted, without scratch files."""
        folder = self.path(*parts)
        if self.is_local:
            try:
                local = os.listdir(folder)  # noqa: PTH208  # faster for thousands of files
                return sorted([name for name in local if not name.startswith(".")])
            except (FileNotFoundError, NotADirectoryError):
                return []
        self._fs.invalidate_cache(folder)
        if not self._fs.isdir(folder):
            return []
        names = (entry.rstrip("/").rsplit("/", 1)[-1] for entry in self._fs.ls(folder, detail=False))
        return sorted(name for name in names if not name.startswith("."))

    def versions(self, *parts: str) -> dict[str, str]:
        """List the files in a folder, without scratch files, each with its version. One listing says all of it.

        Folders, and links that lead nowhere, are left out.

        A version begins with the size and a colon. What follows differs for any other content: the ETag of an
        object store, or the time of the change and the number of the inode of a local file.
        """
        folder = self.path(*parts)
        if self.is_local:
            with suppress(FileNotFoundError), os.scandir(folder) as entries:
                return dict(sorted(_versions_of(entry for entry in entries if not entry.name.startswith("."))))
            return {}
        self._fs.invalidate_cache(folder)
        try:
            listed = self._fs.ls(folder, detail=True)
        except FileNotFoundError:
            return {}
        files = {entry["name"].rsplit("/", 1)[-1]: entry for entry in listed if entry["type"] == "file"}
        return {name: _version_of(files[name]) for name in sorted(files) if not name.startswith(".")}

    def version(self, *parts: str) -> str | None:
        """Return the version of a file, as `versions` does; `None` if it does not exist.

        A file that was listed just now costs an object store no further call.
        """
        path = self.path(*parts)
        try:
            if self.is_local:
                return _local_version(Path(path).stat())
            return _version_of(self._fs.info(path))
        except OSError as error:
            if _is_absent(error):
                return None
            raise

    def remove_leftovers(self, *folder: str, name: str = "") -> None:
        """Remove the scratch files that killed processes left in a folder.

        The caller must hold the lease on the folder, so that no other process is writing there.

        Args:
            folder: The path of the folder under the root.
            name: The name of the file that was being written, or a pattern of names; "" for all.
        """
        if self.is_local:
            for scratch in Path(self.path(*folder)).glob(f".{name}*.tmp"):
                scratch.unlink(missing_ok=True)

    def all_files(self, *folder: str) -> list[tuple[str, ...]]:
        """List the paths of all files under the root or a folder, in parts from the root, with scratch files."""
        top = self.path(*folder)
        self._fs.invalidate_cache(top)
        paths = self._fs.find(top) if self._fs.isdir(top) else []
        return sorted(tuple(path.removeprefix(self._base).strip("/").split("/")) for path in paths)

    def leftovers(self, *folder: str) -> list[str]:
        """List the names of the scratch files in a folder, which processes are writing or killed ones left."""
        return sorted(path.name for path in Path(self.path(*folder)).glob(".*.tmp")) if self.is_local else []

    def rename(self, parts: tuple[str, ...], new: tuple[str, ...]) -> None:
        """Rename a file or a folder, replacing what has the new name. Does nothing if it does not exist."""
        source, target = self.path(*parts), self.path(*new)
        if self.is_local:
            with writing(target), suppress(FileNotFoundError):
                folder = self._folder_of(target)
                if Path(source).is_dir():
                    self.remove(*new)
                Path(source).replace(target)
                _sync_folder(folder)
        elif self._fs.exists(source):
            self._fs.mv(source, target, recursive=True)

    def remove(self, *parts: str) -> None:
        """Remove a file or a folder with its content. Does nothing if it does not exist."""
        path = self.path(*parts)
        if self.is_local:
            shutil.rmtree(path) if Path(path).is_dir() else Path(path).unlink(missing_ok=True)
        elif self._fs.exists(path):
            self._fs.rm(path, recursive=True)


def _versions_of(entries: Iterable[os.DirEntry[str]]) -> Iterator[tuple[str, str]]:
    for entry in entries:
        try:
            stat = entry.stat()
        except OSError as error:
            if not _is_absent(
                error
            ):  # otherwise a link that leads nowhere, or another process has just renamed it
                raise
        else:
            if S_ISREG(stat.st_mode):
                yield entry.name, _local_version(stat)


def _is_absent(error: OSError) -> bool:
    return isinstance(error, FileNotFoundError) or why_no_file(error) is not None


def _local_version(stat: os.stat_result) -> str:
    return f"{stat.st_size}:{stat.st_mtime_ns}-{stat.st_ino}"


def _version_of(entry: dict[str, Any]) -> str:
    """Return the version of a file from what an object store lists of it."""
    known = (entry.get(name) for name in _VERSIONS)
    return f"{entry['size']}:{next((str(version) for version in known if version), '')}"


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
