"""Open a root with the code that rebuilds a lost ledger. Only this module connects the two."""

from __future__ import annotations

from batch_assets.core.recovery.catch_up import catch_up
from batch_assets.core.recovery.found_files import pipelines_of
from batch_assets.core.recovery.looking import look_at_ledger
from batch_assets.core.recovery.pairing import check_files, open_ledger
from batch_assets.core.recovery.root_file import note_key
from batch_assets.core.root import Recovery, Root
from batch_assets.core.settings import Settings


def open_root(settings: Settings | None = None) -> Root:
    """Open a root. Close it, or use it in a `with` statement.

    Args:
        settings: Where files, ledger and API are; read from the environment by default.

    Raises:
        SettingsError: When the settings are incomplete or contradict each other.
    """
    recovery = Recovery(open_ledger, catch_up, pipelines_of, check_files, note_key)
    return Root(settings or Settings.from_env(), recovery)


def open_root_to_look(settings: Settings) -> Root:
    """Open a root to look at it: its ledger is neither created nor upgraded, rebuilt nor paired.

    Args:
        settings: Where files and ledger are.
    """
    recovery = Recovery(look_at_ledger, catch_up, pipelines_of, check_files, note_key)
    return Root(settings, recovery)
