"""`MessageBatchResource`: a Dagster resource for a root, ledger and API other than those of the environment."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import dagster as dg
from pydantic import Field, model_validator

from batch_assets.core.client_settings import Provider
from batch_assets.core.errors import SettingsError
from batch_assets.core.io.database import holds_secret
from batch_assets.core.ledger.connection import parse_url
from batch_assets.core.open_root import open_root
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.root import Root
from batch_assets.core.settings import Overrides, Settings
from batch_assets.core.text import nearest
from batch_assets.core.urls import ELSEWHERE, secret_in

# Dagster's UI shows asterisks in place of their values.
_SECRET: dict[str, Any] = {"dagster__is_secret": True}


class MessageBatchResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The root, ledger and API of the pipelines that name this resource in `resource_key`.

    Fields that are not set come from the environment. Set `api_key`, and a `ledger` with a password, only as
    `dg.EnvVar`: Dagster stores and shows any other config of a resource.

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
            "Local folder or fsspec URL that stores requests, responses and results. Default: BATCH_ASSETS_ROOT."
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
        default=None,
        description="URL of a gateway to use in place of the API. Default: that of the provider, see deploy.md.",
    )
    provider: Provider | None = Field(
        default=None, description="anthropic, aws or google-cloud. Default: BATCH_ASSETS_PROVIDER."
    )
    workspace: str | None = Field(
        default=None, description="Id of the workspace. Default: BATCH_ASSETS_WORKSPACE."
    )
    profile: str | None = Field(
        default=None,
        description="Id of the user profile that requests are attributed to. Default: BATCH_ASSETS_PROFILE.",
    )
    timeout: float | None = Field(
        default=None, description="Seconds that the API may take to answer a call. Default: BATCH_ASSETS_TIMEOUT."
    )
    emulator_url: str | None = Field(
        default=None,
        description="URL of a running emulator, used whatever else is set. Default: BATCH_ASSETS_EMULATOR.",
    )

    @model_validator(mode="before")
    @classmethod
    def _has_no_unknown_field(cls, given: Any) -> Any:
        # Dagster ignores unknown fields. The environment's root would then take the place of a misspelled one.
        # A resource that is configured at launch comes as an object.
        for name in given if isinstance(given, dict) else ():
            if name not in cls.model_fields:
                meant = nearest(name, cls.model_fields)
                hint = f"did you mean {meant}?" if meant is not None else f"fields: {', '.join(cls.model_fields)}"
                raise SettingsError(f"{cls.__name__}: there is no field {name}: {hint}")
        return given

    def get_resource_definition(self) -> Any:
        """Return the definition; Dagster calls this when the resource becomes part of definitions.

        Raises:
            SettingsError: When a secret is set as text, which Dagster would store with every run.
        """
        written = {"api_key": self.api_key, "ledger": self.ledger}
        for name, value in written.items():
            if value is None or isinstance(value, dg.EnvVar):
                continue
            if name == "api_key" or holds_secret(parse_url(value)):
                raise SettingsError(
                    f"MessageBatchResource: give {name} as dg.EnvVar(…), the name of an environment variable that "
                    "holds it: Dagster would store the text in its database"
                )
        for name in ("root", "base_url", "emulator_url"):
            url = getattr(self, name)
            if isinstance(url, str) and (secret := secret_in(url)) is not None:
                raise SettingsError(
                    f"MessageBatchResource: {name} contains {secret}, which Dagster would store in its database, "
                    f"and which would be written to metadata and errors. {ELSEWHERE}"
                )
        return super().get_resource_definition()

    def settings(self) -> Settings:
        """Return the settings that the resource describes.

        Raises:
            SettingsError: When they are incomplete or contradict each other.
        """
        values = {field.name: getattr(self, field.name) for field in fields(Overrides)}
        for name, value in values.items():
            if value == "":  # the environment's key or root must never replace it
                raise SettingsError(
                    f"MessageBatchResource: {name} is empty. Is its environment variable set to a value?"
                )
        return Settings.from_env(overrides=Overrides(**values))

    def open_root(self) -> Root:
        """Open the root. Close it, or use it in a `with` statement.

        Raises:
            SettingsError: See `settings`.
        """
        return open_root(self.settings())


def required_keys(pipeline: Pipeline) -> set[str]:
    """Return the resource keys that each step, check, job and sensor of a pipeline requires."""
    key = pipeline.config.resource_key
    return {key} if key is not None else set()


def settings_for(key: str | None, resources: Any) -> Settings:
    """Return the settings of pipelines: those of their resource, or of the environment without one.

    Args:
        key: The `resource_key` of the pipelines.
        resources: `context.resources` of a step or a sensor that requires the key.

    Raises:
        SettingsError: When they are incomplete, or the resource is not a `MessageBatchResource`.
    """
    if key is None:
        return Settings.from_env()
    resource = getattr(resources, key)
    if not isinstance(resource, MessageBatchResource):
        raise SettingsError(
            f"resource_key: {key!r} is a {type(resource).__name__}; a MessageBatchResource is needed"
        )
    return resource.settings()


def no_resource(key: str, resources: Mapping[str, object]) -> str:
    """Return what definitions lack: the resource of a key. It names those that they have with a root.

    Args:
        key: The key.
        resources: The resources of the definitions, by key.
    """
    roots = sorted(name for name, value in resources.items() if isinstance(value, MessageBatchResource))
    return f"no resource {key!r}; those with a root: {', '.join(roots) or 'none'}"
