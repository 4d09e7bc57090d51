"""The files that a path of the pipeline stands for: a file, a folder or a glob, local or any fsspec URL."""

from __future__ import annotations

import hashlib
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from batch_assets.core.errors import DatasetError

GLOB = frozenset("*?[")
"""What makes a part of a path a pattern."""
_SHOWN_NEIGHBOURS = 20
# What file systems of fsspec know of a file that changes with it: local ones, S3, Google's, Azure's.
_SIGNS = ("size", "mtime", "LastModified", "ETag", "updated", "last_modified", "etag")


class LocatedFiles:
    """A path and what lies there.

    Args:
        path: as the pipeline gives it.
        project: what a relative path is relative to.

    Attributes:
        fs: the fsspec file system.
        is_folder: whether the path is one folder, to be read with all that is below it.
        folder: the folder itself, or the one that a file or the part of a glob without wildcards lies in.
    """

    def __init__(self, path: str, project: Path) -> None:
        self.path = path
        url = path if "://" in path else str(project / path)
        self.fs, self._root = fsspec.core.url_to_fs(url)
        self.fs.invalidate_cache()  # or a process sees what lay there when it looked first
        self._is_file = bool(self.fs.isfile(self._root))
        self.is_folder = not self._is_file and bool(self.fs.isdir(self._root))
        self.folder: str = self._root.rstrip("/") if self.is_folder else self._fixed_folder()

    def _fixed_folder(self) -> str:
        parts = self._root.split("/")[:-1]
        fixed = next((at for at, part in enumerate(parts) if GLOB & set(part)), len(parts))
        return "/".join(parts[: len(parts) if self._is_file else fixed])

    def sizes(self) -> dict[str, int]:
        """Name -> bytes of every file, in path order, without hidden ones.

        Errors:
            DatasetError: there is neither file nor folder, nor is it a glob.
        """
        return {name: int(info.get("size") or 0) for name, info in self.found().items()}

    def found(self) -> dict[str, dict[str, Any]]:
        """Name -> what fsspec knows of it, of every file, in path order, without hidden ones.

        Errors:
            DatasetError: see `sizes`.
        """
        if self._is_file:
            return {self._root: self.fs.info(self._root)}
        if self.is_folder:
            found = self.fs.find(self._root, detail=True)
        elif GLOB & set(self._root):
            found = self.fs.glob(self._root, detail=True)
        else:
            raise DatasetError(f"there is no file or folder {self.path}{self._neighbours()}")
        return {
            name: found[name]
            for name in sorted(found)
            if found[name]["type"] == "file" and not self._is_hidden(name)
        }

    def relative(self, name: str) -> str:
        """A file's path within the folder."""
        return name[len(self.folder) :].lstrip("/")

    def _is_hidden(self, name: str) -> bool:
        return any(part.startswith(".") for part in self.relative(name).split("/"))

    def _neighbours(self) -> str:
        parent = self._root.rstrip("/").rsplit("/", 1)[0]
        if not self.fs.isdir(parent):
            return f"; nor is there a folder {parent}"
        names = sorted(entry.rsplit("/", 1)[-1] for entry in self.fs.ls(parent, detail=False))
        names = [name for name in names[:_SHOWN_NEIGHBOURS] if not name.startswith(".")]
        return f"; beside it: {', '.join(names) or 'nothing'}"

    def read(self, name: str) -> bytes:
        """A file within the folder.

        Args:
            name: its path there, with `/`.

        Errors:
            ValueError: there is no such file, or it lies outside.
        """
        relative = PurePosixPath(name)
        if relative.is_absolute() or ".." in relative.parts or "\0" in name:
            raise ValueError(f"{name!r} lies outside the dataset's folder")
        path = f"{self.folder}/{relative}"
        if isinstance(self.fs, LocalFileSystem):
            resolved = Path(path).resolve()
            if not resolved.is_relative_to(Path(self.folder).resolve()):
                raise ValueError(f"{name!r} lies outside the dataset's folder")
        if not self.fs.isfile(path):
            raise ValueError(f"there is no file {name!r} in the dataset's folder")
        content: bytes = self.fs.cat_file(path)
        return content


def fingerprint_of(files: dict[str, dict[str, Any]]) -> str:
    """A text for files, by what fsspec knows of each, in any order."""
    states = [(name, [str(files[name].get(what)) for what in _SIGNS]) for name in sorted(files)]
    return hashlib.sha256(repr(states).encode()).hexdigest()
