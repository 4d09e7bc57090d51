"""Detect changed files of a dataset from names, sizes and times, without reading them."""

from __future__ import annotations

import glob
import re
from pathlib import Path
from typing import Any

from batch_assets.core.dataset.located_files import GLOB, LocatedFiles, fingerprint_of, literal_start
from batch_assets.core.errors import DatasetError
from batch_assets.core.io.file_systems import open_file_system
from batch_assets.core.pipeline.partitions import PLACEHOLDER
from batch_assets.core.pipeline.pipeline import Pipeline

# Replaces `{partition}` while fsspec handles a path, because braces are glob syntax in fsspec.
_KEY = "\ue000"
_KEYS = re.compile(rf"\*?{_KEY}[{_KEY}*]*")  # two stars in a row would mean any number of folders
_WILDCARDS = re.compile(rf"(\*\*/|\*\*|\*|\?|\[[^\]/]+\]|{_KEY})")


def fingerprints(pipeline: Pipeline) -> dict[str, str]:
    """Return a fingerprint of the files of each partition.

    A fingerprint changes when a file is added, changed or removed. The files are listed once, however many
    partitions there are. Only keys without slashes are recognized in a path with `{partition}`.

    Returns:
        Fingerprints by partition key, for the partitions that have files. Without partitions the only key is "".

    Raises:
        DatasetError: When the path is not a pattern and there is no such file or folder.
    """
    dataset = pipeline.config.dataset
    path = dataset.pattern
    if PLACEHOLDER in path:
        return _by_partition(path, pipeline.project)
    try:
        files = LocatedFiles(path, pipeline.project).infos()
    except DatasetError as error:
        raise DatasetError(f"{pipeline.source}: dataset.{dataset.kind}: {error}") from None
    return {"": fingerprint_of(files)} if files else {}


def column_fingerprint(pipeline: Pipeline, column: str) -> str:
    """Return a fingerprint of the dataset's files and of the name of the column that defines the partitions.

    Raises:
        DatasetError: See `fingerprints`.
    """
    return f"{column}:{fingerprints(pipeline).get('', '')}"


def _by_partition(path: str, project: Path) -> dict[str, str]:
    url = path if "://" in path else str(project / path)
    try:
        fs, root = open_file_system(url.replace(PLACEHOLDER, _KEY))
    except (ImportError, ValueError) as error:
        raise DatasetError(f"{path} cannot be opened: {error}") from None
    fs.invalidate_cache()
    fixed = literal_start(path, project, root)
    own = root[len(fixed) :]
    infos = fs.glob(glob.escape(fixed) + _KEYS.sub("*", own), detail=True)
    folder = fixed + _fixed_folder(own)
    if any(info["type"] == "directory" for info in infos.values()):  # a folder for each partition
        infos = fs.find(folder, detail=True)
    pattern = re.compile(re.escape(fixed) + _pattern(own), re.DOTALL)
    by_key: dict[str, dict[str, Any]] = {}
    for name, info in infos.items():
        hidden = any(part.startswith(".") for part in name[len(folder) :].split("/"))
        if info["type"] == "file" and not hidden and (match := pattern.fullmatch(name)):
            by_key.setdefault(match["key"], {})[name] = info
    return {key: fingerprint_of(by_key[key]) for key in sorted(by_key)}


def _fixed_folder(root: str) -> str:
    parts = root.split("/")
    first_variable = next(at for at, part in enumerate(parts) if _KEY in part or GLOB & set(part))
    return "/".join(parts[:first_variable])


def _pattern(root: str) -> str:
    """A regular expression for the names of a partition's files, or of the files in its folder."""
    regex, has_key = "", False
    for part in _WILDCARDS.split(root):
        if part == _KEY:
            regex += "(?P=key)" if has_key else "(?P<key>[^/]+)"
            has_key = True
        elif part == "**/":
            regex += "(?:.+/)?"
        elif part == "**":
            regex += ".*"
        elif part == "*":
            regex += "[^/]*"
        elif part == "?":
            regex += "[^/]"
        elif _WILDCARDS.fullmatch(part):
            regex += part.replace("[!", "[^")
        else:
            regex += re.escape(part)
    return regex.rstrip("/") + "(?:/.*)?"
