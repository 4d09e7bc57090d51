"""`batch-assets run` in a user's own project: it knows what Dagster loads there."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from .support import Project

DEFINITIONS = """
from pathlib import Path

from dagster import definitions, load_from_defs_folder

@definitions
def defs():
    return load_from_defs_folder(path_within_project=Path(__file__).parent)
"""


@pytest.fixture
def own(project: Project) -> Project:
    """A project as `dg` makes one, with its package in src/ and not installed."""
    package = project.folder / "src" / "shop"
    package.mkdir(parents=True)
    project.add_pipeline("greetings", ["one", "two"])
    (project.folder / "batch_assets" / "defs").rename(package / "defs")
    (package / "__init__.py").touch()
    (package / "definitions.py").write_text(DEFINITIONS)
    name_module(project.folder, "shop")
    return project


def name_module(folder: Path, name: str, more: str = "") -> None:
    (folder / "pyproject.toml").write_text(
        f'[tool.dg]\ndirectory_type = "project"\n[tool.dg.project]\nroot_module = {json.dumps(name)}\n{more}'
    )


def test_its_pipelines_are_run(own: Project) -> None:
    done = own.run("run", "greetings")
    assert done.returncode == 0, done.stderr
    table = pd.read_parquet(own.folder / "data" / "emulated" / "greetings" / "results")
    assert list(table["result_type"]) == ["succeeded"] * 2
    other = own.run("run", "review_triage")
    assert "there is no pipeline 'review_triage' in this project; its pipelines: greetings" in other.stderr


def test_another_module_may_hold_the_definitions(own: Project) -> None:
    package = own.folder / "src" / "shop"
    (package / "elsewhere.py").write_text(
        "import dagster as dg\nfrom shop.definitions import defs\nwhole = dg.Definitions.merge(defs())\n"
    )
    name_module(own.folder, "shop", 'code_location_target_module = "shop.elsewhere"\n')
    assert own.run("run", "greetings").returncode == 0


def test_a_project_without_definitions_is_reported(own: Project) -> None:
    name_module(own.folder, "shoop")
    assert "names the module shoop, but there is no module shoop: install" in own.run("run", "greetings").stderr
    name_module(own.folder, "shop")
    definitions = own.folder / "src" / "shop" / "definitions.py"
    definitions.write_text("")
    assert "shop.definitions has no definitions: it needs a `defs`" in own.run("run", "greetings").stderr
    definitions.write_text("import no_such_module")
    assert "the project's definitions do not load: ModuleNotFoundError" in own.run("run", "greetings").stderr


def test_a_folder_without_a_project_is_reported(own: Project) -> None:
    pyproject = own.folder / "pyproject.toml"
    pyproject.write_text('[tool.dg]\ndirectory_type = "workspace"\n')
    unnamed = f"{pyproject}: no package is named: write the one with definitions.py as root_module"
    assert unnamed in own.run("check").stderr
    pyproject.unlink()
    for command in (["check"], ["run", "greetings"], ["doctor"]):
        done = own.run(*command)
        assert done.returncode == 1
        assert f"there is no Dagster project in {own.folder} or in a folder above it" in done.stdout + done.stderr
    (own.folder / "workspace.yaml").write_text("load_from: [{python_module: shop.definitions}]\n")
    assert unnamed in own.run("check").stderr
