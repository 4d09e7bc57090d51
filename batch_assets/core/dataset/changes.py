"""Which files of a dataset have changed, by names, sizes and times alone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import fsspec

from batch_assets.core.dataset.located_files import GLOB, LocatedFiles, fingerprint_of
from batch_assets.core.errors import DatasetError
from batch_assets.core.pipeline.partitions import PLACEHOLDER
from batch_assets.core.pipeline.pipeline import Pipeline

# Stands for the key while a path goes through fsspec, which would take braces for a pattern of its own.
_KEY = "\ue000"
_KEYS = re.compile(rf"\*?{_KEY}[{_KEY}*]*")  # two stars in a row would mean any number of folders
_WILDCARDS = re.compile(rf"(\*\*/|\*\*|\*|\?|\[[^\]/]+\]|{_KEY})")


def fingerprints(pipeline: Pipeline) -> dict[str, str]:
    """For every partition that has files, a text that is another when one was added, changed or removed.

    The key of a pipeline without partitions is "". The files are listed once, however many partitions there are;
    where `{partition}` stands, a key without slashes is looked for.

    Errors:
        DatasetError: a path that is no pattern leads to nothing.
    """
    dataset = pipeline.config.dataset
    path = dataset.path or dataset.files or ""
    if PLACEHOLDER in path:
        return _by_partition(path, pipeline.project)
    try:
        found = LocatedFiles(path, pipeline.project).found()
    except DatasetError as error:
        raise DatasetError(f"{pipeline.source}: dataset.{dataset.kind}: {error}") from None
    return {"": fingerprint_of(found)} if found else {}


def column_fingerprint(pipeline: Pipeline, column: str) -> str:
    """Another text when the files of the dataset, or the column that makes its partitions, are others.

    Errors:
        DatasetError: see `fingerprints`.
    """
    return f"{column}:{fingerprints(pipeline).get('', '')}"


def _by_partition(path: str, project: Path) -> dict[str, str]:
    url = path if "://" in path else str(project / path)
    fs, root = fsspec.core.url_to_fs(url.replace(PLACEHOLDER, _KEY))
    fs.invalidate_cache()
    found = fs.glob(_KEYS.sub("*", root), detail=True)
    folder = _fixed_folder(root)
    if any(info["type"] == "directory" for info in found.values()):  # a folder for each partition
        found = fs.find(folder, detail=True)
    pattern = _pattern(root)
    files: dict[str, dict[str, Any]] = {}
    for name, info in found.items():
        hidden = any(part.startswith(".") for part in name[len(folder) :].split("/"))
        if info["type"] == "file" and not hidden and (match := pattern.fullmatch(name)):
            files.setdefault(match["key"], {})[name] = info
    return {key: fingerprint_of(files[key]) for key in sorted(files)}


def _fixed_folder(root: str) -> str:
    parts = root.split("/")
    varying = next(at for at, part in enumerate(parts) if _KEY in part or GLOB & set(part))
    return "/".join(parts[:varying])


def _pattern(root: str) -> re.Pattern[str]:
    """What the names of a partition's files look like, or of those within its folder."""
    written, has_key = "", False
    for part in _WILDCARDS.split(root):
        if part == _KEY:
            written += "(?P=key)" if has_key else "(?P<key>[^/]+)"
            has_key = True
        elif part == "**/":
            written += "(?:.+/)?"
        elif part == "**":
            written += ".*"
        elif part == "*":
            written += "[^/]*"
        elif part == "?":
            written += "[^/]"
        elif _WILDCARDS.fullmatch(part):
            written += part.replace("[!", "[^")
        else:
            written += re.escape(part)
    return re.compile(written.rstrip("/") + "(?:/.*)?", re.DOTALL)
