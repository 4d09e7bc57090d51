"""Whether pipeline files look broken, found without Dagster: quickly, and with false alarms.

Fields that only Dagster can resolve make a file suspect. So whoever asks lets `batch-assets check` decide about
suspects, which loads the definitions as Dagster does.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from batch_assets.core.pipeline.faults import unreadable
from batch_assets.core.pipeline.load import load_pipeline
from batch_assets.core.pipeline.yaml_values import YAML_LOADER
from batch_assets.core.settings import dg_table

_TYPE = "batch_assets.MessageBatchComponent"
_DEFAULT_MODULE = "batch_assets"


def defs_folder(project: Path) -> Path | None:
    """Return the folder of a project's definitions; `None` if there is none. It imports nothing."""
    table = (dg_table(project / "pyproject.toml") or {}).get("project", {})
    module = table.get("defs_module") or f"{table.get('root_module', _DEFAULT_MODULE)}.defs"
    folders = (start.joinpath(*module.split(".")) for start in (project / "src", project))
    return next((folder for folder in folders if folder.is_dir()), None)


def pipeline_files(folder: Path) -> list[Path]:
    """Return the YAML files of a folder of definitions, in order."""
    return sorted(folder.rglob("defs.y*ml"))


def looks_broken(file: Path, project: Path) -> bool:
    """Whether a YAML file of definitions cannot be read, or has a pipeline that may not load.

    Args:
        file: The file.
        project: The project's folder.
    """
    try:
        text = file.read_text("utf-8-sig")
    except (OSError, ValueError):
        return True
    if unreadable(str(file), text) is not None:
        return True
    try:
        with _silent():
            for document in yaml.load_all(text, YAML_LOADER):
                if document["type"] == _TYPE:
                    load_pipeline(document.get("attributes") or {}, folder=file.parent, project=project)
    except Exception:  # of a value of YAML, or of a model of the user's own: they raise anything
        return True
    return False


@contextmanager
def _silent() -> Iterator[None]:
    """Log no warning about a file meanwhile: whoever loads it to run it does."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
