"""Requests in flight, and the request file of each."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from batch_assets.core.errors import DamagedFileError, MissingFileError
from batch_assets.core.io.names import PartName
from batch_assets.core.io.storage import Storage
from batch_assets.core.ledger import lost_answers, submissions
from batch_assets.core.ledger.records import RequestFile
from batch_assets.core.root import Root
from batch_assets.core.store.answer_index import is_read_whole
from batch_assets.core.store.digest_files import read_digests, write_digests
from batch_assets.core.store.digests import DIGEST_BYTES, DigestOwners, Digests, decode_tails, pack
from batch_assets.core.store.in_flight_index import InFlightIndex
from batch_assets.core.store.manifest import Manifest
from batch_assets.core.store.request_files import StoredRequestFile
from batch_assets.core.store.request_index import DIGEST, RequestIndex
from batch_assets.core.store.request_lines import body_bytes
from batch_assets.core.store.responses import digest_array


@dataclass(frozen=True)
class FileDigests:
    """The requests that can be read from a request file.

    Attributes:
        digests: S16, shape (n,), in order. Lines that were damaged are left out.
        problem: What is wrong with the file, as a clause, so that it may hold other requests too; `None` if it is
            complete.
    """

    digests: Digests
    problem: str | None = None


def known_digests(storage: Storage, file: RequestFile, *, own_partition: str | None = None) -> FileDigests:
    """Return the digests of a request file that are beside it, or else those that can be read from it.

    Args:
        storage: The storage of the root.
        file: The request file.
        own_partition: See `digests_of`.
    """
    beside = read_digests(storage, file)
    return FileDigests(beside) if beside is not None else digests_of(storage, file, own_partition=own_partition)


def digests_of(storage: Storage, file: RequestFile, *, own_partition: str | None = None) -> FileDigests:
    """Read the digests of a request file from the file itself, as far as it is there and can be read.

    Args:
        storage: The storage of the root.
        file: The request file.
        own_partition: The partition whose requests the caller holds the lease on; `None` without one. If the file
            is of this partition, its digests are written beside it.
    """
    stored = StoredRequestFile.of(storage, file)
    try:
        scan, checksum = stored.scan_with_checksum()
    except FileNotFoundError:
        return FileDigests(pack([]), "it is gone")
    digests, are_ours = decode_tails(scan.tails)
    readable = digests[are_ours]
    if scan.remainder or len(readable) != file.requests:
        return FileDigests(readable, f"it is damaged: {len(readable):,} of {file.requests:,} lines can be read")
    if file.checksum not in (None, checksum):
        return FileDigests(readable, "it is damaged: it is not what was written")
    if own_partition == file.partition and checksum == file.checksum:
        write_digests(storage, stored.parts[:-1], PartName.parse(file.name), readable, checksum)
    return FileDigests(readable)


def lost_text(root: Root, file: RequestFile) -> str | None:
    """Return a text about a request file in flight that is gone or has another size; `None` if it seems intact.

    Its digests are known from beside it, so it holds nothing back. But its requests cannot be sent, or their
    answers cannot be matched, before it is restored.
    """
    size = root.storage.size(*StoredRequestFile.of(root.storage, file).parts)
    if size is None:
        return _text(root, file, "it is gone")
    if body_bytes(size) != file.bytes:
        return _text(root, file, f"it is damaged: its body has {body_bytes(size):,} of {file.bytes:,} bytes")
    return None


def digests_of_submission(root: Root, file: RequestFile) -> Digests | None:
    """Return all requests of the submissions with requests in a file: S16, shape (n,).

    A request file, also one that a retry or a split wrote, never holds any other request. So the indexes say what
    may be in a file that is gone. If partitions were gathered, the manifest names the other submissions.

    Returns:
        `None` if an index is unreadable, or the manifest of a file that other submissions wait on too.
    """
    folders = [(file.partition, file.submission_id)]
    try:
        manifest = Manifest.read(root.storage, file.pipeline, *folders[0])
        folders += [(other.partition, other.submission) for other in manifest.holds or ()]
    except (MissingFileError, DamagedFileError):
        with root.ledger.read() as tx:
            if submissions.is_shared(tx, file):
                return None
    try:
        digests = [
            digest_array(rows.column(0).drop_null())
            for folder in folders
            for rows in RequestIndex(root.storage, file.pipeline, *folder).slices([DIGEST])
        ]
    except (MissingFileError, DamagedFileError):
        return None
    return np.unique(np.concatenate([np.empty(0, dtype=f"S{DIGEST_BYTES}"), *digests]))


class RequestsInFlight:
    """The digests of request files that are in flight, see `FileState.in_flight`.

    A file that is gone or damaged may hold any request of its submission that no other file in flight holds. These
    requests count as in flight until the file is restored or settled: a lost file proves nothing.

    Args:
        root: The root.
        files: The request files.
        may_be_unknown: Whether the index of a lost file may be unreadable as well. All requests then count as in
            flight.
        own_partition: See `digests_of`.
        rows: The number of rows that will be asked for, as far as it is known.

    Attributes:
        problems: The text about each lost file whose digests are not all known.

    Raises:
        MissingFileError: When an index is unreadable and may not be.
    """

    def __init__(
        self,
        root: Root,
        files: list[RequestFile],
        *,
        may_be_unknown: bool = False,
        own_partition: str | None = None,
        rows: int = 0,
    ) -> None:
        self._root = root
        self._known_digests = partial(known_digests, root.storage, own_partition=own_partition)
        self.problems: list[str] = []
        self._unknown: list[RequestFile] = []
        self._index: InFlightIndex | None = None
        read = files
        if not is_read_whole(len(files), sum(file.requests for file in files), rows):
            self._index = InFlightIndex(root, files[0].pipeline, files, self._all_digests)
            read = self._index.left
        self._files: list[RequestFile] = []
        digests: list[Digests] = []
        lost: list[RequestFile] = []
        for file, known in root.storage.each(self._known_digests, read):
            self._files.append(file)
            digests.append(known.digests)
            if known.problem is not None:
                lost.append(file)
                self.problems.append(_text(root, file, known.problem))
        self._lost = {file.id for file in lost}
        unread: dict[str, Digests | None] = {}  # by submission
        for file, problem in zip(lost, self.problems, strict=True):
            if file.submission_id not in unread:
                unread[file.submission_id] = self._unread(file, files)
            possible = unread[file.submission_id]
            if possible is not None:
                self._files.append(file)
                digests.append(possible)
            elif may_be_unknown or lost_answers.is_downloaded_again(file):
                self._unknown.append(file)
            else:
                raise MissingFileError(
                    f"{problem}, or the index.parquet and the manifest.json beside it: otherwise the requests in "
                    "flight are unknown",
                    remedy=lost_answers.remedy(file),
                )
        self._owners = DigestOwners(digests)

    def _all_digests(self, file: RequestFile) -> Digests | None:
        known = self._known_digests(file)
        return known.digests if known.problem is None else None

    def _unread(self, lost: RequestFile, files: list[RequestFile]) -> Digests | None:
        """Return the requests of a lost file's submission that cannot be read of its files in flight.

        Returns:
            S16, shape (n,); `None` if the index of the submission is unreadable.
        """
        possible = digests_of_submission(self._root, lost)
        if possible is None:
            return None
        same = [file for file in files if file.submission_id == lost.submission_id]
        known = self._root.storage.each(partial(known_digests, self._root.storage), same)
        readable = [one.digests for _, one in known]
        return np.setdiff1d(possible, np.concatenate(readable))

    def contains(self, digests: Digests) -> NDArray[np.bool_]:
        """Return whether each digest is in flight: bool, shape (n,).

        It adds the files of these digests to `waited_on`.

        Args:
            digests: S16, shape (n,).
        """
        is_owned = self._owners.contains(digests)
        if self._index is not None:
            is_owned |= self._index.contains(digests)
        return is_owned | True if self._unknown else is_owned

    @property
    def waited_on(self) -> list[str]:
        """The ids of the files with a digest that `contains` was called with, and of files without an index."""
        requested = self._owners.requested
        ids = [file.id for file, is_requested in zip(self._files, requested, strict=True) if is_requested]
        ids += [file.id for file in self._index.requested] if self._index is not None else []
        return list(dict.fromkeys(ids + [file.id for file in self._unknown]))

    def lost(self) -> list[str]:
        """Return `problems`, and those of files in `waited_on` that are lost although their digests are known."""
        waited_on = set(self.waited_on)
        known = {file.id: file for file in self._files if file.id in waited_on and file.id not in self._lost}
        known |= {file.id: file for file in self._index.requested} if self._index is not None else {}
        texts = [text for file in known.values() if (text := lost_text(self._root, file)) is not None]
        return [*self.problems, *texts]


def _text(root: Root, file: RequestFile, problem: str) -> str:
    where = root.storage.uri(*StoredRequestFile.of(root.storage, file).parts)
    return (
        f"the request file {file.id} is {file.state}, but {problem} ({where}). Its requests count as in flight. "
        "Restore it from a backup"
    )
