"""Errors about a file of the machine, as errors that name it and say what to do."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from batch_assets.core.errors import StorageError

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
def reading(path: str) -> Iterator[None]:
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
