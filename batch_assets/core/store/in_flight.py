"""Requests in flight, and the request file of each."""

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
            f"the request file {file.id} is {file.state}, but it is gone from {root.storage.url}: without it, the "
            "requests in flight are unknown. Restore it from a backup"
        ) from None


class RequestsInFlight:
    """The digests of request files that are in flight, see `FileState.in_flight`.

    Args:
        root: The root.
        files: The request files.
        may_be_gone: Whether a file may be missing. It may have any request, so all requests then count as in
            flight.

    Attributes:
        problems: The text about each missing file.

    Raises:
        MissingFileError: When a file is missing and may not be.
    """

    def __init__(self, root: Root, files: list[RequestFile], *, may_be_gone: bool = False) -> None:
        self.problems: list[str] = []
        self._missing: list[RequestFile] = []
        self._files: list[RequestFile] = []
        digests: list[Digests] = []
        for file in files:
            try:
                digests.append(_digests(root, file))
                self._files.append(file)
            except MissingFileError as error:
                if not may_be_gone:
                    raise
                self._missing.append(file)
                self.problems.append(str(error))
        self._owners = DigestOwners(digests)

    def contains(self, digests: Digests) -> NDArray[np.bool_]:
        """Return whether each digest is in flight: bool, shape (n,).

        It adds the files of these digests to `waited_on`.

        Args:
            digests: S16, shape (n,).
        """
        is_owned = self._owners.contains(digests)
        return is_owned | True if self._missing else is_owned

    @property
    def waited_on(self) -> list[str]:
        """The ids of the files with a digest that `contains` was called with, and of all missing files."""
        requested = self._owners.requested
        ids = [file.id for file, is_requested in zip(self._files, requested, strict=True) if is_requested]
        return ids + [file.id for file in self._missing]
