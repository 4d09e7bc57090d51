"""The YAML files of the project that cannot be read."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from batch_assets.core.pipeline.faults import Fault, faults_of, unreadable
from batch_assets.core.settings import dg_table, find_project
from batch_assets.dagster.broken.known import yaml_text
from batch_assets.dagster.broken.load_as_broken import source_of


def unreadable_files() -> list[Fault]:
    """Return what is wrong with those YAML files of the project's defs folder that cannot be read, by path."""
    project = find_project()
    faults: list[Fault] = []
    for path in sorted(_defs_folder(project).rglob("defs.y*ml")):
        source, text = source_of(path, project), yaml_text(path)
        if text is not None and (problem := unreadable(source, text)) is not None:
            faults += faults_of(problem, text)
    return faults


def _defs_folder(project: Path) -> Path:
    """Return the folder of the project's definitions; the project's folder if its module cannot be found."""
    table = (dg_table(project / "pyproject.toml") or {}).get("project", {})
    module = table.get("defs_module") or f"{table.get('root_module', 'batch_assets')}.defs"
    try:
        spec = find_spec(module)
    except (ImportError, ValueError):
        spec = None
    return (
        Path(next(iter(spec.submodule_search_locations))) if spec and spec.submodule_search_locations else project
    )
