"""The tests of docs/testing.md pass in a project of one's own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import batch_assets.testing
from tests.documentation import PROJECT, page

PAGE = page("docs/testing.md")
RECIPE = PROJECT / "docs" / "recipes" / "classification"
DEFINITIONS = """
from pathlib import Path

from dagster import definitions, load_from_defs_folder

@definitions
def defs():
    return load_from_defs_folder(path_within_project=Path(__file__).parent)
"""


def test_the_examples_pass(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.dg]\n[tool.dg.project]\nroot_module = "my_project"\n')
    package = tmp_path / "my_project"
    shutil.copytree(RECIPE, package / "defs" / "classification")
    shutil.copytree(RECIPE, tmp_path / "docs" / "recipes" / "classification")  # the dataset
    for name, text in (("__init__.py", ""), ("definitions.py", DEFINITIONS)):
        (package / name).write_text(text)
    (tmp_path / "tests").mkdir()
    blocks = [block for block in PAGE.blocks() if block.language == "python"]
    for number, block in enumerate(blocks):
        (tmp_path / "tests" / f"test_{number}.py").write_text(block.text)
    environment = os.environ | {"ANTHROPIC_API_KEY": "sk-ant-no-test-may-use-it", "BATCH_ASSETS_ROOT": "/nowhere"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--update-prompts"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert f"{len(blocks)} passed" in done.stdout, done.stdout
    assert '"model": "claude-haiku-5-5"' in (tmp_path / "tests" / "prompts" / "classification.txt").read_text()


def test_all_names_are_on_the_page() -> None:
    hidden = {"BatchEmulator", "PromptSnapshot", "RunPipeline"}  # the types of the fixtures, for annotations
    assert all(f"`{name}" in PAGE.text for name in set(batch_assets.testing.__all__) - hidden)
