"""The refusals of a root and a ledger that do not belong together. Each names both, and how to pair them."""

from __future__ import annotations

from batch_assets.core.errors import DamagedFileError, PairingError
from batch_assets.core.io.database import as_text_with_parameters
from batch_assets.core.io.storage import Storage
from batch_assets.core.ledger.connection import parse_url
from batch_assets.core.ledger.records import Pairing
from batch_assets.core.recovery.missing_files import Agreement
from batch_assets.core.recovery.root_file import RootFile
from batch_assets.core.remedies import PairRoot


class Refusals:
    """The refusals of the root and the ledger in the settings.

    Args:
        ledger_url: The URL of the ledger.
        storage: The root.

    Attributes:
        ledger: The ledger, without its password. Its parameters may name a schema.
        root: The root.
    """

    def __init__(self, ledger_url: str, storage: Storage) -> None:
        url = parse_url(ledger_url)
        is_file = url.get_backend_name() == "sqlite"
        self.ledger = (url.database or "") if is_file else as_text_with_parameters(url)
        self.root = storage.uri()
        self._storage = storage

    def second_ledger(self, root_file: RootFile) -> PairingError:
        """Refuse a new ledger for a root that has another one."""
        return PairingError(
            f"The root {self.root} belongs to the ledger {root_file.ledger_path(self._storage)}, but the ledger "
            f"is set to {self.ledger}, which knows nothing of it: everything would be sent and paid for again. "
            "Set the ledger to the root's own. If that ledger is lost, pair the root with the new one, which is "
            "then filled from the files under the root",
            remedy=PairRoot(),
        )

    def strangers(self, pairing: Pairing, root_file: RootFile | None) -> PairingError:
        """Refuse a root and a ledger that each belong to another one."""
        root_id, ledger = "none", "none"
        if root_file is not None:
            root_id, ledger = root_file.id, root_file.ledger_path(self._storage)
        return PairingError(
            f"The ledger {self.ledger} (id {pairing.ledger_id}) belongs to the root {pairing.root_location} (id "
            f"{pairing.root_id}), and the root {self.root} (id {root_id}) belongs to the ledger {ledger}. One "
            "ledger serves one root: set a root and a ledger that are a pair. Two roots on one database server "
            "need two databases or schemas. These two may be meant to be a pair, for example because one of them "
            "was restored from a backup",
            remedy=PairRoot(),
        )

    def damaged_root_file(self, damage: DamagedFileError) -> PairingError:
        """Refuse a ledger without ids, where the root does not say which ledger is its own."""
        return PairingError(
            f"{damage}. Only this file says which ledger belongs to the root {self.root}; the ledger "
            f"{self.ledger} has no record of it. If this is the right ledger, pair the two: the damaged file is "
            "then renamed",
            remedy=PairRoot(),
        )

    def disagreement(
        self, pairing: Pairing | None, comparison: Agreement, damage: DamagedFileError | None
    ) -> PairingError:
        """Refuse a root and a ledger whose submissions differ, where one of them has no id of the other."""
        damaged = f"{damage}. " if damage is not None else ""
        owner = f", which belongs to the root {pairing.root_location}," if pairing is not None else ""
        return PairingError(
            f"{damaged}The root {self.root} and the ledger {self.ledger}{owner} do not belong together: "
            f"{comparison.as_text}. Is the root's volume mounted, and is it the right root? Is the ledger that of "
            "this root? Nothing is sent, because everything would be paid for again. A new root needs a ledger of "
            "its own: another file, database or schema. The two may also be meant to be a pair",
            remedy=PairRoot(),
        )

    def lost_files(self, comparison: Agreement) -> PairingError:
        """Refuse a root most of whose files are missing."""
        return PairingError(
            f"The root {self.root} has lost its files: {comparison.as_text}. The ledger {self.ledger} knows "
            "them. Are all volumes under the root mounted, and is it the right folder or prefix? Restore the "
            "files from a backup. If they are gone for good, pair the two again: their requests are then sent and "
            "paid for again",
            remedy=PairRoot(),
        )

    def lost_pipeline(self, pipeline: str, comparison: Agreement) -> PairingError:
        """Refuse to send requests of a pipeline most of whose files are missing."""
        return PairingError(
            f"The pipeline {pipeline} has lost its files under {self.root}: {comparison.as_text}. The ledger "
            f"{self.ledger} knows them. Nothing is sent for {pipeline}, because its requests would be paid for "
            "again; other pipelines go on. Are all volumes under the root mounted? Restore the files from a "
            "backup. If they are gone for good, pair the root and the ledger again: the requests are then sent "
            "and paid for again",
            remedy=PairRoot(),
        )
