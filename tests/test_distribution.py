"""What wheel and sdist contain: the package, without tests, demo and data."""

from __future__ import annotations

import ast
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from email.parser import Parser
from pathlib import Path

import pytest

import batch_assets
from tests.distribution import Distribution
from tests.documentation import PROJECT

LEFT_OUT = ("batch_assets/defs/", "batch_assets/definitions/")
DATA = {
    "batch_assets/core/prices/prices.yaml",
    "batch_assets/dagster/dagster.yaml",
    "batch_assets/py.typed",
}


@pytest.fixture(scope="module")
def files(distribution: Distribution) -> set[str]:
    """The files of the wheel's package."""
    return {name for name in distribution.wheel_files if not name.partition("/")[0].endswith(".dist-info")}


def test_the_wheel_has_the_package_without_the_demo(files: set[str]) -> None:
    modules = {path.relative_to(PROJECT).as_posix() for path in (PROJECT / "batch_assets").rglob("*.py")}
    assert files == DATA | {name for name in modules if not name.startswith(LEFT_OUT)}


def test_the_sdist_has_what_the_wheel_is_made_of(distribution: Distribution, files: set[str]) -> None:
    others = {name for name in distribution.sdist_files if not name.startswith("batch_assets")}
    assert others == {"LICENSE", "MANIFEST.in", "PKG-INFO", "README.md", "pyproject.toml", "setup.cfg"}
    ours = {name for name in distribution.sdist_files if name.startswith("batch_assets/")}
    assert {name for name in ours if name.endswith((".py", ".yaml", ".typed", ".md", ".csv", ".json"))} == files


def test_nothing_in_the_wheel_imports_what_is_left_out(distribution: Distribution, files: set[str]) -> None:
    known = {name.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for name in files}
    with zipfile.ZipFile(distribution.wheel) as wheel:
        imported = {
            (name, module)
            for name in files
            if name.endswith(".py")
            for module in _imported(wheel.read(name).decode())
            if module.startswith("batch_assets.")
        }
    assert len(imported) > 1000
    assert {(name, module) for name, module in imported if module not in known} == set()


def _imported(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_the_index_accepts_both(distribution: Distribution) -> None:
    command = [sys.executable, "-m", "twine", "check", "--strict", distribution.sdist, distribution.wheel]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("PASSED") == 2


def test_the_metadata_of_the_wheel(distribution: Distribution) -> None:
    (folder,) = {name.partition("/")[0] for name in distribution.wheel_files if ".dist-info" in name}
    with zipfile.ZipFile(distribution.wheel) as wheel:
        metadata = Parser().parsestr(wheel.read(f"{folder}/METADATA").decode())
        entry_points = wheel.read(f"{folder}/entry_points.txt").decode()
    assert f"{folder}/licenses/LICENSE" in distribution.wheel_files
    assert (metadata["Name"], metadata["Version"]) == ("batch-assets", batch_assets.__version__)
    assert metadata["License-Expression"] == "Apache-2.0"
    assert "batch-assets = batch_assets.cli:main" in entry_points
    assert "[dagster_dg_cli.registry_modules]\nbatch_assets = batch_assets" in entry_points
    assert "[pytest11]\nbatch_assets = batch_assets.testing.plugin" in entry_points
    assert Path(distribution.wheel).name.endswith("-py3-none-any.whl")
