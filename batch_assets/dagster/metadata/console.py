"""Where a person sees the batches at the provider."""

from __future__ import annotations

from collections.abc import Collection

import dagster as dg

from batch_assets.core.settings import REAL_BASE_URL, Settings
from batch_assets.dagster import keys

# The list of a workspace's batches. An address of a single batch is not documented. `default` is the default
# workspace; a key of another one finds its batches by choosing that on the page.
_LIST = "https://platform.claude.com/workspaces/default/batches"


def console_link(settings: Settings, batches: Collection[object]) -> dict[str, dg.UrlMetadataValue]:
    """The metadata entry that leads to the batches; nothing where none is there, or it is not the real API."""
    if not batches or settings.base_url != REAL_BASE_URL:
        return {}
    return {keys.CONSOLE: dg.MetadataValue.url(_LIST)}
