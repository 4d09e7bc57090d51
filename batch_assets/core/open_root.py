"""The composition root: the only place that gives a root what rebuilds its ledger."""

from __future__ import annotations

from batch_assets.core.recovery.rebuild import find_lost
from batch_assets.core.root import Root
from batch_assets.core.settings import Settings


def open_root(settings: Settings | None = None) -> Root:
    """Opens a root, to be closed or used in a `with` statement.

    Args:
        settings: Where files, ledger and API are; by default what the environment says.

    Raises:
        SettingsError: The settings are incomplete or contradict each other.
    """
    return Root(settings or Settings.from_env(), find_lost)
