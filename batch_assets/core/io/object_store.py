"""The files of a remote root, in as few calls as possible: on an object store each call takes up to 0.2 seconds.

fsspec's own looks at a path take two calls if nothing is there, because an object store has no folders: the second
one asks whether other names begin with the path. Here a file is looked for by reading its first byte. Other file
systems, such as SFTP, do have folders, and are asked as fsspec asks them.
"""

from __future__ import annotations

import errno
import io
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, BinaryIO, TypeVar, cast

from batch_assets.core.errors import StorageError
from batch_assets.core.io.file_systems import has_folder_marks, has_prefixes, is_object_store, open_file_system
from batch_assets.core.io.option_secrets import without_options
from batch_assets.core.io.remote_reads import GuardedFile, open_file, read_start

T = TypeVar("T")
AT_ONCE = 16
"""The number of calls side by side."""
# A file that was seen this many seconds ago is still there.
_RECENT = 10.0
# The seconds to wait before a conditional write is tried again, because another one was under way.
_WAITS = (0.1, 0.2)
_CONFLICT = re.compile(r"\b409\b|Conflict")
# What Azure says of a bucket that does not exist.
_NO_CONTAINER = "ContainerNotFound"
# How often the files of a folder are looked for and removed until there are none.
_TURNS = 3
# What file systems call the version of a file's content, or the time of its last change.
_VERSIONS = (
    *("ETag", "etag", "generation", "md5Hash", "LastModified", "last_modified", "mtime", "updated", "created"),
)


class ObjectStore:
    """An object store, or another remote file system of fsspec.

    Args:
        url: An fsspec URL.
        options: Arguments of the file system.

    Attributes:
        base: The path of the URL in the file system, without a slash at the end.
    """

    def __init__(self, url: str, options: Mapping[str, Any] | None = None) -> None:
        self._options = dict(options or {})
        self._fs, path = open_file_system(url, options, keeps_listings=False)
        self._is_object_store = is_object_store(self._fs)
        self.base: str = path.rstrip("/")
        self._seen: dict[str, float] = {}
        self._lists_by_prefix = has_prefixes(self._fs)

    def uri(self, path: str) -> str:
        """The path with its protocol."""
        return str(self._fs.unstrip_protocol(path))

    @contextmanager
    def _calling(self, path: str) -> Iterator[None]:
        """Replace an error of the file system by one that names the path. Its text shows no secret."""
        try:
            yield
        except (FileNotFoundError, FileExistsError, StorageError):
            raise
        except Exception as error:
            reason = without_options(f"{type(error).__name__}: {error}", self._options)
            checked = "the credentials, the endpoint and the permissions of the store"
            if isinstance(error, TypeError):  # an argument that the file system does not have, or of another type
                checked = "the arguments in BATCH_ASSETS_STORAGE_OPTIONS or in fsspec's variables"
            elif self._options:
                checked = f"BATCH_ASSETS_STORAGE_OPTIONS, {checked}"
            raise StorageError(
                f"{self.uri(path)} cannot be reached ({reason}). Check {checked}, and run again; nothing is lost"
            ) from None

    @contextmanager
    def _writing(self, path: str) -> Iterator[None]:
        """Like `_calling` for a write, which finds no file if there is no bucket."""
        with self._calling(path):
            try:
                yield
            except Exception as error:
                if not isinstance(error, FileNotFoundError) and _NO_CONTAINER not in str(error):
                    raise
                reason = without_options(str(error).partition("\n")[0], self._options)
                raise StorageError(
                    f"{self.uri(path)} cannot be written ({reason}). Create the bucket, or change the root, "
                    "and run again; nothing is lost"
                ) from None

    @contextmanager
    def _reading_on(self, path: str) -> Iterator[None]:
        """Like `_calling` for an open file, which may also be gone since."""
        with self._calling(path):
            try:
                yield
            except FileNotFoundError:
                raise StorageError(f"{self.uri(path)} was removed while it was read; run again") from None

    def _look(self) -> None:
        """Prepare a look at a file system that remembers what it listed: other processes write to it too."""
        if not self._is_object_store:
            self._fs.invalidate_cache()

    def read(self, path: str, most: int | None = None) -> bytes:
        """Read a file, or only this many bytes from its start.

        Raises:
            FileNotFoundError: When there is no file.
            StorageError: When it cannot be read.
        """
        with self._calling(path):
            if self._is_object_store:
                content = read_start(self._fs, path, most)
            else:
                content = self._fs.cat_file(path, **({} if most is None else {"end": most}))
        self._seen[path] = time.monotonic()
        return content

    def open(self, path: str) -> BinaryIO:
        """Open a file for reading. The file is seekable.

        Raises:
            FileNotFoundError: When there is no file.
            StorageError: When it cannot be read.
        """
        with self._calling(path):
            file = open_file(self._fs, path) if self._is_object_store else self._fs.open(path, "rb")
        is_read = isinstance(file, io.BytesIO)
        return file if is_read else cast(BinaryIO, GuardedFile(file, partial(self._reading_on, path)))

    def is_file(self, path: str) -> bool:
        """Whether there is a file. An empty one may be the mark of a folder, so there the store is asked."""
        if not self._is_object_store:
            return self._info(path) is not None
        try:
            is_file = bool(self.read(path, 1)) or self._info(path) is not None
        except FileNotFoundError:
            return False
        if not is_file:
            self._seen.pop(path, None)
        return is_file

    def _info(self, path: str) -> dict[str, Any] | None:
        """What the file system says about a file; `None` if there is no file."""
        self._look()
        try:
            with self._calling(path):
                info: dict[str, Any] = self._fs.info(path)
        except FileNotFoundError:
            return None
        return info if info["type"] == "file" else None

    def was_file(self, path: str) -> bool:
        """Whether there is a file, or was one at most ten seconds ago, when this process read or wrote it."""
        return time.monotonic() - self._seen.get(path, -_RECENT) < _RECENT or self.is_file(path)

    def size(self, path: str) -> int | None:
        """Return the size of a file in bytes; `None` if there is no file."""
        info = self._info(path)
        return None if info is None else int(info["size"])

    def names(self, folder: str) -> list[str]:
        """List the names of the files and folders in a folder, in any order."""
        return [*{name: None for name, _ in self._entries(folder)}]

    def versions(self, folder: str) -> dict[str, str]:
        """List the files in a folder, each with its version: see `Storage.versions`."""
        entries = self._entries(folder, with_hidden_files=True)
        return {name: _version_of(entry) for name, entry in entries if entry["type"] == "file"}

    def version(self, path: str) -> str | None:
        """Return the version of a file; `None` if there is no file."""
        info = self._info(path)
        return None if info is None else _version_of(info)

    def _entries(self, folder: str, *, with_hidden_files: bool = False) -> list[tuple[str, dict[str, Any]]]:
        self._look()
        try:
            with self._calling(folder):
                listed = self._listed(folder, with_hidden_files=with_hidden_files)
        except FileNotFoundError:
            return []
        paths = [(entry["name"].strip("/"), entry) for entry in listed]
        # Some file systems list a file as itself, and a folder as a part of itself.
        return [(path.rsplit("/", 1)[-1], entry) for path, entry in paths if path != folder.strip("/")]

    def _listed(self, folder: str, *, with_hidden_files: bool) -> list[dict[str, Any]]:
        """List a folder. On S3, an empty one takes one call: `ls` then lists all of the folder above it.

        Args:
            folder: The path of the folder.
            with_hidden_files: Also list files that have the name of a folder beside them, which `find` hides.
        """
        above, _, name = folder.rpartition("/")
        if self._lists_by_prefix and above:
            try:
                of_prefix = self._fs.find(above, maxdepth=1, withdirs=True, detail=True, prefix=f"{name}/")
            except ValueError:  # earlier versions of s3fs do not know these arguments together
                self._lists_by_prefix = False
            else:
                entries = [*of_prefix.values()]
                if not (with_hidden_files and any(entry["type"] == "directory" for entry in entries)):
                    return entries
        listed: list[dict[str, Any]] = self._fs.ls(folder, detail=True)
        return listed

    def find(self, folder: str) -> list[str]:
        """List the paths of all files in a folder and the folders in it."""
        self._look()
        with self._calling(folder):
            return [str(path) for path in self._fs.find(folder)]

    def put(self, source: str, path: str) -> None:
        """Upload a local file. It appears under its name when it is complete."""
        with self._writing(path):
            self._fs.put_file(source, path)
        self._seen[path] = time.monotonic()

    def create(self, path: str, content: bytes) -> bool:
        """Write a small file unless there is one, also if several processes do so at a time.

        A store that has no conditional writes is asked first, so there the last of several processes wins.

        Returns:
            Whether it was written. False also if the store did not say so, and a file is there now.

        Raises:
            StorageError: When it cannot be written.
        """
        for wait in (*_WAITS, None) if self._is_object_store else ():
            try:
                with self._writing(path):
                    was_written = self._create(path, content)
            except StorageError as error:
                # Stores differ in how they say that there is a file, and a reply may be lost.
                if self._is_there(path):
                    return False
                if wait is None or _CONFLICT.search(str(error)) is None:
                    raise
                time.sleep(wait)
            else:
                if was_written is None:
                    break
                return was_written
        if self.is_file(path):
            return False
        with self._writing(path):
            if not self._is_object_store:
                self._fs.makedirs(path.rpartition("/")[0], exist_ok=True)
            self._fs.pipe_file(path, content)
        return True

    def _create(self, path: str, content: bytes) -> bool | None:
        """Make a conditional write. Returns whether it was done; `None` if the store has none."""
        try:
            self._fs.pipe_file(path, content, mode="create")
        except FileExistsError:
            return False
        except (NotImplementedError, OSError) as error:
            if isinstance(error, OSError) and error.errno != errno.ENOSYS:
                raise
            return None
        return True

    def _is_there(self, path: str) -> bool:
        try:
            return self.is_file(path)
        except StorageError:
            return False

    def move(self, path: str, new: str) -> None:
        """Move a file, or a folder with its content. Does nothing if it does not exist.

        Everything is copied before anything is removed, and only what was copied is removed. After a kill in
        between, moving it again finishes it.

        Raises:
            StorageError: When something cannot be copied or removed.
        """
        if not self._is_object_store:
            self._seen.clear()
            with self._calling(path):
                if self._fs.exists(path):
                    self._fs.mv(path, new, recursive=True)
            return
        self._until_none_is_left(path, lambda source: new + source.removeprefix(path))

    def remove(self, path: str) -> None:
        """Remove a file, or a folder with its content. Does nothing if it does not exist.

        Raises:
            StorageError: When something cannot be removed.
        """
        if not self._is_object_store:
            self._seen.clear()
            with self._calling(path):
                if self._fs.exists(path):
                    self._fs.rm(path, recursive=True)
            return
        self._until_none_is_left(path)

    def _until_none_is_left(self, path: str, target_of: Callable[[str], str] | None = None) -> None:
        """Remove all files at a path, each by its name, and look again. With targets, copy all of them first.

        Deleting many names in one call would be shorter, but s3fs does not report the names that S3 refuses.
        """
        for _ in range(_TURNS):
            files = self._files_at(path)
            self._seen.clear()  # also of what was just looked for
            with self._calling(path):
                if target_of is not None:
                    side_by_side([partial(self._fs.cp_file, file, target_of(file)) for file in files])
                side_by_side([partial(self._remove_file, file) for file in files])
            # An error of a single file has been raised. On Azure, adlfs finds nothing in a folder that is a file.
            if not files or (files == [path] and not has_folder_marks(self._fs)):
                break
        else:
            if left := self._files_at(path):
                names = ", ".join(map(self.uri, left[:3]))
                raise StorageError(
                    f"{names} cannot be removed: {len(left):,} files are still there. Check that the store lets "
                    "this user delete, and run again; nothing is lost"
                )
        self._remove_folder_marks(path)

    def _files_at(self, path: str) -> list[str]:
        """The path if it is a file, and the files in it if it is a folder. In an object store it can be both."""
        found, is_file = side_by_side([partial(self.find, path), partial(self._only_if_file, path)])
        return [*is_file, *(file for file in found if file.startswith(f"{path}/"))]

    def _only_if_file(self, path: str) -> list[str]:
        return [path] if self.is_file(path) else []

    def _remove_file(self, path: str) -> None:
        with suppress(FileNotFoundError):  # another process was faster
            self._fs.rm_file(path)

    def _remove_folder_marks(self, path: str) -> None:
        """Remove the empty blobs that are folders on Azure. One with something in it stays."""
        if not has_folder_marks(self._fs):
            return
        with self._calling(path):
            entries = {**self._fs.find(path, withdirs=True, detail=True)}
            with suppress(FileNotFoundError):
                entries[path] = self._fs.info(path)
        folders = [name for name, entry in entries.items() if entry["type"] == "directory"]
        for folder in sorted(folders, key=len, reverse=True):
            with suppress(Exception), self._calling(folder):
                self._remove_file(folder)


def side_by_side(calls: Sequence[Callable[[], T]]) -> list[T]:
    """Make calls in threads, because they mostly wait.

    Returns:
        What they return, in their order. The first error is raised once all have ended.
    """
    if len(calls) < 2:
        return [call() for call in calls]
    with ThreadPoolExecutor(min(len(calls), AT_ONCE)) as pool:
        futures = [pool.submit(call) for call in calls]
    return [future.result() for future in futures]


def _version_of(entry: dict[str, Any]) -> str:
    """Return the version of a file from what the store says about it."""
    known = (entry.get(name) for name in _VERSIONS)
    # Some stores give an ETag in quotes for one file, and without them in a listing.
    version = next((str(version).strip('"') for version in known if version), "")
    return f"{entry['size']}:{version}"
