"""The root of a project that has only used the emulator: whoever looks at results finds it without any variable.

A root that an environment variable names, or that has used another API, is left alone.
"""

from __future__ import annotations

import os
from pathlib import Path

from batch_assets.core.settings import Settings, find_project


def emulated_root() -> Path:
    """Return the folder that is the root with an emulator if no variable names another."""
    return find_project() / "data" / "emulated"


def only_root(settings: Settings, *, looks_only: bool) -> Settings:
    """Return the settings with the project's emulated root, if it is the only one and nothing names another.

    Args:
        settings: Those of the environment.
        looks_only: Whether the caller only shows what is there, so that it may do so beside an API that is set.
    """
    if settings.emulator_url is not None or (settings.base_url is not None and not looks_only):
        return settings
    if any(name in os.environ for name in ("BATCH_ASSETS_ROOT", "BATCH_ASSETS_LEDGER")):
        return settings
    if (Path(settings.root) / "ledger.db").exists() or not (emulated_root() / "ledger.db").is_file():
        return settings
    return Settings.from_env({**os.environ, "BATCH_ASSETS_ROOT": str(emulated_root())})
