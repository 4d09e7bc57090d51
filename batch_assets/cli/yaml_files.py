"""The YAML files of the project that cannot be read."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from batch_assets.cli.dg_project import DgProject
from batch_assets.core.pipeline.faults import Fault, faults_of, unreadable
from batch_assets.core.pipeline.suspects import pipeline_files
from batch_assets.dagster.broken.known import yaml_text
from batch_assets.dagster.broken.load_as_broken import source_of


def unreadable_files() -> list[Fault]:
    """Return what is wrong with those YAML files of the project's defs folder that cannot be read, by path.

    Raises:
        SettingsError: When there is no project.
    """
    project = DgProject.find()
    faults: list[Fault] = []
    for path in pipeline_files(_defs_folder(project)):
        source, text = source_of(path, project.folder), yaml_text(path)
        if text is not None and (problem := unreadable(source, text)) is not None:
            faults += faults_of(problem, text)
    return faults


def _defs_folder(project: DgProject) -> Path:
    """Return the folder of the project's definitions; the project's folder if its module cannot be found."""
    try:
        spec = find_spec(project.defs_module)
    except (ImportError, ValueError):
        spec = None
    if spec is None or not spec.submodule_search_locations:
        return project.folder
    return Path(next(iter(spec.submodule_search_locations)))
