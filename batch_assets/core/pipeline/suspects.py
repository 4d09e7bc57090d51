"""Whether pipeline files look broken, found without Dagster: quickly, and with false alarms.

What only Dagster can resolve makes a file suspect. So whoever asks lets `batch-assets check` decide, which loads
the definitions as Dagster does. Only these show a `resource_key` and a `dataset.asset` that do not exist, and
mistakes in `post_processing` and in Python files.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from batch_assets.core.pipeline.faults import unreadable
from batch_assets.core.pipeline.load import load_pipeline
from batch_assets.core.pipeline.yaml_values import YAML_LOADER
from batch_assets.core.settings import dg_table

_TYPE = "batch_assets.MessageBatchComponent"
_DEFAULT_MODULE = "batch_assets"
_FILES = ("defs.y*ml", "component.y*ml")
# Fields with templates over the row. Dagster renders those of all others, which may name an environment variable.
_OF_ROWS = ("params", "betas", "output_schema")
_ENV = re.compile(r"\{\{\s*env\.(\w+)\s*\}\}")
# A field of a cron expression, and the largest number in each of the five.
_CRON, _NUMBER, _MOST = re.compile(r"[\d*/,?L#A-Za-z-]+"), re.compile(r"\d+"), (59, 23, 31, 12, 7)


def defs_folder(project: Path) -> Path | None:
    """Return the folder of a project's definitions; `None` if there is none. It imports nothing."""
    table = (dg_table(project / "pyproject.toml") or {}).get("project", {})
    module = table.get("defs_module") or f"{table.get('root_module', _DEFAULT_MODULE)}.defs"
    folders = (start.joinpath(*module.split(".")) for start in (project / "src", project))
    return next((folder for folder in folders if folder.is_dir()), None)


def pipeline_files(folder: Path) -> list[Path]:
    """Return the YAML files of a folder of definitions, in order."""
    return sorted(path for pattern in _FILES for path in folder.rglob(pattern))


def any_looks_broken(files: Iterable[Path], project: Path) -> bool:
    """Whether a YAML file of definitions cannot be read, has a pipeline that may not load, or the name of another.

    Args:
        files: The files.
        project: The project's folder.
    """
    names: set[str] = set()
    for file in files:
        its_names = _names_in(file, project)
        if its_names is None or not names.isdisjoint(its_names):
            return True
        names |= set(its_names)
    return False


def _names_in(file: Path, project: Path) -> list[str] | None:
    """Return the names of the pipelines of a file; `None` if it looks broken."""
    try:
        text = file.read_text("utf-8-sig")
        if unreadable(str(file), text) is not None:
            return None
        with _silent():
            read = [_name_in(document, file, project) for document in yaml.load_all(text, YAML_LOADER)]
    except Exception:  # of a file or a value in it, or of a model of the user's own: they raise anything
        return None
    names = [name for name in read if name is not None]
    return names if len(set(names)) == len(names) else None


def _name_in(document: dict[str, Any], file: Path, project: Path) -> str | None:
    """Return the name of the pipeline of a document; `None` if it has another component.

    Raises:
        Exception: Any, when the document looks broken.
    """
    written = document["type"]
    module = written.partition(".")[0]
    if written != _TYPE:
        is_there = any((folder / module).exists() for folder in (project, project / "src"))
        if module == _TYPE.partition(".")[0] or not (not module or is_there or find_spec(module)):
            raise ValueError(f"there is no type {written}")
        return None
    attributes = document.get("attributes") or {}
    pipeline = load_pipeline(attributes, folder=file.parent, project=project)
    rendered = {name: value for name, value in attributes.items() if name not in _OF_ROWS}
    left = _ENV.sub(lambda match: "" if match[1] in os.environ else match[0], repr(rendered))
    if "{{" in left or "{%" in left:
        raise ValueError("Dagster may not be able to render a template, or a variable may have no value")
    if (schedule := pipeline.config.schedule) is not None and not _looks_like_cron(schedule.cron):
        raise ValueError("Dagster may refuse the schedule")
    return pipeline.name


def _looks_like_cron(text: str) -> bool:
    fields = text.split()
    numbers = [
        (int(number), most)
        for field, most in zip(fields, _MOST, strict=False)
        for number in _NUMBER.findall(field)
    ]
    return (
        len(fields) == len(_MOST)
        and all(map(_CRON.fullmatch, fields))
        and all(each <= most for each, most in numbers)
    )


@contextmanager
def _silent() -> Iterator[None]:
    """Log no warning about a file meanwhile: whoever loads it to run it does."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
