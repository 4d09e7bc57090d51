"""The Dagster project that a command is run in, as its pyproject.toml describes it to `dg`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batch_assets.core.errors import SettingsError
from batch_assets.core.settings import dg_table, find_project


@dataclass(frozen=True)
class DgProject:
    """A project that `dg` knows.

    Attributes:
        folder: Its folder, the nearest one at or above the folder that was asked for.
        root_module: The package that its pyproject.toml names.
        table: The table [tool.dg.project].
    """

    folder: Path
    root_module: str
    table: dict[str, Any]

    @classmethod
    def find(cls, start: Path | None = None) -> DgProject:
        """Find the project.

        Args:
            start: Where to begin; `None` for the current folder.

        Raises:
            SettingsError: When there is none, or its pyproject.toml names no package.
        """
        folder = find_project(start)
        pyproject = folder / "pyproject.toml"
        table = dg_table(pyproject)
        if table is None and not (folder / "workspace.yaml").is_file():
            raise SettingsError(
                f"there is no Dagster project in {folder} or in a folder above it: run the command in the folder "
                "of a project, whose pyproject.toml has [tool.dg.project]"
            )
        project = (table or {}).get("project", {})
        if "root_module" not in project:
            raise SettingsError(
                f"{pyproject}: no package is named: write the one with definitions.py as root_module under "
                "[tool.dg.project], or run the command in the folder of another project"
            )
        return cls(folder, project["root_module"], project)

    @property
    def target_module(self) -> str:
        """The module that has the definitions."""
        return str(self.table.get("code_location_target_module", f"{self.root_module}.definitions"))

    @property
    def defs_module(self) -> str:
        """The package that has the pipeline files."""
        return str(self.table.get("defs_module", f"{self.root_module}.defs"))
