"""Open a root with the code that rebuilds a lost ledger. Only this module connects the two."""

from __future__ import annotations

import os

from batch_assets.core.io.storage import Storage
from batch_assets.core.ledger import Ledger
from batch_assets.core.ledger.connection import parse_url
from batch_assets.core.ledger.records import Pairing
from batch_assets.core.ledger.sqlite_file import is_read_only
from batch_assets.core.recovery.catch_up import catch_up
from batch_assets.core.recovery.found_files import pipelines_of
from batch_assets.core.recovery.looking import look_at_ledger
from batch_assets.core.recovery.pairing import check_files, open_ledger
from batch_assets.core.recovery.root_file import note_key
from batch_assets.core.root import Recovery, Root
from batch_assets.core.settings import Settings


def open_root(settings: Settings | None = None) -> Root:
    """Open a root. Close it, or use it in a `with` statement.

    If its ledger is a file that may only be read, it is opened as `open_root_to_look` does, and what writes fails.

    Args:
        settings: Where files, ledger and API are; read from the environment by default.

    Raises:
        SettingsError: When the settings are incomplete or contradict each other.
    """
    recovery = Recovery(_open_ledger, catch_up, pipelines_of, check_files, note_key)
    return Root(settings or Settings.from_env(), recovery)


def _open_ledger(settings: Settings, storage: Storage) -> tuple[Ledger, Pairing]:
    is_only_looked_at = is_read_only(parse_url(settings.ledger_url))
    return (look_at_ledger if is_only_looked_at else open_ledger)(settings, storage)


def may_only_be_read(settings: Settings) -> bool:
    """Whether this process may read a root, but not write its folder or the file of its ledger.

    Args:
        settings: Where files and ledger are.
    """
    storage = Storage.of(settings)
    is_closed = storage.is_local and not os.access(storage.uri(), os.W_OK)
    return is_closed or is_read_only(parse_url(settings.ledger_url))


def open_root_to_look(settings: Settings) -> Root:
    """Open a root to look at it: its ledger is neither created nor upgraded, rebuilt nor paired.

    Args:
        settings: Where files and ledger are.
    """
    recovery = Recovery(look_at_ledger, catch_up, pipelines_of, check_files, note_key)
    return Root(settings, recovery)
