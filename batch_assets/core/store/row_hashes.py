"""The digest of each row's request by a hash of everything that it was rendered from: 32 bytes for each row.

The file is in the folder of a submission, beside its index. The next build takes from it the digests of rows that
would render the same, and renders only the others. It is a copy: a file that is missing, damaged or made in
another context counts as missing, and all rows are rendered.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from batch_assets.core.errors import StorageError
from batch_assets.core.io.storage import Storage
from batch_assets.core.store.digests import DIGEST_BYTES, Digests, halves_of, position_of_halves

ROW_HASHES = "rows.hashes"
"""The name of the file."""
# The file: this mark, the context, then for each row its hash and its digest, and last a checksum of all that.
_MARK = b"rowhash1"
CONTEXT_BYTES = 16
_CHECKSUM_BYTES = 16
_HEAD_BYTES = len(_MARK) + CONTEXT_BYTES
_ROW_BYTES = 2 * DIGEST_BYTES


class RowHashesWriter:
    """Writes the file, some rows at a time.

    Args:
        file: The file, open for writing.
        context: A digest of all that requests depend on apart from the row, `CONTEXT_BYTES` long.
    """

    def __init__(self, file: BinaryIO, context: bytes) -> None:
        self._file, self._checksum = file, blake2b(digest_size=_CHECKSUM_BYTES)
        self._write(_MARK + context)

    def write(self, hashes: Digests, digests: Digests) -> None:
        """Append rows.

        Args:
            hashes: The hash of each row: S16, shape (n,).
            digests: The digest of its request: S16, shape (n,).
        """
        rows = np.empty((len(hashes), 2), f"S{DIGEST_BYTES}")
        rows[:, 0], rows[:, 1] = hashes, digests
        self._write(rows.tobytes())

    def finish(self) -> None:
        """Write the end of the file."""
        self._file.write(self._checksum.digest())

    def _write(self, content: bytes) -> None:
        self._checksum.update(content)
        self._file.write(content)


class RowHashes:
    """The digests of a submission's requests by the hash of the row. Takes 32 bytes of memory for each row.

    Args:
        hashes: The hash of each row: S16, shape (n,).
        digests: The digest of its request: S16, shape (n,).
    """

    def __init__(self, hashes: Digests, digests: Digests) -> None:
        first, second = halves_of(hashes)
        order = np.argsort(first, kind="stable")
        self._first, self._second, self._digests = first[order], second[order], digests[order]

    def __len__(self) -> int:
        return len(self._digests)

    def digests_of(self, hashes: Digests) -> tuple[Digests, NDArray[np.bool_]]:
        """Return the digest of each row's request, and whether the row was among those of the submission.

        Args:
            hashes: The hash of each row: S16, shape (n,).

        Returns:
            S16 and bool, both with the shape (n,).
        """
        if len(self) == 0:
            return np.zeros(len(hashes), hashes.dtype), np.zeros(len(hashes), bool)
        first, second = halves_of(hashes)
        position = position_of_halves(self._first, first)
        # Of several rows whose hashes have the same first half, all but the first count as unknown.
        is_known = (self._first[position] == first) & (self._second[position] == second)
        return self._digests[position], is_known


def read_row_hashes(storage: Storage, folder: tuple[str, ...], context: bytes) -> RowHashes | None:
    """Read the file of a submission.

    Args:
        storage: The storage of the root.
        folder: The path of the submission's folder.
        context: The context of the rows that will be looked up.

    Returns:
        `None` if it is missing or damaged, or if its rows were rendered in another context.
    """
    try:
        content = storage.read_bytes(*folder, ROW_HASHES)
    except (OSError, StorageError):  # all rows are rendered
        return None
    end = len(content) - _CHECKSUM_BYTES
    if not content.startswith(_MARK + context) or end < _HEAD_BYTES or (end - _HEAD_BYTES) % _ROW_BYTES:
        return None
    if blake2b(memoryview(content)[:end], digest_size=_CHECKSUM_BYTES).digest() != content[end:]:
        return None
    count = (end - _HEAD_BYTES) // _ROW_BYTES
    rows = np.frombuffer(content, f"S{DIGEST_BYTES}", 2 * count, _HEAD_BYTES).reshape(count, 2)
    return RowHashes(rows[:, 0], rows[:, 1])


def remove_row_hashes(storage: Storage, folder: tuple[str, ...]) -> None:
    """Remove the file of a submission: a later one has its own."""
    storage.remove(*folder, ROW_HASHES)
