"""What the command line takes from the definitions of its project."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import dagster as dg

from batch_assets.core.errors import DatasetError, SettingsError
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.settings import Settings, dg_table, find_project
from batch_assets.dagster.pipelines import PipelineAssets, pipelines_in, upstream_key
from batch_assets.dagster.resource import MessageBatchResource, settings_for
from batch_assets.definitions import defs

_OWN = "batch_assets"


def load_pipeline_assets() -> dict[str, PipelineAssets]:
    """Loads the project's definitions and returns its pipelines by name.

    Errors:
        ConfigError: a pipeline file is wrong.
        SettingsError: there are no definitions.
    """
    return dict(sorted(pipelines_in(_definitions().resolve_all_asset_specs()).items()))


def load_settings(key: str) -> Settings:
    """The settings that a resource of the project's definitions describes.

    Raises:
        SettingsError: There is no resource of that key, or it is of another kind; naming those that there are.
    """
    resources = _definitions().resources or {}
    if key not in resources:
        known = ", ".join(sorted(name for name, one in resources.items() if isinstance(one, MessageBatchResource)))
        raise SettingsError(
            f"the project's definitions have no resource {key!r}; those with a root: {known or 'none'}"
        )
    with dg.build_resources({key: resources[key]}) as built:
        return settings_for(key, built)


def _definitions() -> dg.Definitions:
    """Those of the project that the command is run in; of this one where no other is.

    As `dg` itself does it, a project's module is the one that its pyproject.toml names.

    Errors:
        SettingsError: the module cannot be imported, or holds no definitions.
    """
    folder = find_project()
    pyproject = folder / "pyproject.toml"
    project = (dg_table(pyproject) or {}).get("project", {})
    root_module = project.get("root_module", _OWN)
    if root_module == _OWN:
        return defs()
    name = project.get("code_location_target_module", f"{root_module}.definitions")
    for path in (folder / "src", folder):  # where it is not installed
        if path.is_dir() and str(path) not in sys.path:
            sys.path.append(str(path))
    try:
        found = vars(importlib.import_module(name))
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise
        raise SettingsError(
            f"{pyproject}: [tool.dg.project] names the module {root_module}, and there is no {error.name}: "
            "install the project (pip install -e .), or run the command in the folder of another one"
        ) from None
    lazy = found.get("defs")
    given = [value for value in found.values() if isinstance(value, dg.Definitions)]
    if not given and callable(lazy):
        given = [lazy()]
    if not given:
        raise SettingsError(f"{name} holds no definitions: it needs a `defs`, as dg makes it")
    return given[0]


def load_dataset_table(pipeline: Pipeline, partition: str) -> Any:
    """The table of the asset that is a pipeline's dataset, as its IO manager loads it; None for other datasets.

    Errors:
        DatasetError: there is no Dagster instance to load it from, or it was never materialized.
    """
    key = upstream_key(pipeline)
    if key is None:
        return None
    where = f"{pipeline.source}: dataset.asset"
    try:
        instance = dg.DagsterInstance.get()
    except dg.DagsterError:
        raise DatasetError(
            f"{where}: set DAGSTER_HOME to the instance that holds {key.to_user_string()}, or run it in the UI"
        ) from None
    try:
        with instance:
            definitions = _definitions()
            upstream = definitions.resolve_asset_graph().get(key)
            return definitions.load_asset_value(
                key, instance=instance, partition_key=partition if upstream.is_partitioned else None
            )
    except Exception as error:  # whatever an IO manager raises
        why = f"{type(error).__name__}: {error}"
        raise DatasetError(
            f"{where}: the table of {key.to_user_string()} cannot be loaded ({why}). Is it materialized?"
        ) from error
