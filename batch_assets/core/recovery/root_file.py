"""The file root.json: the id of a root, and of the ledger that it belongs to."""

from __future__ import annotations

import json
from pathlib import Path

import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict

from batch_assets.core.errors import DamagedFileError
from batch_assets.core.io.database import holds_secret
from batch_assets.core.io.json_files import read_document
from batch_assets.core.io.storage import Storage
from batch_assets.core.ledger.connection import Ledger, parse_url
from batch_assets.core.ledger.records import Pairing

ROOT_FILE = "root.json"
DAMAGED_ROOT_FILE = f"{ROOT_FILE}.damaged"


class RootFile(BaseModel):
    """The content of root.json.

    Attributes:
        id: The id of the root.
        ledger: The id of its ledger.
        ledger_location: Where the ledger was when they were paired: a path under the root, a path, or a URL
            without user and password.
        key_hash: A salted hash of the API key that was last used to send something; `None` if it is unknown. A
            ledger that is rebuilt knows by it which key the files in doubt may have been sent with.
    """

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    id: str
    ledger: str
    ledger_location: str
    key_hash: str | None = None

    @classmethod
    def read(cls, storage: Storage) -> RootFile | None:
        """Read it; `None` if the root has none.

        Raises:
            DamagedFileError: When it is not what this project wrote.
        """
        try:
            return read_document(storage, (ROOT_FILE,), cls)
        except FileNotFoundError:
            return None

    def write(self, storage: Storage, *, replaces: bool) -> None:
        """Write it. The caller must hold the lock of the ledger.

        Args:
            storage: The root.
            replaces: The root has a root.json that this one replaces. Otherwise a damaged one is renamed, and one
                that a process with another ledger has just written is left as it is.
        """
        storage.remove_leftovers(name=ROOT_FILE)
        content = json.dumps(self.model_dump(exclude_none=True), indent=2).encode() + b"\n"
        if replaces:
            storage.write_bytes(content, ROOT_FILE)
        elif not storage.create_bytes(content, ROOT_FILE) and readable(storage) is None:
            storage.rename((ROOT_FILE,), (DAMAGED_ROOT_FILE,))
            storage.create_bytes(content, ROOT_FILE)

    def agrees(self, pairing: Pairing) -> bool:
        """Whether the ledger with this pairing is the root's, and the root is the ledger's."""
        return (pairing.root_id, pairing.ledger_id) == (self.id, self.ledger)

    def ledger_path(self, storage: Storage) -> str:
        """Where the root's ledger was, as a full path or a URL."""
        location = self.ledger_location
        is_inside = "://" not in location and not Path(location).is_absolute()
        return storage.path(location) if is_inside else location


def note_key(storage: Storage, ledger: Ledger, key_hash: str | None) -> None:
    """Record the API key that is about to be used to send something, unless it is the one that was used last.

    Args:
        storage: The root.
        ledger: Its ledger.
        key_hash: The salted hash of the key; `None` if it is unknown.
    """
    if _with_other_key(storage, key_hash) is None:
        return
    with ledger.write():  # its lock keeps other processes from writing the file
        if (root_file := _with_other_key(storage, key_hash)) is not None:
            root_file.model_copy(update={"key_hash": key_hash}).write(storage, replaces=True)


def _with_other_key(storage: Storage, key_hash: str | None) -> RootFile | None:
    """Return root.json if it has another key. One that is gone or damaged is written when the root is opened."""
    root_file = readable(storage)
    return root_file if root_file is not None and root_file.key_hash != key_hash else None


def readable(storage: Storage) -> RootFile | None:
    """Read root.json; `None` if the root has none, or a damaged one."""
    try:
        return RootFile.read(storage)
    except DamagedFileError:
        return None


def location_of(url_text: str, storage: Storage) -> str:
    """Describe where a ledger is, without its user and password. Within a local root it is a relative path."""
    url = parse_url(url_text)
    if url.get_backend_name() != "sqlite":
        server = sa.URL.create(url.drivername, host=url.host, port=url.port, database=url.database)
        with_query = server.set(query=url.query)  # it may select a schema
        return (server if holds_secret(with_query) else with_query).render_as_string()
    path = Path(url.database or "").resolve()
    root = Path(storage.path()).resolve()
    return str(path.relative_to(root)) if storage.is_local and path.is_relative_to(root) else str(path)
