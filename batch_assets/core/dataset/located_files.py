"""The files at a path of the pipeline file: a file, a folder or a glob, local or any fsspec URL."""

from __future__ import annotations

import glob
import hashlib
import os
from pathlib import Path, PurePosixPath
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from batch_assets.core.errors import DatasetError, ErrorType
from batch_assets.core.io.file_systems import open_file_system
from batch_assets.core.template.values import RowRejectedError

GLOB = frozenset("*?[")
"""The characters that make a part of a path a pattern."""
_SHOWN_NEIGHBORS = 20
# The fields of fsspec's file infos that change with the file: locally, on S3, Google Cloud Storage and Azure.
_SIGNS = ("size", "mtime", "LastModified", "ETag", "updated", "last_modified", "etag")


class LocatedFiles:
    """A path and the files at it.

    Args:
        path: The path as written in the pipeline file.
        project: The folder that relative paths start from.

    Attributes:
        path: As given.
        fs: The fsspec file system.
        is_file: Whether the path is a single file.
        is_folder: Whether the path is a folder. Its subfolders count too.
        folder: The folder itself, or the folder of the file, or the part of a glob before the first wildcard.
    """

    def __init__(self, path: str, project: Path) -> None:
        self.path = path
        url = path if "://" in path else str(project / path)
        try:
            self.fs, self._root = open_file_system(url)
        except (ImportError, ValueError, FileNotFoundError) as error:  # no driver, or no such protocol or archive
            raise DatasetError(f"{path} cannot be opened: {error}") from None
        self._start = literal_start(path, project, self._root)
        self._own = self._root[len(self._start) :]
        self.fs.invalidate_cache()  # fsspec would return the listing from this process's first look
        is_local = isinstance(self.fs, LocalFileSystem)
        self._info = {} if is_local else self._remote_info()
        self.is_file = bool(self.fs.isfile(self._root)) if is_local else self._info.get("type") == "file"
        self._infos: dict[str, dict[str, Any]] | None = None
        self._is_local = is_local
        self.is_folder = not self.is_file and bool(self.fs.isdir(self._root))
        self.folder: str = self._root.rstrip("/") if self.is_folder else self._fixed_folder()

    def _remote_info(self) -> dict[str, Any]:
        """fsspec's info about the path itself; empty if there is nothing."""
        try:
            info: dict[str, Any] = self.fs.info(self._root)
        except FileNotFoundError:
            return {}
        except Exception as error:  # file systems differ in what they raise
            raise DatasetError(f"{self.path} cannot be opened: {type(error).__name__}: {error}") from None
        return info

    def _fixed_folder(self) -> str:
        parts = self._own.split("/")[:-1]
        fixed = next((at for at, part in enumerate(parts) if GLOB & set(part)), len(parts))
        return self._start + "/".join(parts[: len(parts) if self.is_file else fixed])

    def sizes(self) -> dict[str, int]:
        """Return the size in bytes of every file by its name, in path order, without hidden files.

        Raises:
            DatasetError: When the path is neither a file nor a folder nor a glob.
        """
        return {name: int(info.get("size") or 0) for name, info in self.infos().items()}

    def infos(self) -> dict[str, dict[str, Any]]:
        """Return fsspec's info about every file by its name, in path order, without hidden files.

        Raises:
            DatasetError: See `sizes`.
        """
        if self._is_local:
            return self._listed()
        if self._infos is None:  # a look at an object store is a call
            try:
                self._infos = self._listed()
            except DatasetError:
                raise
            except Exception as error:  # file systems differ in what they raise
                raise DatasetError(f"{self.path} cannot be listed: {type(error).__name__}: {error}") from None
        return self._infos

    def forget(self) -> None:
        """Free the infos: those of S3 take more than 2 kB a file."""
        self._infos = None

    def _listed(self) -> dict[str, dict[str, Any]]:
        if self.is_file:
            try:
                return {self._root: self._info or self.fs.info(self._root)}
            except FileNotFoundError:  # it was removed after the first look
                raise DatasetError(f"there is no file or folder {self.path}{self._neighbors()}") from None
        if self.is_folder:
            infos = self._find()
        elif GLOB & set(self._own):
            infos = self.fs.glob(f"{glob.escape(self._start)}{self._own}", detail=True)
        else:
            raise DatasetError(f"there is no file or folder {self.path}{self._neighbors()}")
        kinds = {name: infos[name]["type"] for name in sorted(infos) if not self._is_hidden(name)}
        files = {name: infos[name] for name, kind in kinds.items() if kind == "file"}
        links = {
            name: self._linked_file(name) for name, kind in kinds.items() if kind not in ("file", "directory")
        }
        if links:
            # A second name of a file that is read anyway, such as latest.csv, would read its rows twice.
            own = {Path(name).resolve() for name in files}
            files |= {name: info for name, info in links.items() if Path(name).resolve() not in own}
        return {name: files[name] for name in kinds if name in files}

    def _find(self) -> dict[str, dict[str, Any]]:
        """The infos of the files in the folder and its subfolders."""
        if not isinstance(self.fs, LocalFileSystem):
            infos: dict[str, dict[str, Any]] = self.fs.find(self._root, detail=True)
            return infos
        infos = self.fs.find(self._root, detail=True, withdirs=True)
        for name in [name for name, info in infos.items() if info["type"] == "directory"]:
            may_list = self._is_hidden(name) or name.endswith("/lost+found") or os.access(name, os.R_OK | os.X_OK)
            if not may_list:  # fsspec leaves out what is in it
                raise DatasetError(f"the folder {name} cannot be listed: permission denied")
        return infos

    def _linked_file(self, name: str) -> dict[str, Any]:
        """The info about the file that a link leads to. Within the folder, links are followed."""
        target = Path(name).resolve()
        remedy = "replace the link by what it leads to, or remove it"
        if not Path(name).is_symlink():
            raise DatasetError(f"{name} is not a regular file: remove it")
        if not target.exists():
            raise DatasetError(f"{name} is a link that leads nowhere, to {target}: {remedy}")
        if not target.is_file() or not target.is_relative_to(Path(self.folder).resolve()):
            kind = "a link out of the folder" if target.is_file() else "a link to a folder"
            raise DatasetError(f"{name} is {kind}, to {target}, and is not followed: {remedy}")
        info: dict[str, Any] = self.fs.info(name)
        return info

    def relative(self, name: str) -> str:
        """Return a file's path relative to the folder."""
        return name[len(self.folder) :].lstrip("/")

    def _is_hidden(self, name: str) -> bool:
        return any(part.startswith(".") for part in self.relative(name).split("/"))

    def _neighbors(self) -> str:
        parent = self._root.rstrip("/").rsplit("/", 1)[0]
        if not self.fs.isdir(parent):
            return f", and no folder {parent}"
        names = sorted(entry.rsplit("/", 1)[-1] for entry in self.fs.ls(parent, detail=False))
        names = [name for name in names[:_SHOWN_NEIGHBORS] if not name.startswith(".")]
        return f"; in the same folder: {', '.join(names) or 'nothing'}"

    def read(self, name: str, max_bytes: int) -> bytes:
        """Read a file within the folder.

        Args:
            name: The path relative to the folder, with `/`.
            max_bytes: The most bytes that the file may have.

        Raises:
            ValueError: When there is no such file, or it is outside the folder.
            RowRejectedError: When it is too large.
        """
        relative = PurePosixPath(name)
        if relative.is_absolute() or ".." in relative.parts or "\0" in name:
            raise ValueError(f"{name!r} is outside the dataset's folder")
        path = f"{self.folder}/{relative}"
        if isinstance(self.fs, LocalFileSystem):
            resolved = Path(path).resolve()
            if not resolved.is_relative_to(Path(self.folder).resolve()):
                raise ValueError(f"{name!r} is outside the dataset's folder")
        try:
            info = self.fs.info(path)
        except (OSError, ValueError):  # fsspec's own isfile does the same
            info = {}
        if info.get("type") != "file":
            raise ValueError(f"there is no file {name!r} in the dataset's folder")
        if (info.get("size") or 0) > max_bytes:
            raise RowRejectedError(ErrorType.REQUEST_TOO_LARGE, too_large(name, info["size"], max_bytes))
        content: bytes = self.fs.cat_file(path)
        return content


def literal_start(path: str, project: Path, root: str) -> str:
    """Return the start of a dataset's full path that is no pattern, whatever it contains: the project's folder.

    Args:
        path: The path as written in the pipeline file.
        project: The folder that relative paths start from.
        root: The full path.

    Returns:
        It is "" if the path does not start from there.
    """
    folder = project.absolute().as_posix().rstrip("/")
    is_relative = "://" not in path and not Path(path).is_absolute()
    return folder if is_relative and root.startswith(f"{folder}/") else ""


def too_large(name: str, size: int, max_bytes: int) -> str:
    """Return why a file is not read.

    Args:
        name: The file.
        size: Its bytes.
        max_bytes: The most bytes that it may have.
    """
    return (
        f"the file {name!r} has {size:,} bytes; dataset.max_file_mb allows {max_bytes:,}: make it smaller, or "
        "leave the row out"
    )


def fingerprint_of(files: dict[str, dict[str, Any]]) -> str:
    """Return a text that changes when a file is added, changed or removed.

    Args:
        files: fsspec's info about each file by its name, in any order.
    """
    states = [(name, [str(files[name].get(sign)) for sign in _SIGNS]) for name in sorted(files)]
    return hashlib.sha256(repr(states).encode()).hexdigest()
