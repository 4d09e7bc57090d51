"""The pipelines, resources and dataset tables of the project's definitions, for the command line."""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import dagster as dg

from batch_assets.cli.dg_project import DgProject
from batch_assets.core.errors import DatasetError, SettingsError
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.settings import Settings, find_project
from batch_assets.dagster.broken.report import collecting
from batch_assets.dagster.broken_file import BrokenFile, broken_in
from batch_assets.dagster.pipelines import PipelineAssets, pipelines_in, upstream_key
from batch_assets.dagster.resource import no_resource, settings_for

# Where click keeps the definitions until the command ends.
_LOADED = f"{__name__}.definitions"


@dataclass(frozen=True)
class LoadedProject:
    """The pipelines of the project's definitions.

    Attributes:
        pipelines: The pipelines by name, in order.
        broken: The pipeline files that are broken, by the name of the pipeline as far as it is known, in order.
        folder: The folder of the project.
    """

    pipelines: dict[str, PipelineAssets]
    broken: dict[str, BrokenFile]
    folder: Path


def load_project(start: Path | None = None) -> LoadedProject:
    """Load the project's definitions and return its pipelines.

    Args:
        start: The folder of the project, or one in it; `None` for the current folder.

    Raises:
        SettingsError: When there is no project, it has no definitions, or a variable of the environment cannot be
            read.
    """
    Settings.from_env(project=find_project(start), needs_ledger=False)
    specs = list(load_definitions(start).resolve_all_asset_specs())
    return LoadedProject(
        dict(sorted(pipelines_in(specs).items())),
        dict(sorted(broken_in(specs).items())),
        DgProject.find(start).folder,
    )


def load_settings(key: str) -> Settings:
    """Return the settings of a resource of the project's definitions.

    Raises:
        SettingsError: When there is no `MessageBatchResource` with this key. The error names those that exist.
    """
    resources = load_definitions().resources or {}
    if key not in resources:
        raise SettingsError(f"the project's definitions have {no_resource(key, resources)}")
    with dg.build_resources({key: resources[key]}) as initialized:
        return settings_for(key, initialized)


def load_definitions(start: Path | None = None) -> dg.Definitions:
    """Return the definitions of the project that the command is run in.

    Like `dg`, it imports the module that the project's pyproject.toml names. Broken pipeline files are not logged:
    the command shows those that matter to it. A command loads them once, however often it asks.

    Args:
        start: See `load_project`.

    Raises:
        SettingsError: When there is no project, or its module cannot be imported or has no definitions.
    """
    context = click.get_current_context(silent=True)
    known: dict[str, Any] = context.meta if context is not None else {}
    if _LOADED not in known:
        with collecting():
            known[_LOADED] = _load_definitions(start)
    definitions: dg.Definitions = known[_LOADED]
    return definitions


def _load_definitions(start: Path | None) -> dg.Definitions:
    project = DgProject.find(start)
    name = project.target_module
    for path in (project.folder / "src", project.folder):  # for a project that is not installed
        if path.is_dir() and str(path) not in sys.path:
            sys.path.append(str(path))
    try:
        attributes = vars(importlib.import_module(name))
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise
        raise SettingsError(
            f"{project.folder / 'pyproject.toml'}: [tool.dg.project] names the module {project.root_module}, but "
            f"there is no module {error.name}: install the project (pip install -e .), or run the command in "
            "another project's folder"
        ) from None
    lazy = attributes.get("defs")
    definitions = [value for value in attributes.values() if isinstance(value, dg.Definitions)]
    if not definitions and callable(lazy):
        definitions = [lazy()]
    if not definitions:
        raise SettingsError(f"{name} has no definitions: it needs a `defs`, as dg writes it")
    return definitions[0]


def load_dataset_table(pipeline: Pipeline, partition: str) -> Any:
    """Return the table of the asset that is a pipeline's dataset, as its IO manager loads it.

    Args:
        pipeline: The pipeline.
        partition: The partition key, "" if the pipeline has no partitions.

    Returns:
        The table, or None if the dataset is not an asset.

    Raises:
        DatasetError: When there is no Dagster instance to load the table from, or it cannot be loaded.
    """
    key = upstream_key(pipeline)
    if key is None:
        return None
    field = f"{pipeline.source}: dataset.asset"
    try:
        instance = dg.DagsterInstance.get()
    except dg.DagsterError:
        raise DatasetError(
            f"{field}: set DAGSTER_HOME to the instance that holds {key.to_user_string()}, or run it in the UI"
        ) from None
    try:
        with instance:
            definitions = load_definitions()
            upstream = definitions.resolve_asset_graph().get(key)
            return definitions.load_asset_value(
                key, instance=instance, partition_key=partition if upstream.is_partitioned else None
            )
    except Exception as error:  # IO managers raise errors of any class
        reason = f"{type(error).__name__}: {error}"
        raise DatasetError(
            f"{field}: the table of {key.to_user_string()} cannot be loaded ({reason}). Is it materialized?"
        ) from error
