"""Requests in flight: which request file holds which digest."""

from __future__ import annotations

import numpy as np

from batch_assets.core.digests import Digests, position_in
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
        parts = [_digests(root, file) for file in files]
        owners = [np.full(len(part), number, dtype=np.int32) for number, part in enumerate(parts)]
        digests: Digests = np.concatenate(parts) if parts else np.empty(0, dtype="S16")
        order = np.argsort(digests, kind="stable")
        self._digests = digests[order]
        self._owners = np.concatenate(owners)[order] if owners else np.empty(0, dtype=np.int32)
        self._used = np.zeros(len(files), dtype=bool)

    def contains(self, digests: Digests) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """Which digests are in flight; the files that hold them count as waited on from then on."""
        position = position_in(self._digests, digests)
        found = position >= 0
        self._used[self._owners[position[found]]] = True
        return found

    @property
    def waited_on(self) -> list[str]:
        """Ids of the files that hold something that was asked for."""
        return [file.id for file, used in zip(self._files, self._used, strict=True) if used]
