"""What the system says about files in a local folder."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from stat import S_ISREG

from batch_assets.core.io.file_errors import why_no_file


def names_of(folder: str) -> set[str]:
    """Return the names of the files in a folder, without scratch files. The system is asked only about links."""
    names: set[str] = set()
    with suppress(FileNotFoundError), os.scandir(folder) as entries:  # in one pass: there may be thousands
        names = {
            entry.name
            for entry in entries
            if entry.name[0] != "." and (entry.is_file(follow_symlinks=False) or _is_link_to_file(entry))
        }
    return names


def hidden_names(folder: str, pattern: str) -> list[str]:
    """Return the names in a folder that match a pattern and begin with a dot. There may be thousands of others."""
    with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
        return fnmatch.filter([name for name in os.listdir(folder) if name[0] == "."], pattern)  # noqa: PTH208
    return []


def versions_of(folder: str) -> dict[str, str]:
    """Return the version of each file in a folder, without scratch files, by name and in order of names."""
    versions = {}
    for entry in _entries(folder):
        stat = _stat_of(entry)
        if stat is not None and S_ISREG(stat.st_mode):
            versions[entry.name] = _version(stat)
    return dict(sorted(versions.items()))


def version_of(path: str) -> str | None:
    """Return the version of a file; `None` if it does not exist."""
    stat = _stat_of(Path(path))
    return None if stat is None else _version(stat)


def size_of(path: str) -> int | None:
    """Return the size of a file in bytes; `None` if there is no file."""
    stat = _stat_of(Path(path))
    return stat.st_size if stat is not None and S_ISREG(stat.st_mode) else None


def _entries(folder: str) -> Iterator[os.DirEntry[str]]:
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        yield from (entry for entry in entries if not entry.name.startswith("."))


def _is_link_to_file(entry: os.DirEntry[str]) -> bool:
    stat = _stat_of(entry) if entry.is_symlink() else None
    return stat is not None and S_ISREG(stat.st_mode)


def _stat_of(entry: Path | os.DirEntry[str]) -> os.stat_result | None:
    """Return what the system says about a file; `None` for a link that leads nowhere, or if there is no file."""
    try:
        return entry.stat()
    except OSError as error:
        if isinstance(error, FileNotFoundError) or why_no_file(error) is not None:
            return None
        raise


def _version(stat: os.stat_result) -> str:
    return f"{stat.st_size}:{stat.st_mtime_ns}-{stat.st_ino}"
