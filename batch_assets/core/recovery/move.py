"""Pair a root and a ledger because a user says that they belong together: one was moved, restored or replaced."""

from __future__ import annotations

from dataclasses import dataclass

from batch_assets.core.errors import DamagedFileError
from batch_assets.core.io.storage import Storage
from batch_assets.core.ledger import Ledger
from batch_assets.core.ledger import pairing as pairings
from batch_assets.core.recovery.missing_files import agreement, lost_most_files, lost_pipelines
from batch_assets.core.recovery.pairing import is_missing_file, open_ledger
from batch_assets.core.recovery.pairing_texts import Refusals
from batch_assets.core.recovery.root_file import DAMAGED_ROOT_FILE, RootFile
from batch_assets.core.settings import Settings


@dataclass(frozen=True)
class Move:
    """What pairing the root and the ledger of the settings would change.

    Attributes:
        lines: The root, the ledger, and how they compare, as text.
        is_done: They are a pair already: there is nothing to do.
        warnings: What would be sent and paid for again, as text.
    """

    lines: list[str]
    is_done: bool
    warnings: list[str]


def plan_move(settings: Settings) -> Move:
    """Find out what a move would change. Changes nothing, but upgrades the tables of an older ledger.

    Raises:
        DamagedFileError: When the ledger is damaged.
    """
    storage = Storage.of(settings)
    names, root_file = Refusals(settings.ledger_url, storage), None
    lines = [f"root    {names.root}", f"ledger  {names.ledger}"]
    try:
        root_file = RootFile.read(storage)
    except DamagedFileError as error:
        lines.append(
            f"{error}. Otherwise it is written again, and the damaged one is renamed to {DAMAGED_ROOT_FILE}."
        )
    if root_file is not None:
        lines.append(f"The root belonged to the ledger {root_file.ledger_path(storage)}.")
    if is_missing_file(settings.ledger_url):
        return Move([*lines, _NEW], False, [])
    if Ledger.tables_version(settings.ledger_url, shared=settings.shared) is None:
        return Move([*lines, _NEW], False, [])
    ledger = Ledger(settings.ledger_url, shared=settings.shared)
    try:
        with ledger.read() as tx:
            pairing, comparison = pairings.read(tx), agreement(tx, storage)
            since = pairings.files_from(tx)
            lost, of_pipelines = lost_most_files(tx, storage, since), lost_pipelines(tx, storage, since)
    finally:
        ledger.close()
    if pairing is not None:
        lines.append(f"The ledger belonged to the root {pairing.root_location}.")
    lines.append(f"Submissions: {comparison.as_text}.")
    is_paired = pairing is not None and root_file is not None and root_file.agrees(pairing)
    warnings = []
    if lost is not None:
        warnings.append(f"{lost.as_text}: their requests are sent and paid for again")
    elif not comparison.is_same:
        warnings.append("their submissions differ: requests of those that are missing are sent and paid for again")
    if lost is None:
        warnings += [
            f"{name}: {comparison.as_text}: their requests are sent and paid for again"
            for name, comparison in of_pipelines.items()
        ]
    return Move(lines, is_paired and lost is None and not of_pipelines, warnings)


def move(settings: Settings) -> None:
    """Pair the root and the ledger of the settings. Those that they belonged to before are refused from now on."""
    ledger, _ = open_ledger(settings, Storage.of(settings), is_meant=True)
    ledger.close()


_NEW = "The ledger is new: it is filled from the submissions under the root."
