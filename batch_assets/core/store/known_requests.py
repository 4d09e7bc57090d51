"""What is known of the requests of a request file, also if it is gone, damaged or has another file's content.

The digests beside the file name all of them. Without these, its own lines do, unless its checksum shows that it is
not what was written: then only the index of its submission shows which requests it may have had.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from batch_assets.core.io.storage import Storage
from batch_assets.core.ledger.records import RequestFile
from batch_assets.core.root import Root
from batch_assets.core.store.digest_files import read_digests
from batch_assets.core.store.digests import DIGEST_CHARACTERS, Digests, decode_tails, has_mark, tails_of
from batch_assets.core.store.in_flight import digests_of_submission
from batch_assets.core.store.request_files import StoredRequestFile
from batch_assets.core.store.request_lines import NO_TAIL, Scan

GONE = "it is gone"


@dataclass(frozen=True)
class KnownRequests:
    """The n requests of a request file, in its order.

    Attributes:
        root: The root.
        file: The request file.
        tails: The last 22 characters of their custom_ids, zeros where they are unknown; S22, shape (n,).
        starts: The offset of each request's line in the file, -1 without one; int64, shape (n,).
        problem: What is wrong with the file, as a clause; `None` if nothing is known to be.
        are_certain: The tails that are not zeros are those of the file. Otherwise it is not what was written, and
            its lines may be another file's.
    """

    root: Root
    file: RequestFile
    tails: NDArray[np.bytes_]
    starts: NDArray[np.int64]
    problem: str | None
    are_certain: bool

    @classmethod
    def read(cls, root: Root, file: RequestFile) -> KnownRequests:
        """Read what is known of a file's requests. At least `file.requests` are returned."""
        beside, lines, checksum = _read(root.storage, file)
        if lines is None:
            tails = _unknown(file.requests) if beside is None else tails_of(beside)
            return cls(root, file, tails, np.full(len(tails), -1, np.int64), GONE, are_certain=True)
        digests, is_own = decode_tails(lines.tails)
        is_whole = not lines.remainder and bool(is_own.all()) and len(digests) == file.requests
        if beside is not None:
            is_written = is_whole and np.array_equal(digests, beside)
        else:
            is_written = file.checksum is None or checksum == file.checksum
        if is_whole and is_written:
            return cls(root, file, lines.tails, lines.starts, None, are_certain=True)
        if beside is not None:
            tails, problem = tails_of(beside), _damage(file, digests, beside)
            return cls(root, file, tails, _starts(lines, tails), problem, are_certain=True)
        tails = _readable(lines.tails[is_own], file.requests)
        problem = _damage(file, digests[is_own], None)
        return cls(root, file, tails, _starts(lines, tails), problem, are_certain=is_written)

    @property
    def are_complete(self) -> bool:
        """Whether every request of the file is known."""
        return self.are_certain and bool(decode_tails(self.tails)[1].all())

    def custom_ids(self, numbers: NDArray[np.int64]) -> list[str | None]:
        """Return the custom_ids of some requests, as far as the file has their lines.

        Args:
            numbers: The numbers of the requests: int64, shape (m,).
        """
        starts = self.starts[numbers].tolist()
        there = [start for start in starts if start >= 0]
        stored = StoredRequestFile.of(self.root.storage, self.file)
        read = dict(zip(there, stored.custom_ids_at(there) if there else (), strict=True))
        return [read.get(start) for start in starts]

    def possible(self) -> Digests | None:
        """Return the digests among which those of the file are: S16, shape (m,).

        Returns:
            `None` if nothing limits them.
        """
        return digests_of_submission(self.root, self.file)

    def proves(self, custom_id: str, mark: str) -> bool:
        """Whether a custom_id shows that a result answers a request of the file that this root sent.

        Another root may have sent the same question, and so may another pipeline of this root. The line of the
        request tells. If it is damaged, the mark of this root and the digest do.

        Args:
            custom_id: The custom_id.
            mark: The mark of this root.
        """
        tail = custom_id[-DIGEST_CHARACTERS:].encode()
        if len(tail) != DIGEST_CHARACTERS:
            return False
        digest, is_own = decode_tails(np.array([tail], f"S{DIGEST_CHARACTERS}"))
        if not is_own[0]:
            return False
        numbers = np.flatnonzero(decode_tails(self.tails)[0] == digest[0])
        if custom_id in self.custom_ids(numbers):
            return True
        if not has_mark(custom_id, mark) or self._is_as_written():
            return False
        if len(numbers) and self.are_certain:
            return True
        possible = None if self.are_complete else self.possible()
        return possible is not None and bool(np.isin(digest, possible)[0])

    def narrowed(self, others: Digests) -> KnownRequests:
        """Complete the requests from the index, if it leaves exactly as many as the file had.

        Args:
            others: Requests of the submission that are certainly not in the file: S16, shape (m,).
        """
        possible = None if self.are_complete else self.possible()
        left = np.setdiff1d(possible, others) if possible is not None else others[:0]
        if len(left) != len(self.tails):
            return self
        digests, is_own = decode_tails(self.tails)
        is_kept = is_own & np.isin(digests, left)
        tails = self.tails.copy()
        tails[~is_kept] = tails_of(np.setdiff1d(left, digests[is_kept]))
        starts = np.where(is_kept, self.starts, -1)
        return replace(self, tails=tails, starts=starts, are_certain=True)

    def _is_as_written(self) -> bool:
        if self.problem is not None:
            return False
        return self.file.checksum in (None, _lines(self.root.storage, self.file, hashed=True)[1])


def _read(storage: Storage, file: RequestFile) -> tuple[Digests | None, Scan | None, str | None]:
    """Return the digests beside a file, its lines, and its SHA-256 if there are no digests; `None` if missing."""
    if storage.is_local:
        beside = read_digests(storage, file)
        return beside, *_lines(storage, file, hashed=beside is None)
    # Side by side, before it is known whether the checksum is needed.
    beside, read = storage.both(partial(read_digests, storage, file), partial(_lines, storage, file, hashed=True))
    return beside, *read


def _lines(storage: Storage, file: RequestFile, *, hashed: bool) -> tuple[Scan | None, str | None]:
    """Return the lines of a file, and its SHA-256 if that is wanted; `None` if it does not exist."""
    stored = StoredRequestFile.of(storage, file)
    try:
        return stored.scan_with_checksum() if hashed else (stored.scan(), None)
    except FileNotFoundError:
        return None, None


def _unknown(count: int) -> NDArray[np.bytes_]:
    return np.full(count, NO_TAIL, f"S{DIGEST_CHARACTERS}")


def _readable(tails: NDArray[np.bytes_], requests: int) -> NDArray[np.bytes_]:
    """Return the tails of readable lines, each once, in order, and zeros for as many as are missing.

    If there are too many, some are another file's, and none is believed.
    """
    first = np.sort(np.unique(tails, return_index=True)[1])
    known = tails[first] if len(first) <= requests else tails[:0]
    return np.concatenate([known, _unknown(requests - len(known))])


def _starts(lines: Scan, tails: NDArray[np.bytes_]) -> NDArray[np.int64]:
    """Return the offset of the first line with each tail, -1 without one: int64, shape (n,)."""
    known, first = np.unique(lines.tails, return_index=True)
    if not len(known):
        return np.full(len(tails), -1, np.int64)
    position = np.minimum(np.searchsorted(known, tails), len(known) - 1)
    is_there = (known[position] == tails) & (tails != NO_TAIL)
    return np.where(is_there, lines.starts[first[position]], -1)


def _damage(file: RequestFile, readable: Digests, own: Digests | None) -> str:
    """Describe a file that is not as it was written.

    Args:
        file: The file.
        readable: The digests of the lines that can be read: S16, shape (m,).
        own: The digests of the file, if they are known: S16, shape (n,).
    """
    count = len(np.unique(readable if own is None else np.intersect1d(readable, own)))
    if count >= file.requests:
        return "it is not what was written"
    return f"it has {count:,} of its {file.requests:,} lines"
