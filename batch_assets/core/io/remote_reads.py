"""Reads of files of an object store, in as few calls as possible."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, BinaryIO, cast

# A file that is smaller is read in one call. Arrow reads ranges of a larger one, after a call for its size.
_SMALL = 4 << 20
_ALL = 1 << 50
_NO_RANGE = re.compile(r"\b416\b|range", re.IGNORECASE)


class GuardedFile(io.RawIOBase):
    """An open file, each read of which is guarded: it may be a call to the store, which may fail.

    Args:
        file: The file.
        guard: Makes a context manager that replaces errors.
    """

    def __init__(self, file: Any, guard: Callable[[], AbstractContextManager[None]]) -> None:
        self._file, self._guard = file, guard

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        with self._guard():
            return cast(bytes, self._file.read(size))

    def readall(self) -> bytes:
        return self.read()

    def readinto(self, buffer: Any, /) -> int:
        with self._guard():
            return cast(int, self._file.readinto(buffer))

    def readline(self, size: int | None = -1, /) -> bytes:
        with self._guard():
            return cast(bytes, self._file.readline(-1 if size is None else size))

    def seek(self, offset: int, origin: int = io.SEEK_SET, /) -> int:
        with self._guard():
            self._file.seek(offset, origin)
        return self.tell()

    def tell(self) -> int:
        return cast(int, self._file.tell())

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


def open_file(fs: Any, path: str) -> BinaryIO:
    """Open a file of an object store for reading. The file is seekable, and a small one is read in one call.

    Args:
        fs: The fsspec file system.
        path: The path in it.

    Raises:
        FileNotFoundError: When there is no file.
    """
    start = read_start(fs, path, _SMALL)
    return io.BytesIO(start) if len(start) < _SMALL else cast(BinaryIO, fs.open(path, "rb"))


def read_start(fs: Any, path: str, most: int | None) -> bytes:
    """Read this many bytes from the start of a file of an object store, in one call; `None` for all.

    Args:
        fs: The fsspec file system.
        path: The path in it.
        most: The number of bytes.

    Raises:
        FileNotFoundError: When there is no file.
    """
    try:
        # Without a range, s3fs asks for the size first.
        return cast(bytes, fs.cat_file(path, start=0, end=_ALL if most is None else most))
    except FileNotFoundError:
        raise
    except Exception as error:
        # An empty file has no range. File systems differ in what they raise for it.
        if _NO_RANGE.search(str(error)) is None:
            raise
    return cast(bytes, fs.cat_file(path))[:most]
