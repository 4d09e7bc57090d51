"""Open the ledger of a root to look at it only: it is neither created nor upgraded, rebuilt nor paired."""

from __future__ import annotations

from pathlib import Path

from batch_assets.core.errors import DamagedFileError, LedgerVersionError, NoLedgerError
from batch_assets.core.io.database import as_text
from batch_assets.core.io.storage import Storage
from batch_assets.core.ledger import Ledger, migrations
from batch_assets.core.ledger import pairing as pairings
from batch_assets.core.ledger.connection import parse_url
from batch_assets.core.ledger.records import Pairing
from batch_assets.core.ledger.sqlite_file import is_read_only
from batch_assets.core.settings import Settings


def look_at_ledger(settings: Settings, storage: Storage) -> tuple[Ledger, Pairing]:
    """Open a root's ledger, of which only read transactions are used.

    Args:
        settings: Where the ledger is.
        storage: The root. It is not read.

    Raises:
        NoLedgerError: When there is none yet.
        LedgerVersionError: When its tables are of another version than this package.
        DamagedFileError: When it cannot be read.
    """
    url = parse_url(settings.ledger_url)
    name = as_text(url)
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").is_file():
        raise NoLedgerError(f"there is no ledger yet at {url.database}: the first run creates it")
    version = Ledger.tables_version(settings.ledger_url, shared=settings.shared)
    if version is None:
        raise NoLedgerError(f"the ledger {name} has no tables yet: the first run creates them")
    if version < migrations.HEAD:
        raise LedgerVersionError(
            f"the ledger {name} has the tables of an earlier version ({version}; this package has "
            f"{migrations.HEAD}). It is only read here. The next run with this version upgrades it"
            f"{', by a user who may write to it' if is_read_only(url) else ''}"
        )
    if version > migrations.HEAD:
        raise LedgerVersionError(
            f"the ledger {name} has the tables of a later version ({version}; this package has "
            f"{migrations.HEAD}). Install that version here"
        )
    ledger = Ledger(settings.ledger_url, shared=settings.shared)
    try:
        with ledger.read() as tx:
            pairing = pairings.read(tx)
        if pairing is None:
            raise DamagedFileError(f"the ledger {name} belongs to no root yet: the next run pairs them")
    except BaseException:
        ledger.close()
        raise
    return ledger, pairing
