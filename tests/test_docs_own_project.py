"""The steps of docs/own-project.md make a project in which pipelines load."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import yaml

import batch_assets
from tests.documentation import MINIMAL, Block, page

PAGE = page("docs/own-project.md")


def _block(language: str) -> Block:
    (block,) = [block for block in PAGE.blocks() if block.language == language]
    return block


def test_an_existing_project_gets_pipelines(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(_block("toml").text)
    package = tmp_path / "my_project"
    (package / "defs" / "shown").mkdir(parents=True)
    for folder in (package, package / "defs"):
        (folder / "__init__.py").touch()
    (package / "definitions.py").write_text(_block("python").text.replace("[...]", "[]"))
    document = {"type": "batch_assets.MessageBatchComponent", "attributes": MINIMAL}
    (package / "defs" / "shown" / "defs.yaml").write_text(yaml.safe_dump(document))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "shown.csv").write_text("id,text\n1,hello\n")

    command = [sys.executable, "-m", "batch_assets.cli", "check", "shown"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BATCH_ASSETS_")}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"{tmp_path}: 1 pipeline file is right\n"), done.stderr


def test_the_wheel_has_the_name_of_this_version() -> None:
    assert f"batch_assets-{batch_assets.__version__}-py3-none-any.whl" in PAGE.text
