"""Requests in flight: which request file holds which digest."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from batch_assets.core.errors import MissingFileError
from batch_assets.core.ledger.records import RequestFile
from batch_assets.core.root import Root
from batch_assets.core.store.digests import DigestOwners, Digests
from batch_assets.core.store.request_files import StoredRequestFile


def _digests(root: Root, file: RequestFile) -> Digests:
    try:
        return StoredRequestFile.of(root.storage, file).digests()
    except FileNotFoundError:
        raise MissingFileError(
            f"the request file {file.id} is {file.state}, but it is gone from {root.storage.url}: without it "
            "nobody can tell which requests are on their way. Restore it from a backup"
        ) from None


class HeldRequests:
    """The digests of request files that are ready, in doubt, or submitted and not collected.

    Args:
        may_be_gone: a file that is gone may hold any request: then all are in flight, and `problems` says so.

    Errors:
        MissingFileError: a file is gone that may not be.
    """

    def __init__(self, root: Root, files: list[RequestFile], *, may_be_gone: bool = False) -> None:
        self.problems: list[str] = []
        self._gone: list[RequestFile] = []
        self._files: list[RequestFile] = []
        found: list[Digests] = []
        for file in files:
            try:
                found.append(_digests(root, file))
                self._files.append(file)
            except MissingFileError as error:
                if not may_be_gone:
                    raise
                self._gone.append(file)
                self.problems.append(str(error))
        self._owners = DigestOwners(found)

    def contains(self, digests: Digests) -> NDArray[np.bool_]:
        """Which digests are in flight; the files that hold them count as waited on from then on."""
        found = self._owners.contains(digests)
        return found | True if self._gone else found

    @property
    def waited_on(self) -> list[str]:
        """Ids of the files that hold something that was asked for."""
        asked = [file.id for file, asked in zip(self._files, self._owners.asked, strict=True) if asked]
        return asked + [file.id for file in self._gone]
