"""`--resource`: the root and the API of a resource of the project's definitions, in place of the environment's."""

from __future__ import annotations

import click

from batch_assets.cli.definitions_error import loading
from batch_assets.core.settings import Settings

resource_option = click.option(
    "--resource",
    metavar="KEY",
    help="Root and API of this resource of the definitions; by default those of the environment.",
)


def settings_of(resource: str | None) -> Settings:
    """The settings that a command works with; the command remembers them for its errors.

    Args:
        resource: Key of a `MessageBatchResource`; None for the environment; then no definitions are loaded.

    Raises:
        SettingsError: They are incomplete, or there is no such resource.
        DefinitionsError: The project's Dagster definitions do not load.
    """
    if resource is None:
        return Settings.from_env()
    from batch_assets.cli.project import load_settings

    with loading():
        settings = load_settings(resource)
    click.get_current_context().find_root().obj = settings
    return settings
