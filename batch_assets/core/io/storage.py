"""Files under the root, in a local folder or anywhere fsspec can reach. A file is either complete or absent."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast
from urllib.parse import quote

from fsspec.implementations.local import LocalFileSystem

from batch_assets.core.errors import SettingsError
from batch_assets.core.io import local_files
from batch_assets.core.io.file_errors import reading, writing
from batch_assets.core.io.object_store import AT_ONCE, ObjectStore, side_by_side
from batch_assets.core.io.option_secrets import without_options
from batch_assets.core.io.permissions import PRIVATE_FOLDERS, create_file, make_folders
from batch_assets.core.io.scratch import scratch_folder
from batch_assets.core.settings import Settings

T = TypeVar("T")
U = TypeVar("U")
# File systems allow names of 255 bytes. The file names of this project are ASCII.
_SCRATCH_NAME = 200
_LOCAL = ("file://", "local://")
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
        options: Arguments of a remote file system.

    Attributes:
        url: As given.
        is_local: Whether the root is a local folder.

    Raises:
        SettingsError: When the package for a remote root is not installed, or its scheme is unknown.
    """

    def __init__(self, url: str, *, shared: bool = False, options: Mapping[str, Any] | None = None) -> None:
        self.url = url
        self._shared = shared
        self.is_local = "://" not in url or url.startswith(_LOCAL)
        self._fs: Any = LocalFileSystem()
        self._store = None if self.is_local else _opened(url, options)
        local: str = LocalFileSystem._strip_protocol(url) if self._store is None else self._store.base
        self._base = local.rstrip("/")

    @classmethod
    def of(cls, settings: Settings) -> Storage:
        """Return the storage of the settings' root.

        Raises:
            SettingsError: See the class.
        """
        return cls(settings.root, shared=settings.shared, options=settings.storage_options)

    def path(self, *parts: str) -> str:
        """The full path of a file or folder under the root, in the form that the file system uses."""
        return "/".join([self._base, *(part for part in parts if part)])

    def uri(self, *parts: str) -> str:
        """The path with its protocol, for texts and metadata; a plain path if the root is local."""
        path = self.path(*parts)
        return path if self._store is None else self._store.uri(path)

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

    @contextmanager
    def write_all(self, *files: tuple[str, ...], beside: Callable[[], None] | None = None) -> Iterator[list[Path]]:
        """Like `write` for several files, which are published side by side.

        Args:
            files: The path of each under the root.
            beside: Called beside that; locally after it.

        Raises:
            StorageError: When a file cannot be written.
        """
        targets = [self.path(*parts) for parts in files]
        with ExitStack() as stack:
            scratches = [stack.enter_context(self.scratch_file(target)) for target in targets]
            yield scratches
            pairs = zip(scratches, targets, strict=True)
            calls: list[Callable[[], None]] = [partial(self.publish, *pair) for pair in pairs]
            self.together([*calls, *([beside] if beside is not None else [])])

    def together(self, calls: Sequence[Callable[[], T]]) -> list[T]:
        """Make calls side by side if they go to an object store, where each waits; else one after the other.

        Returns:
            What they return, in their order.
        """
        return [call() for call in calls] if self.is_local else side_by_side(calls)

    def each(self, call: Callable[[U], T], items: Sequence[U]) -> Iterator[tuple[U, T]]:
        """Yield each item with what a call returns for it, in order. Some calls at a time are made `together`."""
        at_once = 1 if self.is_local else AT_ONCE
        for start in range(0, len(items), at_once):
            some = items[start : start + at_once]
            yield from zip(some, self.together([partial(call, item) for item in some]), strict=True)

    def both(self, first: Callable[[], T], second: Callable[[], U]) -> tuple[T, U]:
        """Make two calls, see `together`."""
        calls: list[Callable[[], Any]] = [first, second]
        one, other = self.together(calls)
        return one, other

    def publish(self, scratch: Path, target: str) -> None:
        """Make a finished scratch file visible under its final name, durably."""
        if self._store is not None:
            self._store.put(str(scratch), target)
            return
        with scratch.open("rb") as file:
            os.fsync(file.fileno())
        folder = self._folder_of(target)
        scratch.replace(target)
        _sync_folder(folder)

    def write_bytes(self, content: bytes, *parts: str) -> None:
        """Write a small file atomically.

        Raises:
            StorageError: When the file cannot be written.
        """
        with self.write(*parts) as scratch:
            scratch.write_bytes(content)

    def create_bytes(self, content: bytes, *parts: str) -> bool:
        """Write a small file atomically unless there is one, which is left as it is.

        An object store decides that itself, even between processes. Locally, the caller must hold a lease or a
        lock that keeps other processes from writing the file.

        Returns:
            Whether it was written.

        Raises:
            StorageError: When the file cannot be written.
        """
        if self._store is not None:
            return self._store.create(self.path(*parts), content)
        if self.is_file(*parts):
            return False
        self.write_bytes(content, *parts)
        return True

    def read_bytes(self, *parts: str, most: int | None = None) -> bytes:
        """Read a file.

        Args:
            parts: The path of the file under the root.
            most: Read only this many bytes from the start; `None` for the whole file.

        Raises:
            FileNotFoundError: When the file does not exist.
            StorageError: When it may not be read.
        """
        with reading(self.uri(*parts)):
            if self._store is not None:
                return self._store.read(self.path(*parts), most)
            return cast(bytes, self._fs.cat_file(self.path(*parts), end=most))

    def open(self, *parts: str) -> BinaryIO:
        """Open a file for reading. The file is seekable.

        Raises:
            FileNotFoundError: When the file does not exist.
            StorageError: When it may not be read.
        """
        with reading(self.uri(*parts)):
            if self._store is not None:
                return self._store.open(self.path(*parts))
            return cast(BinaryIO, self._fs.open(self.path(*parts), "rb"))

    def exists(self, *parts: str) -> bool:
        """Whether there is a file. Locally also whether there is something else, such as a folder."""
        if self._store is not None:
            return self._store.is_file(self.path(*parts))
        return bool(self._fs.exists(self.path(*parts)))

    def is_file(self, *parts: str) -> bool:
        """Whether there is a file: no folder, and no link that leads nowhere."""
        if self._store is not None:
            return self._store.is_file(self.path(*parts))
        return bool(self._fs.isfile(self.path(*parts)))

    def were_files(self, files: Sequence[tuple[str, ...]]) -> list[bool]:
        """Whether each of several files exists, for a look at many files that are not removed one by one.

        One that this process read or wrote within the last ten seconds is not looked for in an object store.
        """
        is_file = self.is_file if self._store is None else self._was_file
        return self.together([partial(is_file, *parts) for parts in files])

    def _was_file(self, *parts: str) -> bool:
        return self._store is not None and self._store.was_file(self.path(*parts))

    def is_blocked(self, *parts: str) -> bool:
        """Whether something that is no file is in the place of a file. On an object store nothing can be."""
        return self.is_local and self.exists(*parts) and not self.is_file(*parts)

    def size(self, *parts: str) -> int | None:
        """Return the size of a file in bytes; `None` if there is no file."""
        path = self.path(*parts)
        if self._store is not None:
            return self._store.size(path)
        return local_files.size_of(path)

    def names(self, *parts: str) -> list[str]:
        """List the names of the files and folders in a folder, sorted, without scratch files."""
        folder = self.path(*parts)
        if self._store is not None:
            listed = self._store.names(folder)
        else:
            try:
                listed = os.listdir(folder)  # noqa: PTH208  # faster for thousands of files
            except (FileNotFoundError, NotADirectoryError):
                return []
        return sorted(name for name in listed if not name.startswith("."))

    def file_names(self, *parts: str) -> set[str]:
        """Return the names of the files that `versions` lists, which takes much longer in a local folder."""
        if self._store is not None:
            return {name for name in self._store.versions(self.path(*parts)) if not name.startswith(".")}
        return local_files.names_of(self.path(*parts))

    def versions(self, *parts: str) -> dict[str, str]:
        """List the files in a folder, without scratch files, each with its version. One listing says all of it.

        Folders, and links that lead nowhere, are left out.

        A version begins with the size and a colon. What follows differs for any other content: the ETag of an
        object store, or the time of the change and the number of the inode of a local file.
        """
        folder = self.path(*parts)
        if self._store is not None:
            listed = self._store.versions(folder)
            return {name: listed[name] for name in sorted(listed) if not name.startswith(".")}
        return local_files.versions_of(folder)

    def version(self, *parts: str) -> str | None:
        """Return the version of a file, as `versions` does; `None` if it does not exist."""
        path = self.path(*parts)
        if self._store is not None:
            return self._store.version(path)
        return local_files.version_of(path)

    def remove_leftovers(self, *folder: str, name: str = "") -> None:
        """Remove the scratch files that killed processes left in a folder.

        The caller must hold the lease on the folder, so that no other process is writing there.

        Args:
            folder: The path of the folder under the root.
            name: The name of the file that was being written, or a pattern of names; "" for all.
        """
        if self.is_local:
            for scratch in local_files.hidden_names(self.path(*folder), f".{name}*.tmp"):
                Path(self.path(*folder, scratch)).unlink(missing_ok=True)

    def all_files(self, *folder: str) -> list[tuple[str, ...]]:
        """List the paths of all files under the root or a folder, in parts from the root, with scratch files."""
        top = self.path(*folder)
        if self._store is not None:
            paths = self._store.find(top)
        else:
            paths = self._fs.find(top) if Path(top).is_dir() else []
        return sorted(tuple(path.removeprefix(self._base).strip("/").split("/")) for path in paths)

    def names_below(self, *folder: str) -> Callable[..., list[str]]:
        """Return what lists the folders in a folder, as `names` does.

        An object store is listed once, with all files in the folder: thousands of folders would be as many calls.
        """
        if self.is_local:
            return self.names
        listed: dict[tuple[str, ...], set[str]] = {}
        for parts in self.all_files(*folder):
            for depth in range(len(folder), len(parts)):
                listed.setdefault(parts[:depth], set()).add(parts[depth])
        return lambda *parts: sorted(
            name for name in listed.get(tuple(filter(None, parts)), ()) if not name.startswith(".")
        )

    def leftovers(self, *folder: str) -> list[str]:
        """List the names of the scratch files in a folder, which processes are writing or killed ones left."""
        return sorted(path.name for path in Path(self.path(*folder)).glob(".*.tmp")) if self.is_local else []

    def rename(self, parts: tuple[str, ...], new: tuple[str, ...]) -> None:
        """Rename a file or a folder, replacing what has the new name. Does nothing if it does not exist."""
        source, target = self.path(*parts), self.path(*new)
        if self._store is not None:
            self._store.move(source, target)
            return
        with writing(target), suppress(FileNotFoundError):
            folder = self._folder_of(target)
            if Path(source).is_dir():
                self.remove(*new)
            Path(source).replace(target)
            _sync_folder(folder)

    def remove(self, *parts: str) -> None:
        """Remove a file or a folder with its content. Does nothing if it does not exist."""
        path = self.path(*parts)
        if self._store is not None:
            self._store.remove(path)
        else:
            shutil.rmtree(path) if Path(path).is_dir() else Path(path).unlink(missing_ok=True)


def _opened(url: str, options: Mapping[str, Any] | None) -> ObjectStore:
    try:
        return ObjectStore(url, options)
    except Exception as error:  # file systems differ in what they raise
        is_plain = isinstance(error, ImportError | ValueError)
        reason = without_options(str(error) if is_plain else f"{type(error).__name__}: {error}", options)
        raise SettingsError(f"the root {url} cannot be opened: {reason}") from None


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
