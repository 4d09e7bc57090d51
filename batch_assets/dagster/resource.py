"""`MessageBatchResource`: a root, its ledger and its API as a Dagster resource, in place of the environment's."""

from dataclasses import fields
from typing import Any

import dagster as dg
from pydantic import Field

from batch_assets.core.errors import SettingsError
from batch_assets.core.io.database import holds_secret
from batch_assets.core.ledger.connection import parse_url
from batch_assets.core.open_root import open_root
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.root import Root
from batch_assets.core.settings import Overrides, Settings

# Dagster's UI shows asterisks in place of their values.
_SECRET: dict[str, Any] = {"dagster__is_secret": True}


class MessageBatchResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Where the files, the ledger and the API of pipelines are, for those that name it by `resource_key`.

    What is left out is taken from the environment. `api_key`, and a `ledger` with a password, are given by
    `dg.EnvVar` alone: Dagster keeps the rest of a resource's config, and shows it.

        dg.Definitions(
            assets=assets,
            resources={
                "eu": MessageBatchResource(root="/srv/eu", api_key=dg.EnvVar("EU_ANTHROPIC_API_KEY")),
            },
        )
    """

    root: str | None = Field(
        default=None,
        description=(
            "Local folder or fsspec URL that holds requests, responses and results. Default: BATCH_ASSETS_ROOT."
        ),
    )
    ledger: str | None = Field(
        default=None,
        description="SQLAlchemy URL of the root's ledger. Default: <root>/ledger.db; needed for a remote root.",
        repr=False,
        json_schema_extra=_SECRET,
    )
    api_key: str | None = Field(
        default=None,
        description="Key of the API, as a dg.EnvVar. Default: the environment's credentials.",
        repr=False,
        json_schema_extra=_SECRET,
    )
    base_url: str | None = Field(
        default=None, description="A gateway in the API's place. Default: ANTHROPIC_BASE_URL."
    )
    emulator_url: str | None = Field(
        default=None,
        description="URL of a running emulator, used whatever else is given. Default: BATCH_ASSETS_EMULATOR.",
    )

    def get_resource_definition(self) -> Any:
        """Dagster's hook, called when the resource becomes part of definitions.

        Raises:
            SettingsError: A secret is given as text, which Dagster would keep with every run.
        """
        written = {"api_key": self.api_key, "ledger": self.ledger}
        for name, value in written.items():
            if value is None or isinstance(value, dg.EnvVar):
                continue
            if name == "api_key" or holds_secret(parse_url(value)):
                raise SettingsError(
                    f"MessageBatchResource: give {name} as dg.EnvVar(…), the name of an environment variable that "
                    "holds it: Dagster would keep the text in its database"
                )
        return super().get_resource_definition()

    def settings(self) -> Settings:
        """The settings that it describes.

        Raises:
            SettingsError: They are incomplete or contradict each other.
        """
        given = {field.name: getattr(self, field.name) for field in fields(Overrides)}
        for name, value in given.items():
            if value == "":  # never the environment's key or root in its place
                raise SettingsError(
                    f"MessageBatchResource: {name} is empty. Does its environment variable hold one?"
                )
        return Settings.from_env(overrides=Overrides(**given))

    def open_root(self) -> Root:
        """Opens the root, to be closed or used in a `with` statement.

        Raises:
            SettingsError: See `settings`.
        """
        return open_root(self.settings())


def required_keys(pipeline: Pipeline) -> set[str]:
    """The resource keys that each step, check, job and sensor of a pipeline requires."""
    key = pipeline.config.resource_key
    return {key} if key is not None else set()


def settings_for(key: str | None, resources: Any) -> Settings:
    """The settings of pipelines: those of their resource, or the environment's.

    Args:
        key: The `resource_key` of the pipelines.
        resources: `context.resources` of a step or a sensor that requires the key.

    Raises:
        SettingsError: They are incomplete, or the resource is of another kind.
    """
    if key is None:
        return Settings.from_env()
    resource = getattr(resources, key)
    if not isinstance(resource, MessageBatchResource):
        raise SettingsError(
            f"resource_key: {key!r} is a {type(resource).__name__}; a MessageBatchResource is needed"
        )
    return resource.settings()


def root_for(pipeline: Pipeline, resources: Any) -> Root:
    """Opens the root that a pipeline's data are under: see `settings_for`."""
    return open_root(settings_for(pipeline.config.resource_key, resources))
