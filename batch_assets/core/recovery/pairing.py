"""Open the ledger of a root, and refuse a ledger and a root that do not belong together.

Root and ledger each have a random id, and each stores the other's: the root in root.json, the ledger in its table
`pairing`. Locations may change; they are kept for messages, and to recognize a ledger that was lost.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

from batch_assets.core.errors import DamagedFileError
from batch_assets.core.io.storage import Storage
from batch_assets.core.ledger import Ledger, Transaction, restore
from batch_assets.core.ledger import pairing as pairings
from batch_assets.core.ledger.connection import parse_url
from batch_assets.core.ledger.records import Pairing
from batch_assets.core.recovery.missing_files import (
    Agreement,
    agreement,
    check_renaming,
    lost_files_of,
    lost_most_files,
    lost_pipelines,
)
from batch_assets.core.recovery.pairing_texts import Refusals
from batch_assets.core.recovery.rebuild import find_lost
from batch_assets.core.recovery.root_file import DAMAGED_ROOT_FILE, RootFile, location_of
from batch_assets.core.settings import Settings

_log = logging.getLogger("batch_assets")


def open_ledger(settings: Settings, storage: Storage, *, is_meant: bool = False) -> tuple[Ledger, Pairing]:
    """Open a root's ledger. A lost ledger is rebuilt, and a new one is paired with the root.

    Args:
        settings: Where root and ledger are.
        storage: The root.
        is_meant: A user confirmed that the two belong together: pair them, whatever they belonged to before.

    Raises:
        PairingError: When the ledger belongs to another root, the root to another ledger, or most of the files
            that the ledger knows are missing. Nothing was changed.
        DamagedFileError: When the ledger or a file of the root is damaged. A damaged root.json is renamed and
            written again if the ledger is the root's.
    """
    return _Opening(settings, storage, is_meant).run()


class _Opening:
    def __init__(self, settings: Settings, storage: Storage, is_meant: bool) -> None:
        self._url, self._storage, self._is_meant = settings.ledger_url, storage, is_meant
        self._is_shared = settings.shared
        self._location = location_of(self._url, storage)
        self._refusals = Refusals(self._url, storage)
        self._damage: DamagedFileError | None = None
        self._is_first = False

    def run(self) -> tuple[Ledger, Pairing]:
        if is_missing_file(self._url):  # before Ledger makes the file
            self._own_root_file()
        ledger = Ledger(self._url, self._fill, shared=self._is_shared)
        try:
            with ledger.read() as tx:
                before = pairings.read(tx)
            files_from = before.files_from if before is not None else 0.0
            pairing, lost = self._storage.both(
                partial(self._pairing, ledger, before), partial(self._lost_files, ledger, files_from)
            )
            if pairing.files_from != files_from:
                lost = self._lost_files(ledger, pairing.files_from)
            if lost is not None:
                raise self._refusals.lost_files(lost)
        except BaseException:
            ledger.close()
            raise
        return ledger, pairing

    def _lost_files(self, ledger: Ledger, files_from: float) -> Agreement | None:
        with ledger.read() as tx:
            return lost_most_files(tx, self._storage, files_from)

    def _pairing(self, ledger: Ledger, pairing: Pairing | None) -> Pairing:
        # This process has just looked: the root has no root.json and no submissions.
        if pairing is not None and self._is_first:
            with ledger.write():
                self._new_root_file(pairing).write(self._storage, replaces=False)
        root_file = self._root_file()
        if pairing is not None and root_file is not None and root_file.agrees(pairing) and not self._is_meant:
            return pairing
        with ledger.write() as tx:  # no other process pairs this ledger meanwhile
            pairing = self._pair(tx)
        # The ledger is first: a process that is killed in between leaves a ledger that root.json can be made from.
        with ledger.write():
            root_file = self._root_file()
            if root_file is None or not root_file.agrees(pairing):
                if self._damage is not None:
                    _log.warning(f"{self._damage}. It is written again, and this one is now {DAMAGED_ROOT_FILE}.")
                key_hash = root_file.key_hash if root_file is not None else None
                mine = self._new_root_file(pairing, key_hash)
                mine.write(self._storage, replaces=root_file is not None)
        root_file = self._root_file()
        if root_file is None or not root_file.agrees(pairing):  # another new ledger was faster
            raise self._refusals.strangers(pairing, root_file)
        return pairing

    def _new_root_file(self, pairing: Pairing, key_hash: str | None = None) -> RootFile:
        return RootFile(
            id=pairing.root_id,
            ledger=pairing.ledger_id,
            ledger_location=self._location,
            key_hash=key_hash,
        )

    def _root_file(self) -> RootFile | None:
        """Read root.json; `None` if the root has none, or a damaged one. A paired ledger has its content too."""
        self._damage = None
        try:
            return RootFile.read(self._storage)
        except DamagedFileError as error:
            self._damage = error
            return None

    def _own_root_file(self) -> RootFile | None:
        """Read root.json for a ledger without ids. Refuse if the root's own ledger is elsewhere, or may be."""
        root_file = self._root_file()
        if self._damage is not None and not self._is_meant:
            raise self._refusals.damaged_root_file(self._damage)
        if root_file is not None and root_file.ledger_location != self._location and not self._is_meant:
            raise self._refusals.second_ledger(root_file)
        return root_file

    def _fill(self) -> Callable[[Transaction], None]:
        """Find what a new ledger must record: its pairing, and the submissions under the root if it was lost."""
        root_file = self._own_root_file()
        write_lost = find_lost(self._storage)

        def write(tx: Transaction) -> None:
            self._new_pairing(tx, root_file)
            self._is_first = root_file is None and self._damage is None and write_lost is None
            if write_lost is not None:
                write_lost(tx)
                restore.sent_with(tx, root_file.key_hash if root_file is not None else None)

        return write

    def _new_pairing(self, tx: Transaction, root_file: RootFile | None, files_from: float = 0.0) -> Pairing:
        root_id = root_file.id if root_file is not None else pairings.new_id()
        replaces = root_file.ledger if root_file is not None else None
        return pairings.pair(tx, root_id, self._storage.uri(), replaces=replaces, files_from=files_from)

    def _pair(self, tx: Transaction) -> Pairing:
        """Check the ids with the ledger locked, and pair a ledger that has none.

        A ledger of an earlier version has no ids. A process may have been killed between the commit of the ledger
        and the writing of root.json. In both cases the submissions decide.
        """
        pairing = pairings.read(tx)
        if self._is_meant:
            return self._pair_as_meant(tx, pairing)
        root_file = self._root_file()
        if pairing is not None and root_file is not None:
            is_replaced = (pairing.root_id, pairing.replaces) == (root_file.id, root_file.ledger)
            if not (is_replaced or root_file.agrees(pairing)):
                raise self._refusals.strangers(pairing, root_file)
            return pairing
        if pairing is None:
            root_file = self._own_root_file()
        comparison = agreement(tx, self._storage)
        if not comparison.is_same:
            raise self._refusals.disagreement(pairing, comparison, self._damage)
        return pairing if pairing is not None else self._new_pairing(tx, root_file)

    def _pair_as_meant(self, tx: Transaction, pairing: Pairing | None) -> Pairing:
        root_file = self._root_file()
        files_from = pairings.files_from(tx)
        is_lost = lost_most_files(tx, self._storage, files_from) or lost_pipelines(tx, self._storage, files_from)
        if not agreement(tx, self._storage).is_same or is_lost:
            files_from = tx.now
        if root_file is None and pairing is not None:
            root_file = RootFile(id=pairing.root_id, ledger=pairing.ledger_id, ledger_location=self._location)
        return self._new_pairing(tx, root_file, files_from)


def check_files(settings: Settings, storage: Storage, tx: Transaction, pipeline: str) -> None:
    """Refuse a pipeline that has lost its files, before its requests are sent and paid for again.

    Args:
        settings: Where root and ledger are.
        storage: The root.
        tx: The transaction.
        pipeline: The name of the pipeline.

    Raises:
        PairingError: When the files are missing, and no user has accepted it.
        UnfinishedRenamingError: When the files are under another name.
    """
    check_renaming(tx, storage, pipeline)
    lost = lost_files_of(tx, storage, pairings.files_from(tx), pipeline)
    if lost is not None:
        raise Refusals(settings.ledger_url, storage).lost_pipeline(pipeline, lost)


def is_missing_file(ledger_url: str) -> bool:
    """Whether a ledger is a file that does not exist."""
    url = parse_url(ledger_url)
    return url.get_backend_name() == "sqlite" and not Path(url.database or "").exists()
