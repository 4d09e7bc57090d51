"""The settings of one pipeline: those of its root, with what its own file has about the client."""

from __future__ import annotations

from dataclasses import replace

from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.settings import Settings

_OR = "or give the pipeline a root of its own, with resource_key"


def settings_for_pipeline(settings: Settings, pipeline: Pipeline) -> Settings:
    """Return the settings with which the stages of a pipeline run.

    On an emulator any pipeline can be tried.

    Args:
        settings: Those of the root.
        pipeline: The pipeline.

    Raises:
        ConfigError: When the pipeline belongs to another provider or workspace than the root.
    """
    wanted, client = pipeline.config.client, settings.client
    if settings.emulator_url is None:
        if wanted.provider not in (None, client.provider):
            raise pipeline.error(
                "client.provider",
                f"the pipeline belongs to {wanted.provider}, and the provider of its root {settings.root} is "
                f"{client.provider}. Set that provider for another root, {_OR}",
            )
        if wanted.workspace not in (None, client.workspace):
            now = client.workspace if client.workspace is not None else "that of the credentials"
            raise pipeline.error(
                "client.workspace",
                f"the pipeline belongs to the workspace {wanted.workspace}, and its root {settings.root} uses "
                f"{now}. Set that workspace if the root has no batches of another one, {_OR}",
            )
    own = replace(client, profile=wanted.profile or client.profile, timeout=wanted.timeout or client.timeout)
    return replace(settings, client=own)
