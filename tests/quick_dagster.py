"""What Dagster computes again for each project and each instance, although it is always the same: computed once.

Importing this module changes this process and those forked from it. Nothing is left out, only remembered:

- The descriptions of all component types, which depend on the installed packages alone. They are for a page of the
  UI, and take most of the time in which Dagster loads a small project.
- The migrations of its storages. A new database, of which an instance in memory has three, is stamped with the
  newest, and for this Dagster reads a hundred files.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import dagster as dg
from alembic.config import Config
from alembic.script import ScriptDirectory
from dagster.components.core import load_defs

_describe_components = load_defs.get_library_json_enriched_defs
_read_migrations = ScriptDirectory.from_config
_migrations: dict[str | None, ScriptDirectory] = {}


@cache
def _described() -> dg.Definitions:
    return _describe_components(None)


def _component_types(tree: Any) -> dg.Definitions:
    return dg.Definitions(metadata=_described().metadata, component_tree=tree)


def _migrations_of(config: Config) -> ScriptDirectory:
    folder = config.get_main_option("script_location")
    if folder not in _migrations:
        _migrations[folder] = _read_migrations(config)
    return _migrations[folder]


load_defs.get_library_json_enriched_defs = _component_types
ScriptDirectory.from_config = _migrations_of  # type: ignore[assignment,method-assign]
_described()
