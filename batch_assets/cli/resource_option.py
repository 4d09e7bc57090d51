"""`--resource KEY` uses root and API of a resource of the project's definitions, not those of the environment."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from batch_assets.cli.definitions_error import loading
from batch_assets.core.emulated_root import only_root
from batch_assets.core.settings import Settings

if TYPE_CHECKING:
    from batch_assets.core.pipeline.pipeline import Pipeline

resource_option = click.option(
    "--resource",
    metavar="KEY",
    help="Use the root and API of this resource of the definitions. Default: those of the environment.",
)


def settings_of_pipeline(pipeline: Pipeline) -> Settings:
    """Return the settings with which the stages of a pipeline run. See `settings_of`.

    Raises:
        ConfigError: When the pipeline belongs to another provider or workspace than its root.
    """
    from batch_assets.core.pipeline.client import settings_for_pipeline

    return settings_for_pipeline(settings_of(pipeline.config.resource_key), pipeline)


def settings_of(resource: str | None, *, looks_only: bool = False) -> Settings:
    """Return the settings that a command works with, and store them in its context for error texts.

    Args:
        resource: Key of a `MessageBatchResource`. With None the settings come from the environment, and no
            definitions are loaded.
        looks_only: See `only_root`.

    Raises:
        SettingsError: When the settings are incomplete, or there is no such resource.
        DefinitionsError: When the project's Dagster definitions do not load.
    """
    if resource is None:
        settings = only_root(Settings.from_env(), looks_only=looks_only)
        click.get_current_context().find_root().obj = settings
        return settings
    from batch_assets.cli.project import load_settings

    with loading():
        settings = load_settings(resource)
    click.get_current_context().find_root().obj = settings
    return settings
