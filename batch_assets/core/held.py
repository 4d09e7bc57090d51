"""Requests in flight: which request file holds which digest."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from batch_assets.core.digests import DigestOwners, Digests
from batch_assets.core.errors import MissingFileError
from batch_assets.core.ledger.records import RequestFile
from batch_assets.core.request_files import StoredRequestFile
from batch_assets.core.root import Root


def _digests(root: Root, file: RequestFile) -> Digests:
    try:
        return StoredRequestFile.of(root, file).digests()
    except FileNotFoundError:
        raise MissingFileError(
            f"the request file {file.id} is {file.state}, but it is gone from {root.storage.url}: without it "
            "nobody can tell which requests are on their way. Restore it from a backup"
        ) from None


class HeldRequests:
    """The digests of request files that are ready, in doubt, or submitted and not collected."""

    def __init__(self, root: Root, files: list[RequestFile]) -> None:
        self._files = files
        self._owners = DigestOwners([_digests(root, file) for file in files])

    def contains(self, digests: Digests) -> NDArray[np.bool_]:
        """Which digests are in flight; the files that hold them count as waited on from then on."""
        return self._owners.contains(digests)

    @property
    def waited_on(self) -> list[str]:
        """Ids of the files that hold something that was asked for."""
        return [file.id for file, asked in zip(self._files, self._owners.asked, strict=True) if asked]
