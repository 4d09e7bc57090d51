"""The files of a remote root, in as few calls as possible: on an object store each call takes up to 0.2 seconds.

fsspec's own looks at a path take two calls if nothing is there, because an object store has no folders: the second
one asks whether other names begin with the path. Here a file is looked for by reading its first byte.
"""

from __future__ import annotations

import errno
import io
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any, BinaryIO, TypeVar, cast

from batch_assets.core.errors import StorageError
from batch_assets.core.io.file_systems import open_file_system
from batch_assets.core.urls import HIDDEN, secret_in

T = TypeVar("T")
AT_ONCE = 16
"""The number of calls side by side."""
# A file that was seen this many seconds ago is still there.
_RECENT = 10.0
# A file that is smaller is read in one call. Arrow reads ranges of a larger one, after a call for its size.
_SMALL = 4 << 20
_ALL = 1 << 50
_SHORTEST_SECRET = 8
_NO_RANGE = re.compile(r"\b416\b|range", re.IGNORECASE)
# Other processes write to the same root, so what was listed before says nothing about now.
_NO_CACHE = {"use_listings_cache": False}
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
        self._secrets = sorted(_secrets_in(dict(options or {})), key=len, reverse=True)
        self._fs, path = open_file_system(url, {**_NO_CACHE, **(options or {})})
        self.base: str = path.rstrip("/")
        self._seen: dict[str, float] = {}

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
            reason = f"{type(error).__name__}: {error}"
            for secret in self._secrets:
                reason = reason.replace(secret, HIDDEN)
            raise StorageError(
                f"{self.uri(path)} cannot be reached ({reason}). Check the credentials, the endpoint and the "
                "permissions of the store, and run again; nothing is lost"
            ) from None

    def read(self, path: str, most: int | None = None) -> bytes:
        """Read a file, or only this many bytes from its start.

        Raises:
            FileNotFoundError: When there is no file.
            StorageError: When it cannot be read.
        """
        with self._calling(path):
            content = read_start(self._fs, path, most)
        self._seen[path] = time.monotonic()
        return content

    def open(self, path: str) -> BinaryIO:
        """Open a file for reading. The file is seekable.

        Raises:
            FileNotFoundError: When there is no file.
            StorageError: When it cannot be read.
        """
        with self._calling(path):
            return open_file(self._fs, path)

    def is_file(self, path: str) -> bool:
        """Whether there is a file."""
        try:
            self.read(path, 1)
        except FileNotFoundError:
            return False
        return True

    def was_file(self, path: str) -> bool:
        """Whether there is a file, or was one at most ten seconds ago, when this process read or wrote it."""
        return time.monotonic() - self._seen.get(path, -_RECENT) < _RECENT or self.is_file(path)

    def size(self, path: str) -> int | None:
        """Return the size of a file in bytes; `None` if there is no file."""
        try:
            with self._calling(path):
                return int(self._fs.size(path))
        except FileNotFoundError:
            return None

    def names(self, folder: str) -> list[str]:
        """List the names of the files and folders in a folder, in any order."""
        return [name for name, _ in self._entries(folder)]

    def versions(self, folder: str) -> dict[str, str]:
        """List the files in a folder, each with its version: see `Storage.versions`."""
        return {name: _version_of(entry) for name, entry in self._entries(folder) if entry["type"] == "file"}

    def version(self, path: str) -> str | None:
        """Return the version of a file; `None` if there is no file."""
        try:
            with self._calling(path):
                return _version_of(self._fs.info(path))
        except FileNotFoundError:
            return None

    def _entries(self, folder: str) -> list[tuple[str, dict[str, Any]]]:
        try:
            with self._calling(folder):
                listed = self._fs.ls(folder, detail=True)
        except FileNotFoundError:
            return []
        paths = [(entry["name"].strip("/"), entry) for entry in listed]
        # Some file systems list a file as itself, and a folder as a part of itself.
        return [(path.rsplit("/", 1)[-1], entry) for path, entry in paths if path != folder.strip("/")]

    def find(self, folder: str) -> list[str]:
        """List the paths of all files in a folder and the folders in it."""
        with self._calling(folder):
            return [str(path) for path in self._fs.find(folder)]

    def put(self, source: str, path: str) -> None:
        """Upload a local file. It appears under its name when it is complete."""
        with self._calling(path):
            self._fs.put_file(source, path)
        self._seen[path] = time.monotonic()

    def create(self, path: str, content: bytes) -> bool:
        """Write a small file unless there is one, also if several processes do so at a time.

        A store that has no conditional writes is asked first, so there the last of several processes wins.

        Returns:
            Whether it was written.
        """
        with self._calling(path):
            try:
                self._fs.pipe_file(path, content, mode="create")
            except FileExistsError:
                return False
            except (NotImplementedError, OSError) as error:
                if isinstance(error, OSError) and error.errno != errno.ENOSYS:
                    raise
            else:
                return True
            if self.is_file(path):
                return False
            self._fs.pipe_file(path, content)
            return True

    def move(self, path: str, new: str) -> None:
        """Move a file, or a folder with its content. Does nothing if it does not exist.

        Everything is copied before anything is removed. After a kill in between, moving it again finishes it.
        """
        self._seen.clear()
        sources = [path] if self.is_file(path) else self.find(path)
        with self._calling(path):
            targets = [new + source.removeprefix(path) for source in sources]
            side_by_side([partial(self._fs.cp_file, *pair) for pair in zip(sources, targets, strict=True)])
            if sources:
                self._fs.rm(path, recursive=True)
        self._seen.clear()

    def remove(self, path: str) -> None:
        """Remove a file, or a folder with its content. Does nothing if it does not exist."""
        self._seen.clear()
        with self._calling(path):
            if self._fs.exists(path):
                self._fs.rm(path, recursive=True)


def _secrets_in(options: Any) -> Iterator[str]:
    """Yield the texts in options that errors do not repeat: all but short ones and URLs without a secret."""
    if isinstance(options, Mapping | list):
        for value in options.values() if isinstance(options, Mapping) else options:
            yield from _secrets_in(value)
    if isinstance(options, str):
        for part in options.split(";"):  # a connection string has several
            for text in {part, part.partition("=")[2]}:
                is_public = text.startswith(("http://", "https://")) and secret_in(text) is None
                if len(text) >= _SHORTEST_SECRET and not is_public:
                    yield text


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


def open_file(fs: Any, path: str) -> BinaryIO:
    """Open a remote file for reading. The file is seekable, and a small one is read in one call.

    Args:
        fs: The fsspec file system.
        path: The path in it.

    Raises:
        FileNotFoundError: When there is no file.
    """
    start = read_start(fs, path, _SMALL)
    return io.BytesIO(start) if len(start) < _SMALL else cast(BinaryIO, fs.open(path, "rb"))


def read_start(fs: Any, path: str, most: int | None) -> bytes:
    """Read this many bytes from the start of a remote file, in one call; `None` for all.

    Args:
        fs: The fsspec file system.
        path: The path in it.
        most: The number of bytes.

    Raises:
        FileNotFoundError: When there is no file.
    """
    try:
        return cast(bytes, fs.cat_file(path, start=0, end=most or _ALL))
    except FileNotFoundError:
        raise
    except Exception as error:
        # An empty file has no range. File systems differ in what they raise for it.
        if _NO_RANGE.search(str(error)) is None:
            raise
    return cast(bytes, fs.cat_file(path))[:most]


def _version_of(entry: dict[str, Any]) -> str:
    """Return the version of a file from what the store says about it."""
    known = (entry.get(name) for name in _VERSIONS)
    return f"{entry['size']}:{next((str(version) for version in known if version), '')}"
