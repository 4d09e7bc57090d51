"""How Dagster's programs find the project's definitions."""

from __future__ import annotations

import os
from pathlib import Path

from batch_assets.cli.dg_project import DgProject
from batch_assets.core.errors import SettingsError
from batch_assets.core.quoting import shell_quoted
from batch_assets.core.settings import find_project

_FILE_NAME = "workspace.yaml"


def workspace_option() -> str:
    """Return the option for commands of Dagster: `-w` with a workspace.yaml that exists, else `-m`."""
    if (Path(os.environ.get("DAGSTER_HOME", "")) / _FILE_NAME).is_file():
        return f"-w $DAGSTER_HOME/{_FILE_NAME}"
    if (file := find_project() / _FILE_NAME).is_file():
        return f"-w {shell_quoted(str(file))}"
    try:
        return f"-m {shell_quoted(DgProject.find().target_module)}"
    except SettingsError:  # reported by the check of the definitions
        return "-m MODULE, with the module of the definitions"
