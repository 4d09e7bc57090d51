"""The link to the batches in the Claude Console."""

from __future__ import annotations

from collections.abc import Collection

import dagster as dg

from batch_assets.core.client_settings import REAL_BASE_URL
from batch_assets.core.settings import Settings
from batch_assets.dagster import keys

# The list of a workspace's batches; the URL of a single batch is not documented. `default` is the default
# workspace. Users of another workspace choose it on the page.
_LIST = "https://platform.claude.com/workspaces/default/batches"


def console_link(settings: Settings, batches: Collection[object]) -> dict[str, dg.UrlMetadataValue]:
    """Return the metadata entry that links to the batches; {} if there are none or the API is not the real one."""
    if not batches or settings.base_url != REAL_BASE_URL:
        return {}
    return {keys.CONSOLE: dg.MetadataValue.url(_LIST)}
